//! Changes to a packet: blind ones anywhere, and such as an attacker or a broken sender makes.

use mesh_layout::{ETHERNET_LEN, IPV4_LEN, UDP_LEN, VXLAN_LEN};

use super::{Random, nodes::any_address};
use crate::Node;

const OUTER_IP: usize = ETHERNET_LEN;
const UDP: usize = OUTER_IP + IPV4_LEN;
const VXLAN: usize = UDP + UDP_LEN;
const INNER_ETHERNET: usize = VXLAN + VXLAN_LEN;
const INNER_IP: usize = INNER_ETHERNET + ETHERNET_LEN;

/// Where headers begin and end.
const BOUNDARIES: [usize; 8] = [
    ETHERNET_LEN,
    UDP,
    VXLAN,
    INNER_ETHERNET,
    INNER_IP,
    INNER_IP + IPV4_LEN,
    INNER_IP + IPV4_LEN + UDP_LEN,
    60,
];

/// Changes one thing about the packet.
pub(super) fn mutate(random: &mut Random, node: &Node, packet: &mut Vec<u8>) {
    match random.below(16) {
        0 => flip_bit(random, packet),
        1 => {
            let byte = random.next() as u8;
            let at = random.below(packet.len().clamp(1, 100));
            put(packet, at, &[byte]);
        }
        2 => truncate(random, packet),
        3 => lengthen(random, packet),
        4 => insert_options(random, packet),
        5 => change_ethernet(random, node, packet),
        6 => change_udp(random, node, packet),
        7 => change_vxlan(random, node, packet),
        8 => {
            // Two fields that belong together, from two places.
            change_ip(random, node, packet);
            change_udp(random, node, packet);
        }
        _ => change_ip(random, node, packet),
    }
}

/// Writes as much of `bytes` as the packet has room for.
fn put(packet: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in packet.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

fn flip_bit(random: &mut Random, packet: &mut [u8]) {
    let at = random.below(packet.len().clamp(1, 100));
    let bit = 1 << random.below(8);
    if let Some(byte) = packet.get_mut(at) {
        *byte ^= bit;
    }
}

fn truncate(random: &mut Random, packet: &mut Vec<u8>) {
    let length = match random.chance(60) {
        true => (random.pick(&BOUNDARIES) + random.below(3)).saturating_sub(1),
        false => random.below(packet.len() + 1),
    };
    packet.truncate(length);
}

fn lengthen(random: &mut Random, packet: &mut Vec<u8>) {
    let more = match random.chance(80) {
        true => random.below(64),
        false => random.below(1500),
    };
    let length = packet.len();
    packet.resize(length + more, 0);
    random.fill(&mut packet[length..]);
}

/// Offset of one of the IPv4 headers: the first, or the one inside VXLAN.
fn ip_offset(random: &mut Random, packet: &[u8]) -> usize {
    match packet.len() >= INNER_IP + IPV4_LEN && random.chance(50) {
        true => INNER_IP,
        false => OUTER_IP,
    }
}

fn insert_options(random: &mut Random, packet: &mut Vec<u8>) {
    let ip = ip_offset(random, packet);
    if packet.len() < ip + IPV4_LEN {
        return;
    }
    let words = 1 + random.below(10);
    // No-operations, the harmless option.
    packet.splice(
        ip + IPV4_LEN..ip + IPV4_LEN,
        std::iter::repeat_n(1, words * 4),
    );
    packet[ip] = 0x45 + words as u8;
}

fn change_ethernet(random: &mut Random, node: &Node, packet: &mut [u8]) {
    let start = random.pick(&[0, 0, INNER_ETHERNET]);
    match random.below(6) {
        4 => put(packet, start + 6, &node.config.bridge_mac),
        5 => {
            let known: Vec<_> = node.macs.keys().map(|key| key.mac).collect();
            if !known.is_empty() {
                put(packet, start + 6, &random.pick(&known));
            }
        }
        0 => put(packet, start, &node.config.bridge_mac),
        1 => put(packet, start, &[0xff; 6]),
        2 => put(packet, start + 6, &random.bytes::<6>()),
        _ => {
            // IPv6, ARP, VLAN, IPv4, nonsense.
            let choices = [0x86dd_u16, 0x0806, 0x8100, 0x0800, 0x1234];
            put(packet, start + 12, &random.pick(&choices).to_be_bytes());
        }
    }
}

fn change_ip(random: &mut Random, node: &Node, packet: &mut [u8]) {
    let ip = ip_offset(random, packet);
    match random.below(9) {
        0 => {
            let byte = random.pick(&[0x45, 0x46, 0x4f, 0x44, 0x40, 0x65, 0x05, 0xff]);
            put(packet, ip, &[byte]);
        }
        1 => put(packet, ip + 1, &random.bytes::<1>()),
        2 => {
            let length = random.pick(&[0_u16, 19, 20, 28, 100, 65_535]);
            put(packet, ip + 2, &length.to_be_bytes());
        }
        3 => {
            let fragment = match random.chance(70) {
                true => random.pick(&[0x2000_u16, 0x0001, 0x2001, 0x4000, 0x8000, 0x6000]),
                false => random.next() as u16,
            };
            put(packet, ip + 6, &fragment.to_be_bytes());
        }
        4 => {
            let ttl = random.pick(&[0, 1, 2, 255]);
            put(packet, ip + 8, &[ttl]);
        }
        5 => {
            let protocol = random.pick(&[17, 6, 1, 50, 4, 0, 255]);
            put(packet, ip + 9, &[protocol]);
        }
        6 => put(packet, ip + 10, &random.bytes::<2>()),
        7 => {
            let address = any_address(random, node);
            put(packet, ip + 12, &address.octets());
        }
        _ => {
            let address = any_address(random, node);
            put(packet, ip + 16, &address.octets());
        }
    }
}

fn change_udp(random: &mut Random, node: &Node, packet: &mut [u8]) {
    match random.below(4) {
        0 => put(packet, UDP, &random.bytes::<2>()),
        1 => {
            let port = random.pick(&[node.config.port as u16, 4789, 8472, 53, 0]);
            put(packet, UDP + 2, &port.to_be_bytes());
        }
        2 => put(packet, UDP + 4, &random.bytes::<2>()),
        _ => {
            let checksum = random.pick(&[0_u16, 1, 0xffff, 0x1234]);
            put(packet, UDP + 6, &checksum.to_be_bytes());
        }
    }
}

fn change_vxlan(random: &mut Random, node: &Node, packet: &mut [u8]) {
    match random.below(4) {
        0 => put(packet, VXLAN, &random.bytes::<1>()),
        // The reserved fields.
        1 => put(packet, VXLAN + 1, &random.bytes::<3>()),
        2 => put(packet, VXLAN + 7, &random.bytes::<1>()),
        _ => {
            let vni = random.pick(&[node.config.vni, node.config.vni ^ 1, 0, 0xff_ffff]);
            put(packet, VXLAN + 4, &vni.to_be_bytes()[1..]);
        }
    }
}
