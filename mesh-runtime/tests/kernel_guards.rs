//! Each guard of the eBPF programs against real packets, forged by a stranger on the underlay
//! or by a peer that oversteps its subnet. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

use mesh_proto::mesh::Peer;
use mesh_testbed::{DaemonOptions, Host, Links, NetNs};
use nix::sys::socket::{setsockopt, sockopt};

mod pair;
use pair::{Forged, Pair, counters, wait_counted};

const VXLAN: u16 = mesh_layout::VXLAN_PORT;
const PORT: u16 = 7777;

/// A socket of the container that waits for forged packets.
fn listen(container: &NetNs) -> UdpSocket {
    let socket = container
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))
        .unwrap()
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    socket
}

/// Sets `IP_MTU_DISCOVER`, which decides whether a socket's packets may be fragmented.
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

/// Sends a VXLAN packet from one host to another.
fn send(from: &Host, to: &Host, packet: &[u8]) {
    send_to(from, to.address(), packet);
}

/// Sends a VXLAN packet from a host to an address.
fn send_to(from: &Host, to: Ipv4Addr, packet: &[u8]) {
    let socket = from
        .netns()
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .unwrap()
        .unwrap();
    // IP_PMTUDISC_DONT: the kernel may fragment what is larger than the underlay's MTU.
    discover_mtu(&socket, libc::IP_PMTUDISC_DONT);
    socket
        .send_to(packet, SocketAddrV4::new(to, VXLAN))
        .unwrap();
}

fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_packets_are_dropped_with_their_reason_and_never_reach_the_container() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let (target, peer) = (pair.host_a(), pair.host_b());
    let (source, container) = (pair.b.address(), pair.a.address());
    let outside = Ipv4Addr::new(10, 42, 9, 9);
    let socket = listen(pair.a.netns());
    let proper = || Forged::proper(source, container, PORT, b"forged");

    send(pair.stranger(), target, &proper().bytes());
    wait_counted(target, "unknown_vtep", 1).await;

    let foreign_source = Forged {
        source: outside,
        ..proper()
    };
    send(peer, target, &foreign_source.bytes());
    wait_counted(target, "foreign_source", 1).await;

    let foreign_target = Forged {
        target: outside,
        ..proper()
    };
    send(peer, target, &foreign_target.bytes());
    wait_counted(target, "foreign_target", 1).await;

    send(
        peer,
        target,
        &Forged {
            flags: 0,
            ..proper()
        }
        .bytes(),
    );
    wait_counted(target, "malformed", 1).await;
    send(peer, target, &proper().bytes()[..30]);
    wait_counted(target, "malformed", 2).await;
    send(peer, target, &proper().bytes()[..4]);
    wait_counted(target, "malformed", 3).await;

    let arp = Forged {
        ethertype: 0x0806,
        ..proper()
    };
    send(peer, target, &arp.bytes());
    wait_counted(target, "not_ipv4", 1).await;

    // Another VNI is another overlay's business: the kernel, which has no such device, drops it.
    send(
        peer,
        target,
        &Forged {
            vni: 101,
            ..proper()
        }
        .bytes(),
    );
    let status = wait_counted(target, "other_vni", 1).await;
    assert_eq!(status.drops["unknown_vtep"], 1);
    assert_eq!(status.drops["foreign_source"], 1);

    // What was dropped did not arrive: the first to arrive is the one that may.
    let genuine = Forged::proper(source, container, PORT, b"genuine");
    send(peer, target, &genuine.bytes());
    assert_eq!(receive(&socket), b"genuine");
    // Two drops are this peer's fault by the addresses alone, and it is charged for them.
    assert_eq!(counters(target).await.dropped_packets, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn outer_fragments_of_a_peer_arrive_by_the_safety_net_and_those_of_a_stranger_do_not() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let (target, peer) = (pair.host_a(), pair.host_b());
    let socket = listen(pair.a.netns());
    let large = |byte| {
        let payload = vec![byte; 2000];
        Forged::proper(pair.b.address(), pair.a.address(), PORT, &payload).bytes()
    };

    send(pair.stranger(), target, &large(b's'));
    wait_counted(target, "unknown_vtep", 1).await;
    let before = counters(target).await.kernel_path.unwrap_or_default();
    send(peer, target, &large(b'p'));
    assert_eq!(receive(&socket), vec![b'p'; 2000]);
    let after = counters(target).await.kernel_path.unwrap_or_default();
    assert_eq!(after.rx_packets, before.rx_packets + 1);
    let status = wait_counted(target, "outer_fragment", 2).await;
    assert_eq!(status.drops.get("unknown_vtep"), Some(&1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_come_in_over_a_second_interface_of_the_host() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let (target, stranger) = (pair.host_a(), pair.stranger());
    let second = Ipv4Addr::new(203, 0, 113, 1);
    ip(target, "link add eth1 type veth peer name eth1-far");
    let far = stranger.netns().path().display().to_string();
    ip(target, &format!("link set eth1-far netns {far}"));
    ip(target, &format!("address add {second}/24 dev eth1"));
    ip(target, "link set eth1 up");
    ip(stranger, "address add 203.0.113.2/24 dev eth1-far");
    ip(stranger, "link set eth1-far up");
    mesh_testbed::wait_until("the guard of the interface", pair::SOON, || async {
        let status = target.status().await.map_err(|error| error.to_string())?;
        let attached = status.fast_path.unwrap_or_default().attachments;
        match attached.contains(&"eth1: decapsulate".to_owned()) {
            true => Ok(()),
            false => Err(format!("{attached:?}")),
        }
    })
    .await
    .unwrap();
    let packet = Forged::proper(pair.b.address(), pair.a.address(), PORT, b"forged");
    send_to(stranger, second, &packet.bytes());
    wait_counted(target, "unknown_vtep", 1).await;
}

/// Runs `ip` on a host.
fn ip(host: &Host, words: &str) {
    let mut command = host.netns().command("ip");
    let status = command.args(words.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksummed_outer_packet_is_left_to_the_kernel_which_verifies_it() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let socket = listen(pair.a.netns());
    // A UDP socket fills in the outer checksum.
    let packet = Forged::proper(pair.b.address(), pair.a.address(), PORT, b"summed");
    send(pair.host_b(), pair.host_a(), &packet.bytes());
    assert_eq!(receive(&socket), b"summed");
    wait_counted(pair.host_a(), "outer_checksum", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_packet_is_answered_by_the_kernel_on_either_side() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;

    let last_hop = Forged {
        ttl: 1,
        ..Forged::proper(pair.b.address(), pair.a.address(), PORT, b"late")
    };
    // Over a raw socket, which leaves the outer checksum out: the fast path's own verdict.
    send_raw(pair.host_b(), pair.host_a(), &last_hop.bytes());
    wait_counted(pair.host_a(), "ttl_expired", 1).await;

    let sender = pair
        .a
        .netns()
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .unwrap()
        .unwrap();
    setsockopt(&sender, sockopt::Ipv4RecvErr, &true).unwrap();
    setsockopt(&sender, sockopt::Ipv4Ttl, &1).unwrap();
    sender.send_to(b"x", (pair.b.address(), PORT)).unwrap();
    sender
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    // ICMP time exceeded from the gateway surfaces as an error on the socket.
    let error = sender.recv(&mut [0; 64]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH), "{error}");
    wait_counted(pair.host_a(), "ttl_expired", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_too_large_an_mtu_is_told_and_not_swallowed() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    // Both ends of the pair: a veth drops what is larger than the MTU of the end it goes to.
    let host = Links::of(pair.host_a().netns()).unwrap();
    host.set_mtu(pair.a.host_interface(), 1500).await.unwrap();
    let container = Links::of(pair.a.netns()).unwrap();
    container.set_mtu("eth0", 1500).await.unwrap();
    let socket = listen(pair.b.netns());
    let sender = pair
        .a
        .netns()
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .unwrap()
        .unwrap();
    let target = SocketAddrV4::new(pair.b.address(), PORT);
    let payload = [7; 1460];

    // With the don't-fragment bit the gateway answers, and the next send is refused.
    discover_mtu(&sender, libc::IP_PMTUDISC_DO);
    sender.send_to(&payload, target).unwrap();
    wait_counted(pair.host_a(), "too_big", 1).await;
    let refused = mesh_testbed::wait_until("fragmentation needed", pair::SOON, || async {
        match sender.send_to(&payload, target) {
            Err(refused) => Ok(refused),
            Ok(_) => Err("the send was taken"),
        }
    })
    .await
    .unwrap();
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));

    // Without it the packet arrives in fragments.
    discover_mtu(&sender, libc::IP_PMTUDISC_DONT);
    sender.send_to(&payload, target).unwrap();
    assert_eq!(receive(&socket), payload);
}

/// A peer says that it takes no more: whoever sends it more is told, and what may be cut arrives.
async fn a_peer_that_takes_less(pair: &Pair) {
    takes_no_more_than(pair, 1300).await;
}

/// A peer whose card takes so little that the overlay has less than everybody counts on: what is sent all the same
/// vanishes at that card.
async fn a_peer_with_a_narrow_card(pair: &Pair) {
    const LESS: usize = 1180;
    let card = LESS + mesh_layout::ENCAPSULATION_LEN;
    let mut command = pair.host_b().netns().command("ip");
    let words = format!("link set eth0 mtu {card}");
    assert!(command.args(words.split(' ')).status().unwrap().success());
    takes_no_more_than(pair, LESS).await;
    mesh_testbed::wait_until("the problem that names it", pair::SOON, || async {
        let problems = pair.host_a().status().await.unwrap().problems();
        let names = |problem: &String| problem.contains("an MTU of 1330 or more");
        match problems.iter().any(names) {
            true => Ok(()),
            false => Err(format!("{problems:?}")),
        }
    })
    .await
    .unwrap();
}

async fn takes_no_more_than(pair: &Pair, most: usize) {
    let peer = Peer {
        mtu: u32::try_from(most).unwrap(),
        ..pair::peer_of(pair.host_b(), "10.42.2.0/24")
    };
    let answer = pair::sync_peers(pair.host_a(), 9, vec![peer]).await;
    assert!(answer.success && answer.rejected.is_empty(), "{answer:?}");
    let socket = listen(pair.b.netns());
    let sender = pair
        .a
        .netns()
        .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .unwrap()
        .unwrap();
    let target = SocketAddrV4::new(pair.b.address(), PORT);

    discover_mtu(&sender, libc::IP_PMTUDISC_DO);
    // IPv4 and UDP headers take 28, and a card of this kind takes four more than its MTU, for a tag.
    let (largest, more) = (vec![7; most - 28], vec![7; most - 28 + 5]);
    sender.send_to(&largest, target).unwrap();
    assert_eq!(receive(&socket), largest);
    let refused = mesh_testbed::wait_until("fragmentation needed", pair::SOON, || async {
        match sender.send_to(&more, target) {
            Err(refused) => Ok(refused),
            Ok(_) => Err("the send was taken"),
        }
    })
    .await
    .unwrap();
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
    sender.send_to(&largest, target).unwrap();
    assert_eq!(receive(&socket), largest);
    discover_mtu(&sender, libc::IP_PMTUDISC_DONT);
    sender.send_to(&more, target).unwrap();
    assert_eq!(receive(&socket), more);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_told_what_a_peer_takes_on_the_fast_path() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    a_peer_that_takes_less(&pair).await;
    wait_counted(pair.host_a(), "too_big", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_told_what_a_peer_takes_on_the_kernel_path() {
    let pair = Pair::start(&DaemonOptions::new().args(["--fast-path", "off"])).await;
    a_peer_that_takes_less(&pair).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_vanishes_at_a_peers_narrow_card_on_the_fast_path() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    a_peer_with_a_narrow_card(&pair).await;
    wait_counted(pair.host_a(), "too_big", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_vanishes_at_a_peers_narrow_card_on_the_kernel_path() {
    let pair = Pair::start(&DaemonOptions::new().args(["--fast-path", "off"])).await;
    a_peer_with_a_narrow_card(&pair).await;
}

/// Sends a VXLAN packet over a raw socket, without an outer UDP checksum.
fn send_raw(from: &Host, to: &Host, packet: &[u8]) {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = from
        .netns()
        .run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)))
        .unwrap()
        .unwrap();
    let mut datagram = Vec::new();
    datagram.extend(50_000_u16.to_be_bytes());
    datagram.extend(VXLAN.to_be_bytes());
    datagram.extend(u16::try_from(8 + packet.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(packet);
    let target = SocketAddrV4::new(to.address(), 0);
    socket.send_to(&datagram, &target.into()).unwrap();
}
