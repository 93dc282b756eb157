//! No packet is unaccounted for: what the containers sent, as their own interfaces counted it,
//! is what the programs encapsulated, left to the kernel or dropped, and what either path took
//! to the other host is what arrived there or was dropped by a guard. Needs root.
//!
//! The witnesses are the kernel's: the counters of the containers' interfaces, of their IP
//! stacks and of the VXLAN devices. The programs have no part in any of them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    sync::Mutex,
    time::Duration,
};

use mesh_proto::mesh::TrafficCounters;
use mesh_testbed::{
    Container, Daemon, DaemonOptions, Host, Links, NetNs, Signal, UdpFlow, UdpFlowOptions,
    set_offload, transfer, wait_until,
};
use netlink_packet_route::link::LinkAttribute;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

mod pair;
use pair::{Pair, counters};

/// `ETHTOOL_STSO` and `ETHTOOL_SGSO` of linux/ethtool.h.
const SEGMENTATION: [u32; 2] = [0x1f, 0x24];
const PORT: u16 = 7777;

/// Everything counted on one host, and for its container.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Side {
    /// Frames that the container's interface sent.
    sent: u64,
    /// IPv4 packets that were delivered in the container, without the ICMP of its gateway.
    received: u64,
    /// Packets that the VXLAN device sent.
    device_sent: u64,
    fast: TrafficCounters,
    kernel: TrafficCounters,
    drops: BTreeMap<String, u64>,
    passes: BTreeMap<String, u64>,
}

impl Side {
    async fn of(host: &Host, container: &Container) -> Self {
        let status = host.status().await.unwrap();
        let peer = counters(host).await;
        Self {
            sent: sent_by(container.netns(), "eth0").await,
            received: received_by(container.netns()),
            device_sent: sent_by(host.netns(), "vxlan100").await,
            fast: peer.fast_path.unwrap_or_default(),
            kernel: peer.kernel_path.unwrap_or_default(),
            drops: status.drops.into_iter().collect(),
            passes: status.passes.into_iter().collect(),
        }
    }

    fn dropped(&self) -> u64 {
        self.drops.values().sum()
    }

    /// What `encapsulate` left to the kernel. The other programs give other reasons, but for
    /// those that nothing here provokes on a packet from the underlay.
    fn left_to_the_kernel(&self) -> u64 {
        const OF_THE_OTHERS: [&str; 5] = [
            "not_vxlan",
            "other_vni",
            "outer_fragment",
            "no_endpoint",
            "outer_checksum",
        ];
        self.passes
            .iter()
            .filter(|(reason, _)| !OF_THE_OTHERS.contains(&reason.as_str()))
            .map(|(_, count)| count)
            .sum()
    }

    /// What the container may not send.
    fn dropped_at_the_port(&self) -> u64 {
        self.drops.get("spoofed_address").copied().unwrap_or(0)
    }

    fn passed(&self, reason: &str) -> u64 {
        self.passes.get(reason).copied().unwrap_or(0)
    }
}

/// Frames that an interface sent, as it counts itself.
async fn sent_by(netns: &NetNs, interface: &str) -> u64 {
    let links = Links::of(netns).unwrap();
    let link = links.get(interface).await.unwrap().unwrap();
    let stats = link.attributes.iter().find_map(|it| match it {
        LinkAttribute::Stats64(stats) => Some(stats.tx_packets),
        _ => None,
    });
    stats.unwrap()
}

/// IPv4 packets that the namespace's IP stack delivered, without ICMP.
fn received_by(netns: &NetNs) -> u64 {
    let snmp = netns
        .run(|| fs::read_to_string("/proc/thread-self/net/snmp").unwrap())
        .unwrap();
    let value = |protocol: &str, name: &str| -> u64 {
        let mut lines = snmp.lines().filter(|line| line.starts_with(protocol));
        let names = lines.next().unwrap().split_whitespace();
        let values = lines.next().unwrap().split_whitespace();
        let found = names.zip(values).find(|(it, _)| *it == name);
        found.unwrap().1.parse().unwrap()
    };
    // Delivered, with each fragment for itself: the host's own multicast on the bridge, which
    // nobody joined, is received as well and goes nowhere.
    let whole = value("Ip:", "ReasmOKs");
    value("Ip:", "InDelivers") + value("Ip:", "ReasmReqds") - whole - value("Icmp:", "InMsgs")
}

/// Both sides, once nothing moves any more.
async fn settled(pair: &Pair) -> [Side; 2] {
    let previous = Mutex::new(None);
    wait_until("both hosts to come to rest", pair::SOON, || async {
        let now = [
            Side::of(pair.host_a(), &pair.a).await,
            Side::of(pair.host_b(), &pair.b).await,
        ];
        let before = previous.lock().unwrap().replace(now.clone());
        match before.as_ref() == Some(&now) {
            true => Ok(now),
            false => Err(format!("{now:#?}")),
        }
    })
    .await
    .unwrap()
}

/// What differs between the two sides of each account, since `before`.
fn balance(before: &[Side; 2], after: &[Side; 2]) -> Vec<String> {
    let since = |side: usize, count: fn(&Side) -> u64| count(&after[side]) - count(&before[side]);
    let mut wrong = Vec::new();
    let mut equal = |account: &str, side: usize, left: u64, right: u64| {
        if left != right {
            wrong.push(format!("{account}, side {side}: {left} and not {right}"));
        }
    };
    for (here, there) in [(0, 1), (1, 0)] {
        equal(
            "sent by the container = encapsulated + left to the kernel + dropped at its port",
            here,
            since(here, |side| side.sent),
            since(here, |side| side.fast.tx_packets)
                + since(here, Side::left_to_the_kernel)
                + since(here, Side::dropped_at_the_port),
        );
        equal(
            "sent by the VXLAN device = counted as the kernel path's",
            here,
            since(here, |side| side.device_sent),
            since(here, |side| side.kernel.tx_packets),
        );
        equal(
            "sent on both paths = received on both paths + dropped by a guard",
            here,
            since(here, |side| side.fast.tx_packets) + since(here, |side| side.kernel.tx_packets),
            since(there, |side| side.fast.rx_packets)
                + since(there, |side| side.kernel.rx_packets)
                + (since(there, Side::dropped) - since(there, Side::dropped_at_the_port)),
        );
        equal(
            "received on both paths = received by the container",
            here,
            since(here, |side| side.fast.rx_packets) + since(here, |side| side.kernel.rx_packets),
            since(here, |side| side.received),
        );
    }
    wrong
}

fn udp_of(container: &Container) -> UdpSocket {
    container
        .netns()
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .unwrap()
        .unwrap()
}

/// Sets `IP_MTU_DISCOVER`.
fn discover_mtu(socket: &UdpSocket, how: libc::c_int) {
    // SAFETY: the option is an int, and its length is that of one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const how).cast(),
            size_of_val(&how) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Sends to the address as often as said. What the kernel refuses was not sent; the account is
/// of what the interface sent.
fn send(socket: &UdpSocket, times: usize, payload: usize, to: Ipv4Addr) {
    for _ in 0..times {
        let _ = socket.send_to(&vec![7; payload], (to, PORT));
    }
}

/// A packet with a source that is not the container's.
fn send_as(container: &Container, times: usize, source: Ipv4Addr, to: Ipv4Addr) {
    let socket = container
        .netns()
        .run(|| {
            Socket::new(
                Domain::IPV4,
                Type::RAW,
                Some(Protocol::from(libc::IPPROTO_RAW)),
            )
        })
        .unwrap()
        .unwrap();
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(to.octets());
    packet.extend([0x11, 0x5c, 0x1e, 0x61, 0, 8, 0, 0]);
    for _ in 0..times {
        socket
            .send_to(&packet, &SocketAddrV4::new(to, 0).into())
            .unwrap();
    }
}

/// Sends some of everything that a container can get wrong.
fn send_mixed(from: &Container, to: Ipv4Addr) {
    // Fits the interface, and not the overlay: with and without the don't-fragment bit.
    let oversize = udp_of(from);
    discover_mtu(&oversize, libc::IP_PMTUDISC_DONT);
    send(&oversize, 25, 1460, to);
    discover_mtu(&oversize, libc::IP_PMTUDISC_PROBE);
    send(&oversize, 5, 1460, to);
    // In fragments from the start.
    discover_mtu(&oversize, libc::IP_PMTUDISC_DONT);
    send(&oversize, 10, 4000, to);

    let last_hop = udp_of(from);
    setsockopt(&last_hop, sockopt::Ipv4Ttl, &1).unwrap();
    send(&last_hop, 20, 64, to);

    let astray = udp_of(from);
    send(&astray, 15, 64, Ipv4Addr::new(10, 42, 200, 9));
    send(&astray, 15, 64, Ipv4Addr::new(203, 0, 113, 9));
    send_as(from, 10, Ipv4Addr::new(10, 42, 9, 9), to);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_packet_of_a_mixed_load_is_accounted_for_across_a_kill_and_a_restart() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let sides = [(pair.host_a(), &pair.a), (pair.host_b(), &pair.b)];
    let mut listening = Vec::new();
    for (host, container) in sides {
        // Larger than the overlay's, on both ends of the pair.
        let links = Links::of(host.netns()).unwrap();
        links
            .set_mtu(container.host_interface(), 1500)
            .await
            .unwrap();
        let inside = Links::of(container.netns()).unwrap();
        inside.set_mtu("eth0", 1500).await.unwrap();
        // So that the interface counts packets as they are on the wire.
        for command in SEGMENTATION {
            set_offload(container.netns(), "eth0", command, false).unwrap();
        }
        // So that nobody answers with ICMP of its own over the overlay.
        let socket = container
            .netns()
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))
            .unwrap()
            .unwrap();
        listening.push(socket);
    }
    let before = settled(&pair).await;

    let options = UdpFlowOptions {
        rate: 4_000,
        ..UdpFlowOptions::default()
    };
    let flows = [(&pair.a, &pair.b), (&pair.b, &pair.a)]
        .map(|(from, to)| UdpFlow::start(from.netns(), to.netns(), to.address(), options).unwrap());
    for (host, container) in sides {
        send_mixed(&pair.a, pair.b.address());
        host.stop(Daemon::Runtime, Signal::SIGKILL, pair::SOON)
            .await
            .unwrap();
        send_mixed(&pair.b, pair.a.address());
        host.restart(Daemon::Runtime).unwrap();
        host.wait_serving(pair::SOON).await.unwrap();
        pair.wait_endpoint(host, container).await;
        send_mixed(&pair.a, pair.b.address());
    }
    let copied = transfer(
        pair.a.netns(),
        pair.b.netns(),
        pair.b.address(),
        3_000_000,
        Duration::from_secs(30),
    )
    .await
    .unwrap();
    assert!(copied.is_intact());
    let mut sent = 0;
    for flow in flows {
        let report = flow.stop().await.unwrap();
        assert_eq!(report.lost(), 0, "{report:?}");
        sent += report.sent;
    }

    let after = settled(&pair).await;
    assert_eq!(balance(&before, &after), [""; 0], "{before:#?}\n{after:#?}");
    // Each kind of traffic was there.
    let [a, b] = &after;
    let carried = a.fast.tx_packets + b.fast.tx_packets;
    assert!(carried > sent + 2_000, "{carried} with {sent} of the flows");
    for side in [a, b] {
        for reason in ["too_big", "ttl_expired", "not_peer"] {
            assert!(side.passed(reason) >= 20, "{reason}: {side:#?}");
        }
        assert!(side.dropped_at_the_port() >= 20, "{side:#?}");
    }
    assert!(a.kernel.tx_packets >= 50, "fragments by the kernel: {a:#?}");
}
