//! What is wrong with a way.

use mesh_client::mesh::PathResult;
use mesh_testbed::{Daemon, DaemonOptions, Signal};

use crate::{
    pair::{peer_of, start_runtimes, sync_peers},
    scene::{
        PROBES_B, fast_nodes, kernel_nodes, nft, nodes, observed, ping_three, wait_endpoint,
        wait_fast,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_whose_host_is_off_the_network_is_told_from_one_whose_port_is_swallowed() {
    for testbed in [fast_nodes().await, kernel_nodes().await] {
        let [a, b, ..] = testbed.hosts() else {
            panic!("two hosts are needed");
        };
        nft(testbed.switch(), &["udp dport 4789"]);
        let pinged = ping_three(a, b.name()).await;
        assert!(pinged.ways().is_empty(), "{:?}", pinged.pongs);
        assert!(!pinged.result.ok);
        let text = observed(&pinged.result, "vxlan-not-through");
        let host = format!(
            "the host of {} ({}) answers on the underlay",
            b.name(),
            b.address()
        );
        for words in [host.as_str(), "UDP port 4789"] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
        testbed.underlay_cut(b).await.unwrap();
        let pinged = ping_three(a, b.name()).await;
        let text = observed(&pinged.result, "peer-host-silent");
        assert!(
            text.contains("answers neither on the underlay over eth0"),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_on_which_nobody_serves_the_port_says_so() {
    let testbed = kernel_nodes().await;
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    b.kill(Daemon::Runtime, Signal::SIGSTOP).unwrap();
    // It is made anew as soon as somebody can.
    let mut command = b.netns().command("ip");
    let deleted = command
        .args(["link", "delete", "vxlan100"])
        .output()
        .unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
    let pinged = ping_three(a, b.name()).await;
    b.kill(Daemon::Runtime, Signal::SIGCONT).unwrap();
    let text = observed(&pinged.result, "peer-port-unserved");
    assert!(text.contains("nobody serves UDP port 4789 there"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_vanish_on_the_way_for_their_size_are_told_with_the_largest_that_passes() {
    for testbed in [fast_nodes().await, kernel_nodes().await] {
        nft(testbed.switch(), &["udp dport 4789 ip length > 1400"]);
        let pinged = ping_three(&testbed.hosts()[0], PROBES_B).await;
        // The small ones are answered.
        assert_eq!(pinged.ways().len(), 3);
        let mut gravest = pinged.result.findings.iter();
        let gravest = gravest.next().unwrap();
        assert_eq!(gravest.code, "path-mtu-small");
        let text = &gravest.observed;
        assert!(text.contains("more than 1350 bytes do not"), "{text}");
        assert!(
            gravest.remedy.contains("ip link set eth0 mtu 1400"),
            "{gravest:?}"
        );
        let PathResult {
            container,
            kernel,
            underlay,
            ..
        } = pinged.result;
        assert_eq!(container.unwrap().largest, 1350);
        assert_eq!(kernel.unwrap().largest, 1350);
        // It passes what is no VXLAN.
        assert_eq!(underlay.unwrap().largest, 1500);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_takes_large_packets_in_fragments_alone_is_told() {
    let testbed = fast_nodes().await;
    // As a router would drop it, and fragment what may be fragmented.
    nft(
        testbed.switch(),
        &["ip frag-off & 0x4000 != 0 ip length > 1400"],
    );
    let pinged = ping_three(&testbed.hosts()[0], PROBES_B).await;
    let text = observed(&pinged.result, "outer-fragments");
    assert!(
        text.contains("takes packets of 1400 bytes whole") && text.contains("needs 1500"),
        "{text}"
    );
    assert_eq!(pinged.result.container.unwrap().largest, 1450);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_has_told_that_it_takes_at_most_is_the_largest_that_is_looked_for() {
    let testbed = fast_nodes().await;
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    nft(testbed.switch(), &["udp dport 4789 ip length > 1450"]);
    let mut peer = peer_of(b, "10.42.2.0/24");
    peer.mtu = 1400;
    assert!(sync_peers(a, 2, vec![peer]).await.success);
    let pinged = ping_three(a, PROBES_B).await;
    assert_eq!(pinged.codes(), Vec::<&str>::new(), "{:?}", pinged.result);
    assert_eq!((pinged.result.mtu, pinged.result.peer_mtu), (1450, 1400));
    assert_eq!(pinged.result.container.unwrap().largest, 1400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_an_endpoint_for_probes_answers_over_the_overlay_all_the_same() {
    let without = DaemonOptions::new().args(["--probe-endpoint", "off"]);
    let testbed = nodes(&DaemonOptions::new(), &without).await;
    let a = &testbed.hosts()[0];
    wait_endpoint(a, "10.42.1.254", true).await;
    let pinged = ping_three(a, "10.42.2.0/24").await;
    assert!(pinged.ways().is_empty(), "{:?}", pinged.pongs);
    let text = observed(&pinged.result, "peer-without-probes");
    assert!(
        text.contains("answers over the overlay, but nobody has 10.42.2.254 there"),
        "{text}"
    );
    assert!(pinged.result.ok, "it is no fault of the way");
    // Whom it has is its bridge.
    wait_fast(a, "10.42.2.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_to_which_somebody_elses_route_leads_is_told_with_that_route() {
    let testbed = start_runtimes(&DaemonOptions::new(), &DaemonOptions::new()).await;
    let a = &testbed.hosts()[0];
    let mut command = a.netns().command("ip");
    let route = "route add 10.42.2.0/24 via 192.0.2.99 dev eth0 onlink";
    let added = command.args(route.split_whitespace()).output().unwrap();
    assert!(added.status.success(), "{added:?}");
    let peer = peer_of(&testbed.hosts()[1], "10.42.2.0/24");
    assert_eq!(sync_peers(a, 1, vec![peer]).await.rejected.len(), 1);
    let pinged = ping_three(a, "10.42.2.0/24").await;
    let first = &pinged.result.findings[0];
    assert_eq!(first.code, "peer-not-set-up");
    assert!(
        first.observed.contains("belongs to somebody else"),
        "{first:?}"
    );
}
