//! Packets byte by byte, as nobody's kernel would send them.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) type Mac = [u8; 6];

pub(crate) const BROADCAST: Mac = [0xff; 6];
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
pub(crate) const UDP: u8 = 17;
const TCP: u8 = 6;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const ARP_REQUEST: u16 = 1;
pub(crate) const ARP_REPLY: u16 = 2;

/// The network that a forged router advertisement offers.
pub(crate) const FORGED_PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0xbad, 0, 0, 0, 0);

pub(crate) fn ethernet(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to);
    frame.extend(from);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frame behind one more tag of VLAN 0, which means none.
pub(crate) fn tagged(frame: &[u8]) -> Vec<u8> {
    of_vlan(frame, 0)
}

/// The frame behind one more tag.
pub(crate) fn of_vlan(frame: &[u8], id: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend(VLAN.to_be_bytes());
    tagged.extend(id.to_be_bytes());
    tagged.extend(&frame[12..]);
    tagged
}

/// One of the addresses that bridges keep to themselves (IEEE 802.1Q, 8.6.3): a frame for it enters a
/// host by the port of a bridge, not by the bridge.
pub(crate) fn reserved_mac(last: u8) -> Mac {
    [0x01, 0x80, 0xc2, 0, 0, last]
}

/// The sum in ones' complement of RFC 1071.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    (!sum(bytes)).to_be_bytes()
}

pub(crate) fn ipv4(source: Ipv4Addr, target: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with_options(source, target, protocol, &[], payload)
}

/// `options` are whole words of four bytes.
pub(crate) fn ipv4_with_options(
    source: Ipv4Addr,
    target: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let length = u16::try_from(header + payload.len()).unwrap();
    let words = u8::try_from(header / 4).unwrap();
    let mut packet = vec![0x40 | words, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(options);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(payload);
    packet
}

/// Without a checksum, which IPv4 permits.
pub(crate) fn udp(source: u16, target: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(source.to_be_bytes());
    datagram.extend(target.to_be_bytes());
    datagram.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// A UDP datagram over IPv4.
pub(crate) fn udp_packet(
    source: (Ipv4Addr, u16),
    target: (Ipv4Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    ipv4(source.0, target.0, UDP, &udp(source.1, target.1, payload))
}

/// The same with two words of "no operation" in the IPv4 header.
pub(crate) fn udp_packet_with_options(
    source: (Ipv4Addr, u16),
    target: (Ipv4Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let datagram = udp(source.1, target.1, payload);
    ipv4_with_options(source.0, target.0, UDP, &[1; 8], &datagram)
}

/// The same IPv4 packet as a fragment, with the word of its flags and its offset.
pub(crate) fn fragment(mut packet: Vec<u8>, identification: u16, place: u16) -> Vec<u8> {
    packet[4..6].copy_from_slice(&identification.to_be_bytes());
    packet[6..8].copy_from_slice(&place.to_be_bytes());
    packet[10..12].fill(0);
    let header = usize::from(packet[0] & 0xf) * 4;
    let sum = checksum(&packet[..header]);
    packet[10..12].copy_from_slice(&sum);
    packet
}

/// The first packet of a TCP connection.
pub(crate) fn tcp_syn(source: (Ipv4Addr, u16), target: (Ipv4Addr, u16)) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source.1.to_be_bytes());
    segment.extend(target.1.to_be_bytes());
    segment.extend([0, 0, 0, 100, 0, 0, 0, 0, 0x50, 2, 0x10, 0, 0, 0, 0, 0]);
    let mut covered = [source.0.octets(), target.0.octets()].concat();
    covered.extend([0, TCP, 0, 20]);
    covered.extend(&segment);
    segment[16..18].copy_from_slice(&checksum(&covered));
    ipv4(source.0, target.0, TCP, &segment)
}

/// An ICMP message with its four bytes behind the checksum.
pub(crate) fn icmp(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(body);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

pub(crate) fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        packet.extend(mac);
        packet.extend(address.octets());
    }
    packet
}

/// Every way of saying unasked that `address` is at `sender`, to everybody and to one.
pub(crate) fn announcements(sender: Mac, address: Ipv4Addr, one: (Mac, Ipv4Addr)) -> Vec<Vec<u8>> {
    let own = (sender, address);
    let all = (BROADCAST, address);
    let nobody = ([0; 6], address);
    vec![
        ethernet(BROADCAST, sender, ARP, &arp(ARP_REQUEST, own, nobody)),
        ethernet(BROADCAST, sender, ARP, &arp(ARP_REPLY, own, all)),
        ethernet(one.0, sender, ARP, &arp(ARP_REPLY, own, one)),
        ethernet(one.0, sender, ARP, &arp(ARP_REQUEST, own, ([0; 6], one.1))),
    ]
}

/// An IPv6 packet whose hop limit says that no router forwarded it.
pub(crate) fn ipv6(source: Ipv6Addr, target: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 255]);
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet.extend(payload);
    packet
}

/// An ICMPv6 message, or a UDP datagram, with the checksum at `at`.
fn summed(source: Ipv6Addr, target: Ipv6Addr, next: u8, at: usize, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let mut covered = Vec::new();
    covered.extend(source.octets());
    covered.extend(target.octets());
    covered.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    covered.extend([0, 0, 0, next]);
    covered.extend(&message);
    message[at..at + 2].copy_from_slice(&checksum(&covered));
    message
}

/// An ICMPv6 message with its checksum.
pub(crate) fn icmpv6(source: Ipv6Addr, target: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    summed(source, target, ICMPV6, 2, message)
}

/// A UDP datagram over IPv6.
pub(crate) fn udp_packet_v6(
    source: (Ipv6Addr, u16),
    target: (Ipv6Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let datagram = udp(source.1, target.1, payload);
    let datagram = summed(source.0, target.0, UDP, 6, &datagram);
    ipv6(source.0, target.0, UDP, &datagram)
}

/// The link-local address that an interface gives itself.
pub(crate) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let [a, b, c] = [a ^ 2, b, c].map(u16::from);
    let [d, e, f] = [d, e, f].map(u16::from);
    let words = [a << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f];
    Ipv6Addr::new(0xfe80, 0, 0, 0, words[0], words[1], words[2], words[3])
}

/// A router advertisement (RFC 4861, 4.2) of half an hour, with a prefix to make addresses of.
pub(crate) fn router_advert() -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(1800_u16.to_be_bytes());
    message.extend([0; 8]);
    // Prefix information: /64, on link and autonomous.
    message.extend([3, 4, 64, 0xc0]);
    message.extend(3600_u32.to_be_bytes());
    message.extend(3600_u32.to_be_bytes());
    message.extend([0; 4]);
    message.extend(FORGED_PREFIX.octets());
    message
}
