//! A sandbox of CRI with a container, as Kubernetes calls a pod.

use std::net::Ipv4Addr;

use mesh_testbed::Host;

use crate::{
    cri::{Cri, Sandbox},
    mesh::{End, assert_fast, counters, fast, talk},
};

/// A sandbox with a container in it.
pub(crate) struct Pod<'a> {
    pub(crate) host: &'a Host,
    pub(crate) cri: &'a Cri<'a>,
    pub(crate) sandbox: Sandbox,
    pub(crate) address: Ipv4Addr,
    container: String,
}

impl<'a> Pod<'a> {
    pub(crate) async fn run(host: &'a Host, cri: &'a Cri<'a>, name: &str) -> Self {
        let sandbox = cri.run(name, &[], &[]).await.unwrap();
        Self::with(host, cri, sandbox).await
    }

    pub(crate) async fn with(host: &'a Host, cri: &'a Cri<'a>, sandbox: Sandbox) -> Self {
        let address = cri.shown(&sandbox).await.address.unwrap();
        let container = cri.start(&sandbox).await;
        Self {
            host,
            cri,
            sandbox,
            address,
            container,
        }
    }

    async fn end(&self) -> End<'_> {
        End {
            host: self.host,
            inside: self.cri.entrance(&self.sandbox).await,
            address: self.address,
        }
    }
}

/// Their containers ping each other with a program of their own, and they talk both ways.
pub(crate) async fn reach_each_other(one: &Pod<'_>, other: &Pod<'_>) {
    for (from, to) in [(one, other), (other, one)] {
        let before = counters(from.host).await;
        let address = to.address.to_string();
        let ping = ["ping", "-c", "5", "-i", "0.1", "-W", "2", &address];
        let said = from.cri.exec(&from.container, &ping).await;
        assert!(said.contains("5 packets received"), "{said}");
        let after = counters(from.host).await;
        assert_fast(&before, &after);
        assert_eq!(fast(&after).tx_packets - fast(&before).tx_packets, 5);
        assert_eq!(fast(&after).rx_packets - fast(&before).rx_packets, 5);
    }
    let (one, other) = (one.end().await, other.end().await);
    talk(&one, &other).await;
    talk(&other, &one).await;
}
