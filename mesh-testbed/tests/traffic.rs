//! Containers on two hosts joined by plain routes: what the tools see of a network whose
//! behaviour is known.
#![allow(
    clippy::unwrap_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;
use mesh_testbed::{
    CONTAINER_MTU, Container, Echo, Links, NetNs, PingOptions, Testbed, UdpFlow, UdpFlowOptions,
    ping, transfer, wait_reachable,
};

const DEADLINE: Duration = Duration::from_secs(30);

struct Routed {
    testbed: Testbed,
    containers: Vec<Container>,
}

/// Two hosts with one container each, and a route to the other's subnet.
async fn routed() -> Routed {
    let testbed = Testbed::builder().hosts(2).build().await.unwrap();
    let mut containers = Vec::new();
    for (index, host) in testbed.hosts().iter().enumerate() {
        let other = 1 - index;
        let bridge: Ipv4Net = format!("10.42.{}.1/24", index + 1).parse().unwrap();
        let there: Ipv4Net = format!("10.42.{}.0/24", other + 1).parse().unwrap();
        host.add_bridge("quilt0", bridge, CONTAINER_MTU)
            .await
            .unwrap();
        host.netns().sysctl("net/ipv4/ip_forward", "1").unwrap();
        let links = Links::of(host.netns()).unwrap();
        links
            .add_route(there, testbed.hosts()[other].address())
            .await
            .unwrap();
        containers.push(host.add_container().await.unwrap());
    }
    let (from, to) = (&containers[0], &containers[1]);
    wait_reachable(from.netns(), to.address(), DEADLINE)
        .await
        .unwrap();
    Routed {
        testbed,
        containers,
    }
}

#[tokio::test]
async fn containers_reach_each_other_over_the_underlay() {
    let Routed {
        testbed,
        containers,
    } = routed().await;
    assert_eq!(containers[1].address(), Ipv4Addr::new(10, 42, 2, 2));
    let there = containers[1].address();
    let report = ping(containers[0].netns(), there, PingOptions::default())
        .await
        .unwrap();
    assert!(report.is_complete(), "{report:?}");
    let routes = testbed.hosts()[0].routes().await.unwrap();
    assert!(
        routes
            .iter()
            .any(|route| route.destination.to_string() == "10.42.2.0/24"
                && route.gateway == Some(testbed.hosts()[1].address())
                && route.interface == "eth0"),
        "{routes:?}"
    );
}

#[tokio::test]
async fn what_tcp_carries_arrives_unchanged() {
    let Routed {
        containers,
        testbed: _testbed,
    } = routed().await;
    let [from, to] = &containers[..] else {
        panic!("two containers")
    };
    let done = transfer(from.netns(), to.netns(), to.address(), 8_000_000, DEADLINE)
        .await
        .unwrap();
    assert!(done.is_intact(), "{done:?}");
    assert_eq!((done.bytes, done.sent_sha256.len()), (8_000_000, 64));
}

#[tokio::test]
async fn a_flow_over_a_healthy_network_loses_nothing() {
    let Routed {
        containers,
        testbed: _testbed,
    } = routed().await;
    let [from, to] = &containers[..] else {
        panic!("two containers")
    };
    let options = UdpFlowOptions {
        rate: 2000,
        max_packets: 500,
        ..UdpFlowOptions::default()
    };
    let flow = UdpFlow::start(from.netns(), to.netns(), to.address(), options).unwrap();
    mesh_testbed::wait_until("the end of the flow", DEADLINE, async || {
        flow.is_finished().then_some(()).ok_or("it is sending")
    })
    .await
    .unwrap();
    let report = flow.stop().await.unwrap();
    assert_eq!((report.sent, report.received), (500, 500), "{report:?}");
    assert_eq!(
        (report.duplicates, report.reordered, report.corrupted),
        (0, 0, 0),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_cut_host_is_unreachable_until_it_is_plugged_in_again() {
    let Routed {
        testbed,
        containers,
    } = routed().await;
    let [from, to] = &containers[..] else {
        panic!("two containers")
    };
    let once = PingOptions {
        count: 1,
        timeout: Duration::from_millis(200),
        ..PingOptions::default()
    };
    for silent in [false, true] {
        let host = &testbed.hosts()[1];
        match silent {
            true => testbed.underlay_partition(host).await.unwrap(),
            false => testbed.underlay_cut(host).await.unwrap(),
        }
        let report = ping(from.netns(), to.address(), once).await.unwrap();
        assert!(!matches!(report.echoes[..], [Echo::Reply(_)]), "{report:?}");
        testbed.underlay_restore(host).await.unwrap();
        wait_reachable(from.netns(), to.address(), DEADLINE)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_host_can_move_to_another_address() {
    let testbed = Testbed::builder().hosts(2).build().await.unwrap();
    let [mover, other] = testbed.hosts() else {
        panic!("two hosts")
    };
    let address = Ipv4Addr::new(192, 0, 2, 250);
    mover.change_address(address).await.unwrap();
    assert_eq!(mover.address(), address);
    wait_reachable(other.netns(), address, DEADLINE)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_missing_bridge_is_named_in_the_error() {
    let testbed = Testbed::builder().hosts(1).build().await.unwrap();
    let error = testbed.hosts()[0]
        .add_container()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no interface quilt0"), "{error}");
}

#[tokio::test]
async fn work_runs_inside_the_namespace_it_is_given_to() {
    let inside = NetNs::new("inside").await.unwrap();
    let outside = std::fs::read_link("/proc/self/ns/net").unwrap();
    let link = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let seen = inside.run(link).unwrap();
    assert_ne!(seen, outside);
    assert_eq!(
        inside
            .run_async(move || async move { link() })
            .await
            .unwrap(),
        seen
    );
    let output = inside
        .command("readlink")
        .arg("/proc/self/ns/net")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        seen.to_str().unwrap()
    );
    // The loopback is up: a process can talk to itself.
    wait_reachable(&inside, Ipv4Addr::LOCALHOST, DEADLINE)
        .await
        .unwrap();
}
