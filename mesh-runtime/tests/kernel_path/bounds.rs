//! Who may be asked, how often, and for how long.

use mesh_client::{
    ClientError,
    mesh::{CarriedBy, PingRequest, ProbePathRequest},
};
use mesh_testbed::wait_until;

use crate::{
    pair::{SOON, peer_of, sync_peers},
    scene::{PROBES_B, codes, fast_nodes, kernel_nodes, ping_with, pinger, three},
};

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nobody_and_what_is_out_of_bounds_is_refused() {
    let testbed = kernel_nodes().await;
    let a = &testbed.hosts()[0];
    for (request, words) in [
        (three("host9"), "no peer is named \"host9\""),
        (three("10.42.9.0/24"), "no peer's subnet"),
        (three("10.42.1.254"), "this node's own endpoint"),
        (
            PingRequest {
                interval_ms: 99,
                ..three(PROBES_B)
            },
            "between 100 and 60000",
        ),
        (
            PingRequest {
                size: 1451,
                ..three(PROBES_B)
            },
            "MTU is 1450",
        ),
    ] {
        let refused = ping_with(a, request).await.err().unwrap();
        assert!(matches!(refused, ClientError::Refused(_)), "{refused:?}");
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_pings_are_under_way_at_most_and_who_hangs_up_makes_room() {
    let testbed = kernel_nodes().await;
    let a = &testbed.hosts()[0];
    let long = PingRequest {
        count: 1000,
        ..three(PROBES_B)
    };
    let mut under_way = Vec::new();
    for _ in 0..4 {
        let mut pings = pinger(a).await.ping(long.clone()).await.unwrap();
        pings.next().await.unwrap();
        under_way.push(pings);
    }
    let refused = pinger(a).await.ping(long.clone()).await.err().unwrap();
    assert!(matches!(refused, ClientError::NotYet(_)), "{refused:?}");
    assert!(
        refused.to_string().contains("4 pings are under way"),
        "{refused}"
    );
    under_way.pop();
    wait_until("room for another", SOON, || async {
        let another = pinger(a).await.ping(long.clone()).await;
        another.map(drop).map_err(|error| error.to_string())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_targets_each_has_its_result_in_its_place() {
    let testbed = fast_nodes().await;
    let [a, b, stranger, ..] = testbed.hosts() else {
        panic!("three hosts are needed");
    };
    let peers = vec![
        peer_of(b, "10.42.2.0/24"),
        peer_of(stranger, "10.42.3.0/24"),
    ];
    assert!(sync_peers(a, 2, peers).await.success);
    let mut pinger = pinger(a).await;
    let targets = ["10.42.3.0/24", "nobody", b.name(), "10.42.2.1"];
    let results = pinger
        .probe_path(ProbePathRequest {
            targets: targets.iter().map(ToString::to_string).collect(),
            timeout_ms: 900,
            ..ProbePathRequest::default()
        })
        .await
        .unwrap();
    let named: Vec<String> = results
        .iter()
        .map(|it| it.subject.clone().unwrap().target)
        .collect();
    assert_eq!(named, targets);
    // It runs nothing.
    assert_eq!(codes(&results[0]), ["peer-port-unserved"], "{results:?}");
    assert!(results[1].error.contains("no peer is named"), "{results:?}");
    assert!(!results[0].ok && !results[1].ok);
    for result in &results[2..] {
        assert!(result.ok && result.findings.is_empty(), "{result:?}");
        let container = result.container.clone().unwrap();
        assert_eq!(container.carried_by(), CarriedBy::FastPath);
        assert_eq!(container.largest, 1450);
    }
    // All peers.
    let all = ProbePathRequest {
        without_mtu: true,
        timeout_ms: 900,
        ..ProbePathRequest::default()
    };
    let results = pinger.probe_path(all).await.unwrap();
    let ok: Vec<(String, bool)> = results
        .iter()
        .map(|it| (it.subject.clone().unwrap().subnet, it.ok))
        .collect();
    let expected = [
        ("10.42.2.0/24".to_owned(), true),
        ("10.42.3.0/24".to_owned(), false),
    ];
    assert_eq!(ok, expected);
    assert_eq!(
        results[0].container.clone().unwrap().largest,
        0,
        "not looked for"
    );
    // And none is waited for longer than is asked for.
    let hasty = ProbePathRequest {
        targets: vec!["10.42.3.0/24".to_owned()],
        deadline_ms: 500,
        timeout_ms: 10_000,
        ..ProbePathRequest::default()
    };
    let results = pinger.probe_path(hasty).await.unwrap();
    assert!(results[0].error.contains("within 0.5 s"), "{results:?}");
}
