//! Containers whose engine moves their interface itself, as Docker does for network drivers: another node reaches them by
//! the fast path from the first packet on, whenever the engine gets to it. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_client::{
    Client, HandedOver,
    mesh::{AttachEndpointRequest, Owner},
};
use mesh_proto::mesh::{PeerStatus, TrafficCounters};
use mesh_testbed::{Daemon, DaemonOptions, Host, NetNs, PingOptions, Signal, ping, wait_until};

mod pair;
use pair::{Pair, SOON, counters};

/// A container that is handed over to its engine.
struct Moved {
    netns: NetNs,
    made: HandedOver,
    /// The host's end.
    port: String,
}

impl Moved {
    async fn make(host: &Host) -> Self {
        let owner = Owner {
            engine: "docker".to_owned(),
            network: "quilt".to_owned(),
            container: "web".to_owned(),
            interface: "eth0".to_owned(),
        };
        let request = AttachEndpointRequest {
            owner: Some(owner.clone()),
            default_route: true,
            ..Default::default()
        };
        let mut client = Client::connect(&host.runtime_socket()).await.unwrap();
        let made = client.attach_moved(request).await.unwrap();
        let lease = client.lease(&owner).await.unwrap().unwrap();
        Self {
            netns: NetNs::new("web").await.unwrap(),
            made,
            port: lease.endpoint.unwrap().interface,
        }
    }

    fn address(&self) -> Ipv4Addr {
        self.made.address.parse::<Ipv4Net>().unwrap().addr()
    }

    /// What the engine does.
    fn take(&self, host: &Host) {
        let (name, path) = (&self.made.interface, self.netns.path());
        ip(
            host.netns(),
            &format!("link set {name} netns {}", path.display()),
        );
        for words in [
            format!("link set {name} name eth0"),
            format!("address add {} dev eth0", self.made.address),
            "link set eth0 up".to_owned(),
            format!("route add default via {}", self.made.gateway),
        ] {
            ip(&self.netns, &words);
        }
    }
}

fn ip(netns: &NetNs, words: &str) {
    let output = netns.command("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
}

fn kernel(counted: &PeerStatus) -> TrafficCounters {
    counted.kernel_path.unwrap_or_default()
}

fn fast(counted: &PeerStatus) -> TrafficCounters {
    counted.fast_path.unwrap_or_default()
}

/// When the engine gets to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// At once, when its port has no program of its own yet.
    AtOnce,
    /// Once the port has its program.
    Later,
    /// While no runtime is there to see it.
    RuntimeDead,
}

async fn is_reached_by_the_fast_path_from_the_first_packet_on(attach: &str, when: When) {
    let pair = Pair::start(&DaemonOptions::new().args(["--attach", attach])).await;
    pair.wait_fast().await;
    let (home, away) = (pair.host_a(), pair.host_b());
    let moved = Moved::make(home).await;
    let program = format!("{}: encapsulate", moved.port);
    if when != When::AtOnce {
        wait_until("the port's program", SOON, || async {
            let status = home.status().await.map_err(|error| error.to_string())?;
            let attached = status.fast_path.unwrap_or_default().attachments;
            let there = attached.contains(&program);
            there.then_some(()).ok_or(format!("{attached:?}"))
        })
        .await
        .unwrap();
    }
    let before = (counters(home).await, counters(away).await);
    if when == When::RuntimeDead {
        home.stop(Daemon::Runtime, Signal::SIGKILL, SOON)
            .await
            .unwrap();
    }
    moved.take(home);
    let there = ping(pair.b.netns(), moved.address(), PingOptions::default());
    let there = there.await.unwrap();
    assert!(there.is_complete(), "{when:?}: {there:?}");
    let back = ping(&moved.netns, pair.b.address(), PingOptions::default());
    let back = back.await.unwrap();
    assert!(back.is_complete(), "{when:?}: {back:?}");
    if when == When::RuntimeDead {
        home.restart(Daemon::Runtime).unwrap();
        home.wait_serving(SOON).await.unwrap();
        // What was counted meanwhile is shown once it has opened the maps.
        pair.wait_fast().await;
    }
    let after = (counters(home).await, counters(away).await);
    for (before, after) in [(before.0, after.0), (before.1, after.1)] {
        assert_eq!(kernel(&after), kernel(&before), "{when:?}");
        let sent = fast(&after).tx_packets - fast(&before).tx_packets;
        assert!(sent >= 2, "{when:?}: {before:?} {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_interface_is_on_the_fast_path_from_its_first_packet_on_if_it_is_moved_at_once() {
    is_reached_by_the_fast_path_from_the_first_packet_on("tcx", When::AtOnce).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_interface_is_on_the_fast_path_from_its_first_packet_on_if_it_is_moved_later() {
    is_reached_by_the_fast_path_from_the_first_packet_on("tcx", When::Later).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_interface_is_on_the_fast_path_from_its_first_packet_on_while_no_runtime_is_there()
{
    is_reached_by_the_fast_path_from_the_first_packet_on("tcx", When::RuntimeDead).await;
}

/// There its port is without a program for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_moved_interface_is_on_the_fast_path_from_its_first_packet_on_where_programs_are_filters()
{
    is_reached_by_the_fast_path_from_the_first_packet_on("clsact", When::AtOnce).await;
}
