//! Hosts that are cabled in other ways than with one card and its address.

use std::net::{Ipv4Addr, SocketAddrV4};

use mesh_testbed::{DaemonOptions, Host, PingOptions, Testbed, ping, wait_reachable};

use crate::{
    inside::{datagram, ip},
    pair::{Forged, Pair, SOON},
    scene::{guarded, kill},
    witness::{FORGED, Listener, PORT, TIMES, sees_no},
};

const VXLAN: u16 = mesh_layout::VXLAN_PORT;

fn options(fast_path: &str) -> DaemonOptions {
    DaemonOptions::new().args(["--fast-path", fast_path])
}

/// Moves a host's address to its loopback and gives it a second card; neither has an address,
/// and the route to the others leads over both.
async fn unnumber(testbed: &Testbed, host: &Host) {
    let (netns, address) = (host.netns(), host.address());
    testbed.add_card(host, "eth1", 1500).await.unwrap();
    ip(netns, &format!("address delete {address}/24 dev eth0"));
    ip(netns, &format!("address add {address}/32 dev lo"));
    ip(netns, "link set eth1 up");
    for interface in ["eth0", "eth1"] {
        // Without it a card would ask for the neighbours under an address of another.
        netns
            .sysctl(&format!("net/ipv4/conf/{interface}/arp_announce"), "0")
            .unwrap();
    }
    let route = format!("route add 192.0.2.0/24 src {address} nexthop dev eth0 nexthop dev eth1");
    ip(netns, &route);
    // By ports too, so that both links carry.
    netns
        .sysctl("net/ipv4/fib_multipath_hash_policy", "1")
        .unwrap();
}

async fn unnumbered_pair(fast_path: &str) -> Pair {
    let testbed = Testbed::builder().hosts(3).build().await.unwrap();
    for host in &testbed.hosts()[..2] {
        unnumber(&testbed, host).await;
    }
    let pair = Pair::start_on(testbed, &options(fast_path), &options(fast_path)).await;
    guarded(pair.host_a(), &pair.a).await;
    guarded(pair.host_b(), &pair.b).await;
    pair
}

async fn carries(pair: &Pair) {
    for (from, to) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        wait_reachable(from.netns(), to.address(), SOON)
            .await
            .unwrap();
        let report = ping(from.netns(), to.address(), PingOptions::default()).await;
        assert!(report.unwrap().is_complete());
        let listener = Listener::on(to.netns());
        // Many flows, for both links.
        for number in 0..32 {
            let payload = format!("flow {number}");
            crate::witness::sees(payload.as_bytes(), &listener, |payload| {
                datagram(from.netns(), SocketAddrV4::new(to.address(), PORT), payload);
            });
        }
    }
}

/// The stranger's VXLAN is not taken, over whichever card.
fn guards(pair: &Pair) {
    let stranger = pair.stranger().netns();
    let listener = Listener::on(pair.a.netns());
    let packet = Forged::proper(pair.b.address(), pair.a.address(), PORT, FORGED).bytes();
    for interface in ["eth0", "eth1"] {
        let shown = crate::inside::try_run(
            pair.host_a().netns(),
            "ip",
            &format!("link show {interface}"),
        );
        if !shown.status.success() {
            continue;
        }
        let mac = crate::inside::mac(pair.host_a().netns(), interface);
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        let neighbour = format!(
            "neighbour replace {} lladdr {mac} dev eth0 nud permanent",
            pair.host_a().address()
        );
        ip(stranger, &neighbour);
        for _ in 0..TIMES {
            let to = SocketAddrV4::new(pair.host_a().address(), VXLAN);
            datagram(stranger, to, &packet);
        }
        sees_no(FORGED, &listener, |marker| {
            datagram(
                pair.b.netns(),
                SocketAddrV4::new(pair.a.address(), PORT),
                marker,
            );
        });
    }
}

async fn unnumbered_uplinks_carry_and_guard(fast_path: &str) {
    let pair = unnumbered_pair(fast_path).await;
    carries(&pair).await;
    guards(&pair);
    kill(&pair).await;
    carries(&pair).await;
    guards(&pair);
}

#[tokio::test(flavor = "multi_thread")]
async fn unnumbered_uplinks_with_the_address_on_loopback_carry_and_guard_on_the_fast_path() {
    unnumbered_uplinks_carry_and_guard("auto").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unnumbered_uplinks_with_the_address_on_loopback_carry_and_guard_without_it() {
    unnumbered_uplinks_carry_and_guard("off").await;
}

/// The hosts themselves, which have no address but the one on loopback.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_reach_containers_over_unnumbered_uplinks() {
    for fast_path in ["auto", "off"] {
        let pair = unnumbered_pair(fast_path).await;
        for (from, to) in [
            (pair.host_a().netns(), Ipv4Addr::new(10, 42, 2, 1)),
            (pair.host_a().netns(), pair.b.address()),
            (pair.host_b().netns(), pair.a.address()),
            (pair.a.netns(), Ipv4Addr::new(10, 42, 2, 1)),
        ] {
            wait_reachable(from, to, SOON)
                .await
                .unwrap_or_else(|error| panic!("--fast-path {fast_path}: {error}"));
        }
    }
}

/// Takes a host's card away and plugs in another of its name and address.
async fn replug(pair: &Pair) {
    let (host, address) = (pair.host_a(), pair.host_a().address());
    ip(host.netns(), "link delete eth0");
    pair.testbed.add_card(host, "eth0", 1500).await.unwrap();
    ip(host.netns(), &format!("address add {address}/24 dev eth0"));
    ip(host.netns(), "link set eth0 up");
    // What a switch and a router do when a card was changed: the others learn its MAC anew.
    for other in [pair.host_b(), pair.stranger()] {
        ip(other.netns(), "neighbour flush dev eth0");
    }
}

async fn a_replugged_card_carries_and_guards(fast_path: &str) {
    let pair = Pair::start(&options(fast_path)).await;
    guarded(pair.host_a(), &pair.a).await;
    guarded(pair.host_b(), &pair.b).await;
    kill(&pair).await;
    replug(&pair).await;
    carries(&pair).await;
    guards(&pair);
    for host in [pair.host_a(), pair.host_b()] {
        host.restart(mesh_testbed::Daemon::Runtime).unwrap();
        host.wait_serving(SOON).await.unwrap();
    }
    guarded(pair.host_a(), &pair.a).await;
    carries(&pair).await;
    guards(&pair);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_was_recreated_while_the_runtime_is_dead_carries_and_guards() {
    a_replugged_card_carries_and_guards("auto").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_was_recreated_while_the_runtime_is_dead_carries_and_guards_without_programs() {
    a_replugged_card_carries_and_guards("off").await;
}
