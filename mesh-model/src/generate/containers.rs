//! What containers send: mostly as themselves, and now and then as somebody else.

use std::net::Ipv4Addr;

use mesh_layout::{ETHERNET_LEN, IPV4_LEN, UDP_LEN, VXLAN_LEN};

use super::{
    Random,
    nodes::{any_address, own_address, peer_address},
};
use crate::{ArpFrame, Extension, Frame, Ipv6Frame, Node, VxlanFrame, tagged};

/// Who sends: the port, its MAC address and an address.
#[derive(Clone, Copy)]
struct Sender {
    link: u32,
    mac: [u8; 6],
    address: Ipv4Addr,
}

/// Makes an IPv4 packet between containers: source and destination MAC address, and addresses.
type Inner = fn(&mut Random, [[u8; 6]; 2], [Ipv4Addr; 2], &Node) -> Vec<u8>;

/// A frame and the port it comes in by, one of `links`.
pub(super) fn sends(
    random: &mut Random,
    node: &Node,
    links: &[u32],
    inner: Inner,
) -> (Vec<u8>, u32) {
    let sender = match random.chance(92) {
        true => itself(random, node, links),
        false => somebody_else(random, node, links),
    };
    let gateway = node.config.bridge_mac;
    let frame = match random.below(100) {
        0..60 => {
            let addresses = [sender.address, peer_address(random, node)];
            inner(random, [sender.mac, gateway], addresses, node)
        }
        60..72 => arp(random, node, sender),
        72..84 => ipv6(random, sender),
        84..90 => dhcp_or_redirect(random, node, sender),
        _ => vxlan(random, node, sender),
    };
    let mut frame = frame;
    if random.chance(2)
        && let Some(destination) = frame.first_chunk_mut::<6>()
    {
        // Around those that bridges keep to themselves.
        let last = random.pick(&[0, 2, 0xe, 0xf, 0x10]);
        *destination = [0x01, 0x80, 0xc2, 0, 0, last];
    }
    let frame = match random.below(100) {
        0 => tagged(&frame, &[tag(random)]),
        1 => tagged(&frame, &[tag(random), tag(random)]),
        _ => frame,
    };
    (frame, sender.link)
}

fn tag(random: &mut Random) -> (u16, u16) {
    let kind = random.pick(&[0x8100, 0x8100, 0x88a8]);
    (kind, random.pick(&[0, 0xe000, 7, 0x2fff]))
}

/// A container that the node knows, at its own port if that is there; failing that a new one.
fn itself(random: &mut Random, node: &Node, links: &[u32]) -> Sender {
    let known: Vec<_> = node
        .endpoints
        .iter()
        .filter(|(_, endpoint)| links.contains(&endpoint.link))
        .collect();
    if known.is_empty() || random.chance(20) {
        return Sender {
            link: random.pick(links),
            mac: random.bytes(),
            address: own_address(random, node),
        };
    }
    let (key, endpoint) = random.pick(&known);
    Sender {
        link: endpoint.link,
        mac: endpoint.mac,
        address: key.address.into(),
    }
}

/// A container that says it is another, the gateway, nobody, or from elsewhere.
fn somebody_else(random: &mut Random, node: &Node, links: &[u32]) -> Sender {
    let own = itself(random, node, links);
    let known: Vec<_> = node.endpoints.iter().collect();
    let mut sender = own;
    if random.chance(70) {
        sender.address = match random.below(6) {
            0 => node.gateway(),
            1 => Ipv4Addr::UNSPECIFIED,
            2 => any_address(random, node),
            3 => peer_address(random, node),
            // Whoever holds it, if anybody does.
            _ => own_address(random, node),
        };
    }
    if random.chance(40) {
        sender.mac = match random.below(4) {
            0 => node.config.bridge_mac,
            1 => random.bytes(),
            _ if known.is_empty() => random.bytes(),
            _ => random.pick(&known).1.mac,
        };
    }
    sender
}

fn arp(random: &mut Random, node: &Node, sender: Sender) -> Vec<u8> {
    let target = match random.chance(50) {
        true => node.gateway(),
        false => any_address(random, node),
    };
    let named = match random.chance(90) {
        true => sender.mac,
        false => random.bytes(),
    };
    let frame = ArpFrame {
        macs: [
            random.pick(&[[0xff; 6], node.config.bridge_mac]),
            sender.mac,
        ],
        operation: random.pick(&[1, 2]),
        sender: (named, sender.address),
        target: ([0; 6], random.pick(&[target, sender.address])),
    };
    let mut frame = frame.bytes();
    if random.chance(4) {
        frame.truncate(ETHERNET_LEN + random.below(28));
    }
    frame
}

/// Solicitations, advertisements, redirects, echoes, DHCPv6, behind none to twelve extension
/// headers.
fn ipv6(random: &mut Random, sender: Sender) -> Vec<u8> {
    let count = random.pick(&[0, 0, 0, 1, 1, 2, 3, 8, 9, 10, 12]);
    let extensions = (0..count).map(|_| extension(random)).collect();
    let (protocol, start) = match random.below(8) {
        0..4 => (58, vec![random.pick(&[133, 134, 134, 136, 137, 128])]),
        4..6 => {
            let [from, to] = random.pick(&[[547_u16, 546], [7, 546], [546, 547], [547, 53]]);
            (17, [from.to_be_bytes(), to.to_be_bytes()].concat())
        }
        6 => (6, Vec::new()),
        _ => (random.pick(&[59, 50, 4, 255]), Vec::new()),
    };
    let mut payload = start;
    let more = random.below(30);
    payload.resize(payload.len() + more, 0);
    let mut frame = Ipv6Frame {
        macs: [[0x33, 0x33, 0, 0, 0, 1], sender.mac],
        extensions,
        protocol,
        payload,
    }
    .bytes();
    if random.chance(6) {
        let length = random.below(frame.len() + 1);
        frame.truncate(length);
    }
    frame
}

fn extension(random: &mut Random) -> Extension {
    let kind = random.pick(&[0, 43, 44, 44, 51, 60, 60, 135, 139, 140]);
    match kind {
        44 => {
            let offset = random.pick(&[0, 0, 0, 1, 185]);
            Extension::fragment(offset, random.chance(50))
        }
        _ => {
            let more = random.pick(&[0, 0, 1, 2, 5]);
            Extension::padded(kind, more)
        }
    }
}

fn dhcp_or_redirect(random: &mut Random, node: &Node, sender: Sender) -> Vec<u8> {
    let ports = random.pick(&[[67, 68], [6767, 68], [68, 67], [67, 67]]);
    let to = any_address(random, node);
    let data = vec![0; random.below(64)];
    let macs = [
        sender.mac,
        random.pick(&[[0xff; 6], node.config.bridge_mac]),
    ];
    let mut frame = Frame::udp(macs, [sender.address, to], ports, &data);
    if random.chance(40) {
        frame.ip.protocol = 1;
        let kind = random.pick(&[5, 5, 8, 3]);
        frame.payload.insert(0, kind);
    }
    with_oddities(random, &mut frame);
    frame.bytes()
}

/// VXLAN from a container, to whomever.
fn vxlan(random: &mut Random, node: &Node, sender: Sender) -> Vec<u8> {
    let peers: Vec<_> = node.peers.keys().collect();
    let to = match random.below(8) {
        0 => node.gateway(),
        1 => node.host_address(),
        2 => own_address(random, node),
        3 => peer_address(random, node),
        // A peer's gateway, or everybody there.
        4 if !peers.is_empty() => {
            let subnet = u32::from_be_bytes(random.pick(&peers).subnet);
            let hosts = !u32::from_be_bytes(node.config.mask);
            Ipv4Addr::from(subnet | random.pick(&[1, hosts, 0]))
        }
        _ => any_address(random, node),
    };
    let macs = [sender.mac, node.config.bridge_mac];
    let mut vxlan = VxlanFrame::proper(macs, [sender.address, to], random.bytes::<60>().to_vec());
    vxlan.vxlan.vni = random.pick(&[node.config.vni, node.config.vni, node.config.vni ^ 2]);
    vxlan.vxlan.flags = random.pick(&[8, 8, 8, 0, 0xff]);
    vxlan.udp.destination = node.config.port as u16;
    with_oddities(random, &mut vxlan.outer);
    let options = vxlan.outer.options.len();
    let mut frame = vxlan.bytes();
    if vxlan.outer.ip.more_fragments && random.chance(50) {
        // The VXLAN header comes in the next fragment, or part of it.
        let header = ETHERNET_LEN + IPV4_LEN + options + UDP_LEN;
        frame.truncate(header + random.below(VXLAN_LEN + 1));
    }
    frame
}

/// Options and fragments, with which headers are elsewhere, or not there.
fn with_oddities(random: &mut Random, frame: &mut Frame) {
    if random.chance(20) {
        frame.options = vec![1; 4 * (1 + random.below(10))];
    }
    match random.below(10) {
        0 | 1 => frame.ip.more_fragments = true,
        2 => frame.ip.fragment_offset = random.pick(&[1, 2, 100]),
        _ => {}
    }
}
