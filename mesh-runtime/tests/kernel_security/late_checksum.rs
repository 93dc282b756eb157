//! A container that leaves its checksum to others, and says where: over what the guards have read. The
//! kernel writes it before it cuts a packet into fragments, and makes the header right around it.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

use mesh_testbed::set_offload;

use crate::{
    frames::{self, IPV4, UDP, sum},
    inside::{ip, mac},
    packet_socket::{PacketSocket, unfinished},
    pair::Forged,
    scene::{HOST_MODES, MODES, Mode, Plan, Scene, guarded, in_modes},
    vxlan::{VXLAN, masquerade},
    witness::{FORGED, Listener, PORT, sees, sees_no},
};

/// Where the addresses are in an IPv4 header, and the ports behind one without options.
const SOURCE_AT: u16 = 26;
const TARGET_PORT_AT: u16 = 36;

/// Each packet that is sent in fragments has its own identification.
static IDENTIFICATION: AtomicU16 = AtomicU16::new(1);

/// The number that makes the sum in ones' complement of `present` and itself `wanted`, with which
/// the kernel's checksum becomes what it is to become.
fn missing(present: u16, wanted: u16) -> u16 {
    let (present, wanted) = (u32::from(present), u32::from(!wanted));
    u16::try_from((wanted + 0xffff - present) % 0xffff).unwrap()
}

fn words(parts: &[u16]) -> Vec<u8> {
    parts.iter().flat_map(|part| part.to_be_bytes()).collect()
}

/// What an IPv4 packet carries, in two fragments that both leave a checksum: the first from `start` on,
/// to be written `offset` behind that; the second wherever it does no harm.
fn in_two(
    macs: [frames::Mac; 2],
    addresses: [Ipv4Addr; 2],
    options: &[u8],
    body: &[u8],
    place: (u16, u16),
) -> [Vec<u8>; 2] {
    const FIRST: usize = 1400;
    const MORE: u16 = 0x2000;
    let identification = IDENTIFICATION.fetch_add(1, Ordering::Relaxed);
    let part = |body: &[u8], flags| {
        let packet = frames::ipv4_with_options(addresses[0], addresses[1], UDP, options, body);
        let packet = frames::fragment(packet, identification, flags);
        frames::ethernet(macs[1], macs[0], IPV4, &packet)
    };
    let header = u16::try_from(14 + 20 + options.len()).unwrap();
    [
        unfinished(&part(&body[..FIRST], MORE), place.0, place.1),
        unfinished(&part(&body[FIRST..], (FIRST / 8) as u16), header, 0),
    ]
}

/// A datagram whose checksum, from the IPv4 source on, is the lower half of another source.
fn for_source(
    own: Ipv4Addr,
    target: Ipv4Addr,
    options: &[u8],
    source: Ipv4Addr,
    length: usize,
) -> Vec<u8> {
    let mut payload = FORGED.repeat(length / FORGED.len());
    payload.resize(length, b'.');
    let mut body = frames::udp(5555, PORT, &payload);
    let last = body.len() - 2;
    body[last..].fill(0);
    let covered = [&own.octets()[..], &target.octets(), options, &body].concat();
    let [_, _, c, d] = source.octets();
    let fill = missing(sum(&covered), u16::from_be_bytes([c, d]));
    body[last..].copy_from_slice(&fill.to_be_bytes());
    body
}

/// Speaks in fragments as a sibling and as the gateway, to another node and to a sibling.
fn deceives_nobody_in_fragments(scene: &Scene) {
    let (attacker, own) = (scene.attacker.netns(), scene.attacker.address());
    let own_mac = mac(attacker, "eth0");
    let socket = PacketSocket::open_for_unfinished(attacker, "eth0");
    let other_mac = mac(scene.other.netns(), "eth0");
    for (target, netns, next_hop) in [
        (
            scene.far().address(),
            scene.far().netns(),
            scene.gateway_mac(),
        ),
        (scene.other.address(), scene.other.netns(), other_mac),
    ] {
        let listener = Listener::on(netns);
        for source in [scene.sibling().address(), scene.gateway()] {
            for options in [&[1; 4][..], &[]] {
                let body = for_source(own, target, options, source, 1592);
                let macs = [own_mac, next_hop];
                let frames = in_two(macs, [own, target], options, &body, (SOURCE_AT, 2));
                socket.send(attacker, &frames);
            }
        }
        sees_no(FORGED, &listener, Scene::marker(attacker, target));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_over_the_source_of_fragments_makes_nobody_else_of_a_container() {
    in_modes(MODES, Plan::default(), async |scene| {
        deceives_nobody_in_fragments(scene);
    })
    .await;
}

/// What somebody has made at its port, as the CNI plugin `bandwidth` does, takes its packets before our filter sees
/// them, and hands them to the bridge by another way.
#[tokio::test(flavor = "multi_thread")]
async fn nor_of_one_that_somebody_polices() {
    in_modes(&[Mode::New], Plan::default(), async |scene| {
        let host = scene.home().netns();
        let port = scene.attacker.host_interface();
        ip(host, "link add bwp0 up type ifb");
        for words in [
            format!("qdisc add dev {port} handle ffff: ingress"),
            format!(
                "filter add dev {port} parent ffff: protocol all prio 1 u32 match u32 0 0 \
                 action mirred egress redirect dev bwp0"
            ),
        ] {
            let mut command = host.command("tc");
            let output = command.args(words.split_whitespace()).output().unwrap();
            assert!(output.status.success(), "tc {words}: {output:?}");
        }
        guarded(scene.home(), &scene.attacker).await;
        deceives_nobody_in_fragments(scene);
    })
    .await;
}

/// The kernel cuts up itself what is too long for the overlay.
#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_over_the_source_of_a_long_packet_makes_nobody_else_of_a_container() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, own) = (scene.attacker.netns(), scene.attacker.address());
        let port = scene.attacker.host_interface();
        ip(scene.home().netns(), &format!("link set {port} mtu 1500"));
        ip(attacker, "link set eth0 mtu 1500");
        let socket = PacketSocket::open_for_unfinished(attacker, "eth0");
        let target = scene.far().address();
        let listener = Listener::on(scene.far().netns());
        for source in [scene.sibling().address(), scene.gateway()] {
            let body = for_source(own, target, &[], source, 1452);
            let packet = frames::ipv4(own, target, UDP, &body);
            let frame = frames::ethernet(scene.gateway_mac(), mac(attacker, "eth0"), IPV4, &packet);
            socket.send(attacker, &[unfinished(&frame, SOURCE_AT, 2)]);
        }
        sees_no(FORGED, &listener, Scene::marker(attacker, target));
    })
    .await;
}

/// Also for a sibling, by way of the gateway and without: what is four bytes too long passes an interface, for
/// there is room for a tag. Only a program at the port can tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_over_the_source_of_a_packet_a_little_too_long_deceives_no_sibling() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let (attacker, own) = (scene.attacker.netns(), scene.attacker.address());
        ip(attacker, "link set eth0 mtu 1500");
        let socket = PacketSocket::open_for_unfinished(attacker, "eth0");
        let other = scene.other.netns();
        let target = scene.other.address();
        let listener = Listener::on(other);
        for next_hop in [scene.gateway_mac(), mac(other, "eth0")] {
            for source in [
                scene.sibling().address(),
                scene.gateway(),
                scene.far().address(),
            ] {
                let body = for_source(own, target, &[], source, 1426);
                let packet = frames::ipv4(own, target, UDP, &body);
                let frame = frames::ethernet(next_hop, mac(attacker, "eth0"), IPV4, &packet);
                socket.send(attacker, &[unfinished(&frame, SOURCE_AT, 2)]);
            }
        }
        sees_no(FORGED, &listener, Scene::marker(attacker, target));
    })
    .await;
}

/// ARP has no checksum, and a port may be one that has the kernel write those of others. Only a program at the
/// sender's port can tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_over_the_sender_of_arp_claims_nothing() {
    /// `ETHTOOL_STXCSUM` of linux/ethtool.h.
    const TRANSMIT_CHECKSUMS: u32 = 0x17;
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let (attacker, other) = (scene.attacker.netns(), &scene.other);
        let port = other.host_interface();
        set_offload(scene.home().netns(), port, TRANSMIT_CHECKSUMS, false).unwrap();
        let own = (mac(attacker, "eth0"), scene.attacker.address());
        let victim = (mac(other.netns(), "eth0"), other.address());
        let mut message = frames::arp(frames::ARP_REPLY, own, victim);
        message.extend([0; 18]);
        // From the sender's address on, over its lower half.
        let [.., c, d] = scene.gateway().octets();
        let fill = missing(sum(&message[14..]), u16::from_be_bytes([c, d]));
        message[30..32].copy_from_slice(&fill.to_be_bytes());
        let frame = frames::ethernet(victim.0, own.0, frames::ARP, &message);
        let sniffer = PacketSocket::open(other.netns(), "eth0");
        let socket = PacketSocket::open_for_unfinished(attacker, "eth0");
        socket.send(attacker, &[unfinished(&frame, 28, 2)]);
        let forged = [&own.0[..], &scene.gateway().octets()].concat();
        sees_no(&forged, &sniffer, Scene::marker(attacker, other.address()));
    })
    .await;
}

/// What becomes a router advertisement when the sum of all from the IPv6 source on is written over its type.
#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_over_the_type_of_icmpv6_makes_no_router_of_a_container() {
    const IPV6_SOURCE_AT: u16 = 22;
    const ADVERTISEMENT: u16 = 134 << 8;
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let (attacker, other) = (scene.attacker.netns(), &scene.other);
        let own = mac(attacker, "eth0");
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let mut message = frames::router_advert();
        // The pseudo header's own part, so that the checksum will be right.
        let length = u16::try_from(message.len()).unwrap();
        let pseudo = length + u16::from(frames::ICMPV6);
        message[..2].copy_from_slice(&pseudo.to_be_bytes());
        let source = frames::link_local(own);
        let mut packet = frames::ipv6(source, all_nodes, frames::ICMPV6, &message);
        let fill = missing(sum(&packet[8..]), ADVERTISEMENT);
        packet[42..44].copy_from_slice(&fill.to_be_bytes());
        let group = [0x33, 0x33, 0, 0, 0, 1];
        let frame = frames::ethernet(group, own, frames::IPV6, &packet);
        let sniffer = PacketSocket::open(other.netns(), "eth0");
        let socket = PacketSocket::open_for_unfinished(attacker, "eth0");
        socket.send(attacker, &[unfinished(&frame, IPV6_SOURCE_AT, 32)]);
        let forged = frames::FORGED_PREFIX.octets();
        sees_no(&forged, &sniffer, Scene::marker(attacker, other.address()));
    })
    .await;
}

/// A datagram to a peer that, under the host's address, becomes VXLAN when the sum of all from its
/// target port on is written there.
fn for_vxlan(scene: &Scene, inner: &[u8], length: u16) -> Vec<u8> {
    const SOURCE_PORT: u16 = 30_000;
    /// Anything but zero, which would mean that there is no checksum.
    const CHECKSUM: u16 = 0x1111;
    let own = sum(&scene.attacker.address().octets());
    let host = sum(&scene.home().address().octets());
    let peer = sum(&scene.away().address().octets());
    // The datagram's own checksum will be right then.
    let port = sum(&words(&[host, peer, UDP.into(), length, SOURCE_PORT]));
    let mut payload = inner.to_vec();
    payload.resize(usize::from(length) - 10, 0);
    let of_payload = sum(&payload);
    // Translating the source changes the checksum's field.
    let present = sum(&words(&[port, length, CHECKSUM, host, !own, of_payload]));
    let mut body = words(&[SOURCE_PORT, port, length, CHECKSUM]);
    body.extend(payload);
    body.extend(missing(present, VXLAN).to_be_bytes());
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_over_the_port_of_fragments_makes_no_vxlan_of_them() {
    in_modes(MODES, Plan::default(), async |scene| {
        masquerade(scene.home());
        let (attacker, far) = (scene.attacker.netns(), scene.far());
        let inner = Forged::proper(scene.sibling().address(), far.address(), PORT, FORGED);
        let body = for_vxlan(scene, &inner.bytes(), 1600);
        let macs = [mac(attacker, "eth0"), scene.gateway_mac()];
        let addresses = [scene.attacker.address(), scene.away().address()];
        let frames = in_two(macs, addresses, &[], &body, (TARGET_PORT_AT, 0));
        let listener = Listener::on(far.netns());
        let socket = PacketSocket::open_for_unfinished(attacker, "eth0");
        socket.send(attacker, &frames);
        sees_no(FORGED, &listener, Scene::marker(attacker, far.address()));
    })
    .await;
}

/// An engine that is told nothing gives containers the MTU of its cards. Of the fragments of what they send some
/// fit the overlay, and some do not.
#[tokio::test(flavor = "multi_thread")]
async fn long_datagrams_of_a_container_with_a_larger_mtu_than_the_overlays_arrive() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, far) = (scene.attacker.netns(), scene.far());
        let port = scene.attacker.host_interface();
        ip(scene.home().netns(), &format!("link set {port} mtu 1500"));
        ip(attacker, "link set eth0 mtu 1500");
        let listener = Listener::on(far.netns());
        for length in [3000, 9000] {
            let long = vec![b'l'; length];
            sees(&long, &listener, |payload| {
                let socket = attacker
                    .run(|| UdpSocket::bind("0.0.0.0:0"))
                    .unwrap()
                    .unwrap();
                // Those that do not fit tell the path's MTU, and are sent anew by who sent them.
                let _ = socket.send_to(payload, SocketAddrV4::new(far.address(), PORT));
            });
        }
    })
    .await;
}

/// What honest containers send in fragments, and leave to the card.
#[tokio::test(flavor = "multi_thread")]
async fn long_datagrams_and_checksums_in_their_place_arrive_everywhere() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, far) = (scene.attacker.netns(), scene.far());
        let other = &scene.other;
        for (netns, target) in [
            (far.netns(), far.address()),
            (other.netns(), other.address()),
            (scene.home().netns(), scene.gateway()),
        ] {
            let listener = Listener::on(netns);
            let long = b"honest ".repeat(600);
            // From a port without a program, a sibling takes no fragments.
            let to_sibling = netns.name() == other.netns().name();
            let long: &[u8] =
                match to_sibling && [Mode::MadeWhileDead, Mode::New].contains(&scene.mode) {
                    true => b"short",
                    false => &long,
                };
            sees(long, &listener, |payload| {
                let socket = attacker
                    .run(|| UdpSocket::bind("0.0.0.0:0"))
                    .unwrap()
                    .unwrap();
                socket
                    .send_to(payload, SocketAddrV4::new(target, PORT))
                    .unwrap();
            });
            // As a raw socket leaves it, with a sum over the pseudo header in the field.
            let own = (scene.attacker.address(), 4444);
            let next_hop = match to_sibling {
                true => mac(netns, "eth0"),
                false => scene.gateway_mac(),
            };
            let mut packet = frames::udp_packet(own, (target, PORT), b"left to the card");
            let length = u16::try_from(packet.len() - 20).unwrap();
            let addresses = [own.0.octets(), target.octets()].concat();
            let pseudo = sum(&words(&[sum(&addresses), UDP.into(), length]));
            packet[26..28].copy_from_slice(&pseudo.to_be_bytes());
            let frame = frames::ethernet(next_hop, mac(attacker, "eth0"), IPV4, &packet);
            let socket = PacketSocket::open_for_unfinished(attacker, "eth0");
            sees(b"left to the card", &listener, |_| {
                socket.send(attacker, &[unfinished(&frame, 34, 6)]);
            });
        }
    })
    .await;
}
