//! What the hosts themselves exchange with containers on other hosts. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::Duration,
};

use mesh_testbed::{DaemonOptions, NetNs, PingOptions, ping, transfer, wait_reachable};

mod pair;
use pair::{Pair, SOON};

const GATEWAY_A: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 1);
const GATEWAY_B: Ipv4Addr = Ipv4Addr::new(10, 42, 2, 1);

fn udp_socket(namespace: &NetNs) -> UdpSocket {
    let socket = namespace
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .unwrap()
        .unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// The address from which a namespace's packet arrives in another; its answer arrives too.
fn source_seen(from: &NetNs, to: &NetNs, address: Ipv4Addr) -> IpAddr {
    let (sender, receiver) = (udp_socket(from), udp_socket(to));
    let port = receiver.local_addr().unwrap().port();
    sender.send_to(b"request", (address, port)).unwrap();
    let mut buffer = [0; 16];
    let (length, source) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"request");
    receiver.send_to(b"answer", source).unwrap();
    let (length, answerer) = sender.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"answer");
    assert_eq!(answerer.ip(), address);
    source.ip()
}

/// Each host and the other's container, and the hosts among themselves, in both directions.
async fn exchange(pair: &Pair) {
    let (host_a, host_b) = (pair.host_a().netns(), pair.host_b().netns());
    let (a, b) = (pair.a.netns(), pair.b.netns());
    let (address_a, address_b) = (pair.a.address(), pair.b.address());
    for (from, source, to, target) in [
        (host_a, GATEWAY_A, b, address_b),
        (b, address_b, host_a, GATEWAY_A),
        (host_b, GATEWAY_B, a, address_a),
        (a, address_a, host_b, GATEWAY_B),
        (host_a, GATEWAY_A, host_b, GATEWAY_B),
    ] {
        wait_reachable(from, target, SOON).await.unwrap();
        let report = ping(from, target, PingOptions::default()).await.unwrap();
        assert!(report.is_complete(), "{source} to {target}: {report:?}");
        assert_eq!(source_seen(from, to, target), source, "to {target}");
        let copied = transfer(from, to, target, 2_000_000, Duration::from_secs(30)).await;
        assert!(copied.unwrap().is_intact(), "{source} to {target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_containers_of_other_hosts_reach_each_other_on_the_fast_path() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    exchange(&pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_containers_of_other_hosts_reach_each_other_on_the_kernel_path() {
    let pair = Pair::start(&DaemonOptions::new().args(["--fast-path", "off"])).await;
    exchange(&pair).await;
}
