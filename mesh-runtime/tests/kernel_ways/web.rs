//! A container that is published: the runtime makes its interface, as an engine would ask for it.

use std::{net::Ipv4Addr, path::PathBuf};

use ipnet::Ipv4Net;
use mesh_client::{
    Client, ClientError,
    mesh::{AttachEndpointRequest, Owner, PublishedPort},
};
use mesh_testbed::{Host, NetNs, wait_until};

use crate::{pair::SOON, tables::listed};

pub(crate) struct Web {
    netns: NetNs,
    address: Ipv4Addr,
    owner: Owner,
    socket: PathBuf,
}

/// A range of ports of every address of the host.
pub(crate) fn port(protocol: &str, host: u16, container: u16, count: u16) -> PublishedPort {
    PublishedPort {
        protocol: protocol.to_owned(),
        host_address: String::new(),
        host_port: host.into(),
        container_port: container.into(),
        count: count.into(),
    }
}

impl Web {
    /// Attaches one that is published by `ports`, and waits until the host's rules show them.
    pub(crate) async fn attach(host: &Host, ports: &[PublishedPort]) -> Self {
        let netns = NetNs::new("web").await.unwrap();
        let owner = Owner {
            engine: "test".to_owned(),
            network: "quilt".to_owned(),
            container: netns.name().to_owned(),
            interface: "eth0".to_owned(),
        };
        let socket = host.runtime_socket();
        let mut runtime = Client::connect(&socket).await.unwrap();
        let request = AttachEndpointRequest {
            owner: Some(owner.clone()),
            network_namespace: netns.path().display().to_string(),
            default_route: true,
            ports: ports.to_vec(),
            ..Default::default()
        };
        let attached = runtime.attach(request).await.unwrap();
        let address: Ipv4Net = attached.inside.address.parse().unwrap();
        let web = Self {
            netns,
            address: address.addr(),
            owner,
            socket,
        };
        if !ports.is_empty() {
            web.wait_shown(host, true).await;
        }
        web
    }

    /// Says anew by which ports it is reached, and waits until the host's rules show that.
    pub(crate) async fn publish(
        &self,
        host: &Host,
        ports: &[PublishedPort],
    ) -> Result<(), ClientError> {
        let mut runtime = Client::connect(&self.socket).await?;
        runtime.publish(self.owner.clone(), ports.to_vec()).await?;
        self.wait_shown(host, !ports.is_empty()).await;
        Ok(())
    }

    /// Takes it off, and waits until the host's rules do not show it any more.
    pub(crate) async fn detach(&self, host: &Host) {
        let mut runtime = Client::connect(&self.socket).await.unwrap();
        runtime.detach(self.owner.clone()).await.unwrap();
        self.wait_shown(host, false).await;
    }

    async fn wait_shown(&self, host: &Host, shown: bool) {
        let way = format!(" : {} . ", self.address);
        wait_until("the ports in the rules", SOON, || async {
            let rules = listed(host.netns(), "inet quilt_mesh").unwrap_or_default();
            (rules.contains(&way) == shown).then_some(()).ok_or(rules)
        })
        .await
        .unwrap();
    }

    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }
}
