//! Which path carried a probe.

use std::time::Duration;

use mesh_client::mesh::{CarriedBy, PingRequest};
use mesh_testbed::{DaemonOptions, PingOptions, UdpFlow, UdpFlowOptions, ping};

use crate::{
    pair::Pair,
    scene::{
        PROBES_B, fast_nodes, kernel_nodes, kernel_path, nodes, observed, ping_three, ping_with,
        three, wait_endpoint, wait_fast,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_answers_by_the_fast_path_and_by_the_kernel_path_and_takes_the_largest_packets() {
    let testbed = fast_nodes().await;
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    for target in [b.name(), &b.address().to_string(), "10.42.2.0/24", PROBES_B] {
        let pinged = ping_three(a, target).await;
        let fast = (CarriedBy::FastPath, CarriedBy::FastPath);
        assert_eq!(pinged.ways(), [fast; 3], "{target}: {:?}", pinged.pongs);
        assert!(pinged.pongs.iter().all(|pong| pong.round_trip_ns > 0));
        assert_eq!(pinged.subject.address, PROBES_B);
        assert_eq!(pinged.subject.hostname, b.name());
        assert_eq!(pinged.subject.source, "10.42.1.254");
        let result = pinged.result;
        assert!(result.ok && result.findings.is_empty(), "{result:?}");
        let container = result.container.unwrap();
        assert_eq!(container.carried_by(), CarriedBy::FastPath);
        assert_eq!((container.answered, container.largest), (1, 1450));
        let kernel = result.kernel.unwrap();
        assert_eq!(kernel.carried_by(), CarriedBy::KernelPath);
        assert_eq!((kernel.answered, kernel.largest), (1, 1450));
        let underlay = result.underlay.unwrap();
        assert!(
            underlay.answered && underlay.interface == "eth0",
            "{underlay:?}"
        );
        assert_eq!(underlay.largest, 1500);
        assert_eq!(result.without_fast_path, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_fast_path_the_kernel_path_carries_and_the_reason_is_told() {
    let testbed = kernel_nodes().await;
    let pinged = ping_three(&testbed.hosts()[0], "10.42.2.0/24").await;
    let kernel = (CarriedBy::KernelPath, CarriedBy::KernelPath);
    assert_eq!(pinged.ways(), [kernel; 3], "{:?}", pinged.pongs);
    assert!(pinged.result.ok);
    let text = observed(&pinged.result, "path-not-fast");
    assert!(text.contains("--fast-path off"), "{text}");
    assert_eq!(pinged.result.container.unwrap().largest, 1450);
}

/// Each node tells of its own half: what the other's paths are it cannot see.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_with_different_paths_each_tells_its_own() {
    let testbed = nodes(&DaemonOptions::new(), &kernel_path()).await;
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    wait_endpoint(a, "10.42.1.254", true).await;
    wait_endpoint(b, PROBES_B, false).await;
    wait_fast(a, PROBES_B).await;
    let pinged = ping_three(b, "10.42.1.254").await;
    let kernel = (CarriedBy::KernelPath, CarriedBy::KernelPath);
    assert_eq!(pinged.ways(), [kernel; 3], "{:?}", pinged.pongs);
}

/// Counters of the peer would say that both paths carried something.
#[tokio::test(flavor = "multi_thread")]
async fn which_path_carried_a_probe_is_known_also_while_both_carry_other_packets() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    let (a, b) = (pair.host_a(), pair.host_b());
    wait_endpoint(a, "10.42.1.254", true).await;
    wait_endpoint(b, PROBES_B, true).await;
    wait_fast(a, PROBES_B).await;
    let options = UdpFlowOptions::default();
    let fast = UdpFlow::start(pair.a.netns(), pair.b.netns(), pair.b.address(), options).unwrap();
    let kernel = UdpFlow::start(a.netns(), pair.b.netns(), pair.b.address(), options).unwrap();
    let pinged = ping_with(
        a,
        PingRequest {
            count: 20,
            ..three(PROBES_B)
        },
    )
    .await
    .unwrap();
    for flow in [fast, kernel] {
        assert!(!flow.is_finished());
        flow.stop().await.unwrap();
    }
    let fast = (CarriedBy::FastPath, CarriedBy::FastPath);
    assert_eq!(pinged.ways(), [fast; 20], "{:?}", pinged.pongs);
    let kernel = pinged.result.kernel.unwrap();
    assert_eq!(kernel.carried_by(), CarriedBy::KernelPath);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_an_endpoint_for_probes_asks_by_the_kernel_path_and_says_so() {
    let without = DaemonOptions::new().args(["--probe-endpoint", "off"]);
    let testbed = nodes(&without, &DaemonOptions::new()).await;
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    wait_endpoint(b, PROBES_B, true).await;
    let pinged = ping_three(a, b.name()).await;
    let kernel = (CarriedBy::KernelPath, CarriedBy::KernelPath);
    assert_eq!(pinged.ways(), [kernel; 3]);
    assert_eq!(pinged.subject.source, "10.42.1.1");
    let said = pinged
        .result
        .findings
        .iter()
        .find(|it| it.code == "no-probe-endpoint");
    let said = said.expect("it is told");
    assert!(said.observed.contains("--probe-endpoint off"), "{said:?}");
    assert!(pinged.result.ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_here_and_there_are_asked_by_their_addresses() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    let a = pair.host_a();
    wait_endpoint(a, "10.42.1.254", true).await;
    wait_fast(a, &pair.b.address().to_string()).await;
    let pinged = ping_three(a, &pair.a.address().to_string()).await;
    let bridge = (CarriedBy::Bridge, CarriedBy::Bridge);
    assert_eq!(pinged.ways(), [bridge; 3], "{:?}", pinged.pongs);
    assert!(pinged.result.ok && pinged.result.kernel.is_none());
    for (target, words) in [
        ("10.42.1.77", "nobody answers at 10.42.1.77 on this node"),
        ("10.42.2.77", "nobody has 10.42.2.77 there"),
    ] {
        let pinged = ping_three(a, target).await;
        let text = observed(&pinged.result, "no-such-endpoint");
        assert!(text.contains(words), "{text}");
        assert!(!pinged.result.ok);
    }
}

/// Prints how long a probe takes beside what containers measure of each other and of that endpoint, in one run. The figures are
/// for a reader.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_probe_takes_is_printed_beside_a_ping_between_containers() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    let (a, b) = (pair.host_a(), pair.host_b());
    wait_endpoint(a, "10.42.1.254", true).await;
    wait_endpoint(b, PROBES_B, true).await;
    wait_fast(a, PROBES_B).await;
    let options = PingOptions {
        count: 20,
        ..PingOptions::default()
    };
    let [mut probes, mut containers, mut to_endpoint] = [const { Vec::new() }; 3];
    for _ in 0..5 {
        let request = PingRequest {
            count: 20,
            ..three(PROBES_B)
        };
        let pinged = ping_with(a, request).await.unwrap();
        assert_eq!(pinged.ways().len(), 20);
        let times = pinged.pongs.iter().map(|pong| pong.round_trip_ns);
        probes.extend(times.map(Duration::from_nanos));
        let report = ping(pair.a.netns(), pair.b.address(), options)
            .await
            .unwrap();
        containers.extend(report.round_trips());
        let report = ping(pair.a.netns(), PROBES_B.parse().unwrap(), options).await;
        to_endpoint.extend(report.unwrap().round_trips());
    }
    let [probe, container, endpoint] =
        [&mut probes, &mut containers, &mut to_endpoint].map(|times| {
            times.sort_unstable();
            times[times.len() / 2]
        });
    let ratio = |time: Duration| time.as_secs_f64() / container.as_secs_f64();
    println!(
        "medians of 100: container to container {container:?}, container to endpoint {endpoint:?} ({:.2}), probe \
         {probe:?} ({:.2})",
        ratio(endpoint),
        ratio(probe)
    );
}
