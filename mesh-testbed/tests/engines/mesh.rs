//! A mesh of two hosts, and what it shows of containers and their traffic.

use std::{net::Ipv4Addr, time::Duration};

use mesh_proto::mesh::{GetStatusResponse, PeerStatus, TrafficCounters};
use mesh_testbed::{
    BRIDGE, Entrance, Host, Links, Testbed, UdpFlow, UdpFlowOptions, transfer, wait_until,
};
use netlink_packet_route::link::LinkAttribute;

/// How long a test waits for what should take milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What a test needs; where it is missing, the panic says what to install.
pub(crate) fn needed<T>(result: mesh_testbed::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) async fn mesh_of_two() -> Testbed {
    let testbed = Testbed::builder().hosts(2).build().await.unwrap();
    needed(testbed.start().await);
    testbed
}

/// Waits until the node's fast path knows the container.
pub(crate) async fn wait_endpoint(host: &Host, address: Ipv4Addr, mac: Option<&str>) {
    let what = format!(
        "the endpoint {address} {} with its program",
        mac.unwrap_or_default()
    );
    wait_until(&what, SOON, async || {
        let status = host.status().await.map_err(|error| error.to_string())?;
        match is_endpoint(&status, address, mac) {
            true => Ok(()),
            false => Err(format!("{:?} {:?}", status.endpoints, status.fast_path)),
        }
    })
    .await
    .unwrap();
}

/// Whether the address belongs to one MAC address, this one if given, behind a port that has its program.
fn is_endpoint(status: &GetStatusResponse, address: Ipv4Addr, mac: Option<&str>) -> bool {
    let address = address.to_string();
    let mut of_address = status.endpoints.iter().filter(|it| it.address == address);
    let (Some(endpoint), None) = (of_address.next(), of_address.next()) else {
        return false;
    };
    let program = format!("{}: encapsulate", endpoint.interface);
    let fast_path = status.fast_path.as_ref();
    let attached = fast_path.is_some_and(|it| it.attachments.contains(&program));
    mac.is_none_or(|mac| endpoint.mac == mac) && attached
}

pub(crate) async fn wait_no_endpoint(host: &Host, address: Ipv4Addr) {
    let address = address.to_string();
    wait_until("the end of the endpoint", SOON, async || {
        let status = host.status().await.map_err(|error| error.to_string())?;
        match status.endpoints.iter().any(|it| it.address == address) {
            false => Ok(()),
            true => Err(format!("{:?}", status.endpoints)),
        }
    })
    .await
    .unwrap();
}

/// MAC address, MTU and IPv4 addresses of a host's bridge.
pub(crate) async fn bridge(host: &Host) -> (Vec<u8>, u32, Vec<String>) {
    let links = Links::of(host.netns()).unwrap();
    let message = links.get(BRIDGE).await.unwrap().unwrap();
    let mut mac = Vec::new();
    let mut mtu = 0;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = bytes,
            LinkAttribute::Mtu(bytes) => mtu = bytes,
            _ => {}
        }
    }
    let addresses = links.addresses(BRIDGE).await.unwrap();
    (
        mac,
        mtu,
        addresses.iter().map(ToString::to_string).collect(),
    )
}

/// What a host of two counted of the other one.
pub(crate) async fn counters(host: &Host) -> PeerStatus {
    let mut peers = host.peers().await.unwrap().peers;
    assert_eq!(peers.len(), 1, "{peers:?}");
    peers.remove(0)
}

pub(crate) fn fast(status: &PeerStatus) -> TrafficCounters {
    status.fast_path.unwrap_or_default()
}

/// Sees that containers' packets did not take the kernel path. Runtimes ask each other over it, every half a minute, whether
/// VXLAN gets through: two questions and two answers each way, twice where one is lost, none of more than 56 bytes (an echo has
/// 36, a datagram 28, an answer that refuses it 56).
pub(crate) fn assert_fast(before: &PeerStatus, after: &PeerStatus) {
    let [before, after] = [before, after].map(|it| it.kernel_path.unwrap_or_default());
    for (packets, bytes) in [
        (
            after.tx_packets - before.tx_packets,
            after.tx_bytes - before.tx_bytes,
        ),
        (
            after.rx_packets - before.rx_packets,
            after.rx_bytes - before.rx_bytes,
        ),
    ] {
        assert!(
            packets <= 8 && bytes <= 56 * packets,
            "{before:?} {after:?}"
        );
    }
}

/// The end of a conversation.
pub(crate) struct End<'a> {
    pub(crate) host: &'a Host,
    pub(crate) inside: Entrance,
    pub(crate) address: Ipv4Addr,
}

/// Sends UDP and TCP one way and sees that the fast path carried all of it at both ends.
pub(crate) async fn talk(from: &End<'_>, to: &End<'_>) {
    let before = (counters(from.host).await, counters(to.host).await);
    let options = UdpFlowOptions {
        rate: 5_000,
        max_packets: 1_000,
        ..UdpFlowOptions::default()
    };
    let flow = UdpFlow::start(&from.inside, &to.inside, to.address, options).unwrap();
    wait_until("the end of the flow", SOON, async || {
        flow.is_finished().then_some(()).ok_or("it runs")
    })
    .await
    .unwrap();
    let report = flow.stop().await.unwrap();
    assert_eq!((report.sent, report.lost()), (1_000, 0), "{report:?}");
    let copied = transfer(&from.inside, &to.inside, to.address, 5_000_000, SOON)
        .await
        .unwrap();
    assert!(copied.is_intact());
    let after = (counters(from.host).await, counters(to.host).await);

    assert_fast(&before.0, &after.0);
    assert_fast(&before.1, &after.1);
    let sent = fast(&after.0).tx_packets - fast(&before.0).tx_packets;
    let received = fast(&after.1).rx_packets - fast(&before.1).rx_packets;
    assert_eq!(sent, received, "what one host sent the other received");
    let bytes = fast(&after.1).rx_bytes - fast(&before.1).rx_bytes;
    assert!(bytes > 5_000_000, "{bytes} bytes for 5 MB of payload");
}
