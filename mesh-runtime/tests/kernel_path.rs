//! Asking along the way to a peer on the real kernel: which path carried what, and what is wrong where something is. Needs
//! root and nftables.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::net::Ipv4Addr;

use mesh_client::{
    ClientError, Pinger,
    mesh::{
        CarriedBy, PathResult, PathSubject, PingRequest, Pong, ProbePathRequest, ping_event::Event,
    },
};
use mesh_testbed::{
    Daemon, DaemonOptions, Host, NetNs, PingOptions, Signal, Testbed, UdpFlow, UdpFlowOptions,
    ping, wait_until,
};

mod pair;
use pair::{Pair, SOON, introduce, peer_of, start_runtimes, sync_peers};

const PROBES_B: &str = "10.42.2.254";

/// What came of a ping.
struct Pinged {
    subject: PathSubject,
    pongs: Vec<Pong>,
    result: PathResult,
}

impl Pinged {
    fn ways(&self) -> Vec<(CarriedBy, CarriedBy)> {
        let answered = self.pongs.iter().filter(|pong| pong.answered);
        answered.map(|pong| (pong.out(), pong.r#in())).collect()
    }

    fn codes(&self) -> Vec<&str> {
        codes(&self.result)
    }
}

fn codes(result: &PathResult) -> Vec<&str> {
    result.findings.iter().map(|it| it.code.as_str()).collect()
}

/// What is found, and it is one thing.
fn observed<'a>(result: &'a PathResult, code: &str) -> &'a str {
    assert_eq!(codes(result), [code], "{result:?}");
    &result.findings[0].observed
}

async fn pinger(host: &Host) -> Pinger {
    Pinger::connect(&host.runtime_socket()).await.unwrap()
}

async fn ping_with(host: &Host, request: PingRequest) -> Result<Pinged, ClientError> {
    let mut pings = pinger(host).await.ping(request).await?;
    let (mut subject, mut pongs) = (None, Vec::new());
    while let Some(event) = pings.next().await? {
        match event {
            Event::Subject(it) => subject = Some(it),
            Event::Pong(pong) => pongs.push(pong),
            Event::Result(result) => {
                assert!(pings.next().await?.is_none(), "an event after the last");
                let subject = subject.unwrap();
                return Ok(Pinged {
                    subject,
                    pongs,
                    result,
                });
            }
        }
    }
    panic!("no result");
}

fn three(target: &str) -> PingRequest {
    PingRequest {
        target: target.to_owned(),
        count: 3,
        interval_ms: 100,
        timeout_ms: 600,
        ..PingRequest::default()
    }
}

async fn ping_three(host: &Host, target: &str) -> Pinged {
    ping_with(host, three(target)).await.unwrap()
}

/// Waits until a host has its endpoint for probes, guarded, and with a program where programs carry traffic.
async fn wait_endpoint(host: &Host, address: &str, fast: bool) {
    wait_until("the endpoint for probes", SOON, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        let known = status.probe_endpoint == address;
        let attached = status.fast_path.unwrap_or_default().attachments;
        let carries = attached.contains(&"quilt-probe: encapsulate".to_owned());
        match known && (carries || !fast) {
            true => Ok(()),
            false => Err(format!("{:?} {attached:?}", status.probe_endpoint)),
        }
    })
    .await
    .unwrap();
}

/// Waits until the fast path carries probes there and back: neighbours are known then.
async fn wait_fast(host: &Host, target: &str) {
    wait_until("the fast path", SOON, || async {
        let pinged = ping_three(host, target).await;
        let fast = (CarriedBy::FastPath, CarriedBy::FastPath);
        match pinged.ways() == [fast; 3] {
            true => Ok(()),
            false => Err(format!("{:?}", pinged.pongs)),
        }
    })
    .await
    .unwrap();
}

fn kernel_path() -> DaemonOptions {
    DaemonOptions::new().args(["--fast-path", "off"])
}

/// Two hosts that know each other, with their endpoints for probes.
async fn nodes(on_a: &DaemonOptions, on_b: &DaemonOptions) -> Testbed {
    let testbed = start_runtimes(on_a, on_b).await;
    introduce(&testbed, 1).await;
    testbed
}

async fn fast_nodes() -> Testbed {
    let options = DaemonOptions::new();
    let testbed = nodes(&options, &options).await;
    wait_endpoint(&testbed.hosts()[0], "10.42.1.254", true).await;
    wait_endpoint(&testbed.hosts()[1], PROBES_B, true).await;
    wait_fast(&testbed.hosts()[0], "10.42.2.0/24").await;
    testbed
}

async fn kernel_nodes() -> Testbed {
    let testbed = nodes(&kernel_path(), &kernel_path()).await;
    wait_endpoint(&testbed.hosts()[0], "10.42.1.254", false).await;
    wait_endpoint(&testbed.hosts()[1], PROBES_B, false).await;
    testbed
}

fn nft(namespace: &NetNs, rules: &[&str]) {
    for words in [
        "add table bridge hypervisor",
        "add chain bridge hypervisor swallows { type filter hook forward priority 0 ; }",
    ] {
        run_nft(namespace, words);
    }
    for rule in rules {
        run_nft(
            namespace,
            &format!("add rule bridge hypervisor swallows {rule} drop"),
        );
    }
}

fn run_nft(namespace: &NetNs, words: &str) {
    let mut command = namespace.command("nft");
    let output = command.args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "nft {words}: {output:?}");
}

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

/// Prints how long a probe takes beside what containers measure themselves, in one run. The figures are for a reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_takes_about_as_long_as_a_ping_between_containers() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    let (a, b) = (pair.host_a(), pair.host_b());
    wait_endpoint(a, "10.42.1.254", true).await;
    wait_endpoint(b, PROBES_B, true).await;
    wait_fast(a, PROBES_B).await;
    let (mut probes, mut containers) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let pinged = ping_with(
            a,
            PingRequest {
                count: 20,
                ..three(PROBES_B)
            },
        )
        .await
        .unwrap();
        assert_eq!(pinged.ways().len(), 20);
        probes.extend(pinged.pongs.iter().map(|pong| pong.round_trip_ns));
        let options = PingOptions {
            count: 20,
            ..PingOptions::default()
        };
        let to: Ipv4Addr = pair.b.address();
        let report = ping(pair.a.netns(), to, options).await.unwrap();
        containers.extend(
            report
                .round_trips()
                .map(|it| u64::try_from(it.as_nanos()).unwrap()),
        );
    }
    let median = |times: &mut Vec<u64>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (probe, container) = (median(&mut probes), median(&mut containers));
    assert!(probe > 0 && container > 0);
    println!(
        "median of 100: probe {} us, container to container {} us, ratio {:.2}",
        probe / 1000,
        container / 1000,
        probe as f64 / container as f64
    );
}
