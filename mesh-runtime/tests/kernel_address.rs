//! Nodes that move to other addresses of the underlay keep identity and subnet, and leave
//! nothing behind: every test compares exact listings. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeSet, net::Ipv4Addr};

use mesh_proto::mesh::Peer;
use mesh_testbed::{DaemonOptions, Host, wait_reachable, wait_until};

mod pair;
use pair::{Pair, SOON, configure, introduce, start_runtimes, sync_peers};

const SUBNET_B: &str = "10.42.2.0/24";

fn run(host: &Host, program: &str, words: &str) -> Vec<String> {
    let mut command = host.netns().command(program);
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {words}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

/// Everything that leads to a peer by its address.
fn forwarding(host: &Host) -> Vec<String> {
    run(host, "bridge", "fdb show dev vxlan100")
}

/// What leads to a peer by its subnet, with the device's index: it does not change.
fn overlay(host: &Host) -> Vec<Vec<String>> {
    vec![
        run(host, "ip", "route show proto 81"),
        run(host, "ip", "neighbour show dev vxlan100"),
        vec![link_index(host)],
    ]
}

fn link_index(host: &Host) -> String {
    let link = run(host, "ip", "-oneline link show vxlan100").concat();
    link.split(':').next().unwrap().to_owned()
}

/// The outer source address of the VXLAN device.
fn local(host: &Host) -> String {
    let link = run(host, "ip", "-oneline -details link show vxlan100").concat();
    let after = link.split(" local ").nth(1).unwrap_or_default();
    after.split(' ').next().unwrap_or_default().to_owned()
}

/// The addresses of peers in one of the maps: each entry has exactly one field of that name.
fn addresses_in(host: &Host, map: &str) -> BTreeSet<Ipv4Addr> {
    let dump: serde_json::Value = serde_json::from_str(&host.bpftool_dump(map).unwrap()).unwrap();
    let entries = dump.as_array().unwrap();
    let addresses = entries.iter().map(|entry| {
        let entry = entry.get("formatted").unwrap_or(entry);
        let field = |part: &str| entry.get(part)?.get("address").cloned();
        let bytes = field("value").or_else(|| field("key")).unwrap();
        let bytes: [u8; 4] = serde_json::from_value(bytes).unwrap();
        Ipv4Addr::from(bytes)
    });
    addresses.collect()
}

/// Waits until the fast path is loaded, which goes on beside the first calls.
async fn wait_loaded(host: &Host) {
    wait_until("the maps of the fast path", SOON, || async {
        let dump = host
            .bpftool_dump("peers")
            .map_err(|error| error.to_string())?;
        dump.contains("address").then_some(()).ok_or(dump)
    })
    .await
    .unwrap();
}

fn peer(subnet: &str, address: &str) -> Peer {
    Peer {
        subnet: subnet.to_owned(),
        host_address: address.to_owned(),
        hostname: String::new(),
        ..Peer::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_moves_keeps_its_subnet_and_its_peers_follow_without_a_trace_of_the_old() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let (a, b) = (pair.host_a(), pair.host_b());
    let before = (overlay(a), overlay(b));
    let moved = Ipv4Addr::new(192, 0, 2, 77);
    b.change_address(moved).await.unwrap();
    pair.sync(2).await;

    wait_reachable(pair.a.netns(), pair.b.address(), SOON)
        .await
        .unwrap();
    wait_reachable(pair.b.netns(), pair.a.address(), SOON)
        .await
        .unwrap();
    assert_eq!(
        (overlay(a), overlay(b)),
        before,
        "routes, neighbours, devices"
    );
    assert_eq!(local(b), moved.to_string());
    assert_eq!(
        forwarding(a),
        [format!("02:51:0a:2a:02:00 dst {moved} self permanent")]
    );
    assert_eq!(addresses_in(a, "peers"), [moved].into());
    assert_eq!(addresses_in(a, "vteps"), [moved].into());
    let status = b.status().await.unwrap();
    assert_eq!(status.subnet, SUBNET_B);
    assert_eq!(status.host_address, moved.to_string());
    assert_eq!(status.problems(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_moves_is_followed_by_the_sync_that_tells_of_it() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    introduce(&testbed, 1).await;
    let a = &testbed.hosts()[0];
    wait_loaded(a).await;
    let before = overlay(a);
    let answer = sync_peers(a, 2, vec![peer(SUBNET_B, "192.0.2.88")]).await;
    assert_eq!((answer.changed, answer.added, answer.removed), (1, 0, 0));
    // No waiting: when the call returns, the kernel shows it.
    assert_eq!(
        forwarding(a),
        ["02:51:0a:2a:02:00 dst 192.0.2.88 self permanent"]
    );
    assert_eq!(overlay(a), before);
    let moved = BTreeSet::from([Ipv4Addr::new(192, 0, 2, 88)]);
    wait_until("the maps of the fast path", SOON, || async {
        let shown = (addresses_in(a, "peers"), addresses_in(a, "vteps"));
        match shown == (moved.clone(), moved.clone()) {
            true => Ok(()),
            false => Err(format!("{shown:?}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_swap_their_addresses_in_one_sync() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    let peers = |two: &str, three: &str| vec![peer(SUBNET_B, two), peer("10.42.3.0/24", three)];
    sync_peers(a, 1, peers("192.0.2.88", "192.0.2.89")).await;
    wait_loaded(a).await;
    let before = overlay(a);
    let answer = sync_peers(a, 2, peers("192.0.2.89", "192.0.2.88")).await;
    assert_eq!((answer.changed, answer.unchanged), (2, 0));
    assert!(answer.rejected.is_empty(), "{answer:?}");
    assert_eq!(
        forwarding(a),
        [
            "02:51:0a:2a:02:00 dst 192.0.2.89 self permanent",
            "02:51:0a:2a:03:00 dst 192.0.2.88 self permanent"
        ]
    );
    assert_eq!(overlay(a), before);
    // Each address belongs to the counters of the peer that has it now.
    let listed = a.peers().await.unwrap();
    assert_eq!(listed.generation, 2);
    let both = BTreeSet::from([Ipv4Addr::new(192, 0, 2, 88), Ipv4Addr::new(192, 0, 2, 89)]);
    assert_eq!(addresses_in(a, "vteps"), both);
    let counters = |map: &str, address: [u8; 4]| {
        let dump = a.bpftool_dump(map).unwrap();
        let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
        let found = dump.as_array().unwrap().iter().find_map(|entry| {
            let entry = entry.get("formatted").unwrap_or(entry);
            let of = |part: &str| entry.get(part)?.get("address").cloned();
            let given = of("value").or_else(|| of("key"))?;
            let here = given == serde_json::json!(address);
            here.then(|| entry["value"]["counters"].clone())
        });
        found.unwrap()
    };
    for address in [[192, 0, 2, 88], [192, 0, 2, 89]] {
        assert_eq!(counters("peers", address), counters("vteps", address));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anybody_telling_the_overlay_follows_the_address_of_the_interface() {
    let testbed = mesh_testbed::Testbed::builder()
        .hosts(1)
        .build()
        .await
        .unwrap();
    let host = &testbed.hosts()[0];
    let options = DaemonOptions::new()
        .args(["--fast-path", "off"])
        .binary(env!("CARGO_BIN_EXE_quilt-runtime"));
    host.start_runtime(&options).await.unwrap();
    configure(host, "10.42.1.0/24").await;
    pair::inject(host, "10.42.9.0/24").await;
    assert_eq!(local(host), host.address().to_string());
    let before = overlay(host);
    for restarted in [false, true] {
        if restarted {
            // What was nobody's word before is nobody's afterwards.
            host.stop(
                mesh_testbed::Daemon::Runtime,
                mesh_testbed::Signal::SIGTERM,
                SOON,
            )
            .await
            .unwrap();
            host.restart(mesh_testbed::Daemon::Runtime).unwrap();
            host.wait_serving(SOON).await.unwrap();
        }
        let moved = Ipv4Addr::new(192, 0, 2, if restarted { 79 } else { 78 });
        host.change_address(moved).await.unwrap();
        wait_until("the overlay's local address", SOON, || async {
            let local = local(host);
            (local == moved.to_string()).then_some(()).ok_or(local)
        })
        .await
        .unwrap();
        assert_eq!(overlay(host), before);
    }
}
