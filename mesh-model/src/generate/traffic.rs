//! Packets as they should be, and not quite.

use std::net::Ipv4Addr;

use mesh_layout::{ETHERNET_LEN, IPV4_LEN, VNI};

use super::{
    Random, containers,
    mutate::mutate,
    nodes::{own_address, peer_address},
};
use crate::{Frame, Node, Program, VxlanFrame};

/// A packet for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The program that gets the packet.
    pub program: Program,
    /// The packet with its Ethernet header.
    pub packet: Vec<u8>,
    /// The interface it arrives on: one of the ports, if it is a container's.
    pub link: u32,
    /// Payload bytes per packet on the wire, or 0.
    pub segment_size: u16,
    /// Whether the packet filter has marked the frame as claiming what belongs to another port.
    pub claims_anothers: bool,
}

/// The longest frame that is generated.
const LONGEST: usize = 1600;

/// A packet for one of the programs of `node`, which must have links. What it should be is decided
/// first, then up to four things about it are changed.
pub fn packet(random: &mut Random, node: &Node) -> Generated {
    let program = match random.below(100) {
        0..34 => Program::Encapsulate,
        34..40 => Program::CatchAll,
        40..80 => Program::Decapsulate,
        80..90 => Program::SafetyNet,
        _ => Program::CountEgress,
    };
    // Now and then a program meets what was meant for another.
    let meant_for = match random.chance(98) {
        true => program,
        false => random.pick(&Program::ALL),
    };
    let links: Vec<_> = node.links.iter().copied().collect();
    let (mut packet, link) = match meant_for {
        Program::Encapsulate | Program::CatchAll => containers::sends(random, node, &links, inner),
        other => (proper(random, node, other), random.pick(&links)),
    };
    let changes = random.pick(&[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 4]);
    for _ in 0..changes {
        mutate(random, node, &mut packet);
    }
    packet.truncate(LONGEST);
    lengthen_to_runnable(&mut packet);
    let segment_size = match random.chance(5) {
        true => random.pick(&[1, 8, 100, 536, 1400, 65_535]),
        false => 0,
    };
    Generated {
        program,
        packet,
        link,
        segment_size,
        claims_anothers: program == Program::CatchAll && random.chance(30),
    }
}

/// BPF_PROG_TEST_RUN refuses what is shorter than the headers its EtherType announces on recent
/// kernels, and what is shorter than an Ethernet header on all.
fn lengthen_to_runnable(packet: &mut Vec<u8>) {
    const IPV6_LEN: usize = 40;
    let extend_to = |packet: &mut Vec<u8>, least: usize| {
        if packet.len() < least {
            packet.resize(least, 0);
        }
    };
    extend_to(packet, ETHERNET_LEN);
    match [packet[12], packet[13]] {
        [0x08, 0x00] => extend_to(packet, ETHERNET_LEN + IPV4_LEN),
        [0x86, 0xdd] => extend_to(packet, ETHERNET_LEN + IPV6_LEN),
        _ => {}
    }
}

fn proper(random: &mut Random, node: &Node, program: Program) -> Vec<u8> {
    match program {
        Program::Decapsulate => {
            let frame = from_peer(random, node);
            let source = Ipv4Addr::from(bytes4(&frame, ETHERNET_LEN + 12));
            let sender = node
                .peer(source)
                .map_or(Ipv4Addr::new(192, 0, 2, 99), |peer| peer.address.into());
            let macs = [random.bytes(), random.bytes()];
            let mut vxlan = VxlanFrame::proper(macs, [sender, node.host_address()], frame);
            vxlan.vxlan.vni = match random.chance(95) {
                true => node.config.vni,
                false => VNI,
            };
            vxlan.udp.destination = node.config.port as u16;
            vxlan.udp.source = random.next() as u16;
            vxlan.outer.ip.dont_fragment = random.chance(50);
            vxlan.outer.ip.tos = random.pick(&[0, 0, 0, 0, 0, 1, 2, 3]);
            vxlan.bytes()
        }
        Program::SafetyNet => from_peer(random, node),
        Program::Encapsulate | Program::CatchAll | Program::CountEgress => {
            let addresses = [own_address(random, node), peer_address(random, node)];
            let macs = [node.config.overlay_mac, random.bytes()];
            inner(random, macs, addresses, node)
        }
    }
}

fn from_peer(random: &mut Random, node: &Node) -> Vec<u8> {
    let addresses = [peer_address(random, node), own_address(random, node)];
    let macs = [random.bytes(), node.config.overlay_mac];
    inner(random, macs, addresses, node)
}

/// A packet between containers.
fn inner(
    random: &mut Random,
    macs: [[u8; 6]; 2],
    addresses: [Ipv4Addr; 2],
    node: &Node,
) -> Vec<u8> {
    let limit = match node.config.overlay_mtu {
        0 => 1450,
        mtu => mtu as usize,
    } - IPV4_LEN;
    let length = match random.below(10) {
        0..7 => random.below(65),
        7 => limit.saturating_sub(9 + random.below(4)),
        // About the largest that fits.
        8 => (limit.min(1480) + 3).saturating_sub(8 + random.below(7)),
        _ => random.below(1480),
    };
    let mut data = vec![0; length];
    random.fill(&mut data);
    let ports = [random.next() as u16, random.next() as u16];
    let mut frame = Frame::udp(macs, addresses, ports, &data);
    frame.ip.protocol = random.pick(&[17, 17, 17, 6, 6, 6, 1, 132]);
    if random.chance(30) {
        frame.ip.tos = random.next() as u8;
    }
    frame.ip.ttl = random.pick(&[64, 64, 64, 64, 255, 128, 2, 3]);
    frame.ip.dont_fragment = random.chance(50);
    frame.ip.identification = random.next() as u16;
    frame.bytes()
}

fn bytes4(packet: &[u8], at: usize) -> [u8; 4] {
    [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Arrival, Verdict, Way,
        generate::{Devices, node, peer_addresses},
    };

    fn devices() -> Devices {
        Devices {
            overlays: vec![(5, 1450)],
            ports: vec![9, 10],
            underlay: 2,
            ways: peer_addresses()
                .map(|next_hop| {
                    let way = Way {
                        link: 2,
                        next_hop,
                        mtu: 1500,
                    };
                    (next_hop, way)
                })
                .collect(),
        }
    }

    #[test]
    fn a_seed_always_means_the_same_packets() {
        let generate = || {
            let mut random = Random::new(7);
            let node = node(&mut random, &devices());
            (0..1000)
                .map(|_| packet(&mut random, &node))
                .collect::<Vec<_>>()
        };
        assert_eq!(generate(), generate());
    }

    #[test]
    fn a_good_part_of_the_packets_gets_through() {
        let mut random = Random::new(8);
        let mut redirected = 0;
        for _ in 0..100 {
            let node = node(&mut random, &devices());
            for _ in 0..100 {
                let generated = packet(&mut random, &node);
                let arrival = Arrival::single(&generated.packet, generated.link);
                let outcome = generated.program.judge(&node, &arrival);
                redirected += u32::from(matches!(outcome.verdict, Verdict::Redirect(_)));
            }
        }
        assert!((2000..7500).contains(&redirected), "{redirected} of 10000");
    }
}
