//! Container → peer.

use std::{net::Ipv4Addr, ops::RangeInclusive};

use mesh_layout::{
    ENCAPSULATION_LEN, ENDPOINT_PORT_KERNEL, ETHERNET_LEN, ETHERTYPE_IPV4, IPV4_LEN, PEER_KERNEL,
    PROTOCOL_UDP, PassReason, Peer, PeerStats, TRANSPORT_VXLAN, VXLAN_FLAG_VNI,
};

use crate::{
    Arrival, Counted, Ecn, Ethernet, Ipv4, Node, Outcome, Redirect, Udp, Verdict, Vxlan,
    congestion::outer_for, decrement_ttl, header::length16, header_checksum, port_guard,
    segments::on_the_wire,
};

/// Source ports that stand for flows: the dynamic range (RFC 7348, section 5; RFC 6335).
pub const SOURCE_PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// An index that no interface has.
const ANOTHER_PORT: u32 = u32::MAX;

/// Ingress of a bridge port.
///
/// What the guard of the port lets through and is IPv4 to the gateway's MAC address, from this
/// node's subnet to a peer's, is sent to the peer. All else is the kernel path's, which answers
/// where an answer is due.
pub fn encapsulate(node: &Node, arrival: &Arrival<'_>) -> Outcome {
    from_container(node, arrival, Some(arrival.link))
}

/// What a container sent, by the port with that index if it is known.
fn from_container(node: &Node, arrival: &Arrival<'_>, port: Option<u32>) -> Outcome {
    let pass = |reason| Outcome::pass(arrival, reason);

    if let Some(refused) = port_guard::refuse(node, arrival, port) {
        return refused;
    }
    if node.guards_only() {
        return pass(PassReason::ForwardingOff);
    }

    let Some(ethernet) = Ethernet::read(arrival.packet) else {
        return pass(PassReason::Unreadable);
    };
    if ethernet.ethertype != ETHERTYPE_IPV4 {
        return pass(PassReason::NotRouted);
    }
    let Some(ip) = Ipv4::read(&arrival.packet[ETHERNET_LEN..]) else {
        return pass(PassReason::Unreadable);
    };
    if ethernet.destination != node.config.bridge_mac {
        return pass(PassReason::NotRouted);
    }
    let Some(peer) = node.peer(ip.destination) else {
        return pass(PassReason::NotPeer);
    };
    let left = peer.transport != TRANSPORT_VXLAN
        || peer.flags & PEER_KERNEL != 0
        || is_left_to_kernel(node, port, &ethernet, &ip);
    if left {
        return pass(PassReason::LeftToKernel);
    }
    if !ip.is_valid() || ip.has_options() || arrival.vlan_tag.is_some() {
        return pass(PassReason::Unreadable);
    }
    if header_checksum(&arrival.packet[ETHERNET_LEN..ETHERNET_LEN + IPV4_LEN]) != 0 {
        return pass(PassReason::Unreadable);
    }
    if !node.owns(ip.source) {
        return pass(PassReason::SourceNotOurs);
    }
    if ip.ttl <= 1 {
        return pass(PassReason::TtlExpired);
    }
    let longest = on_the_wire(arrival, &ip).longest;
    let limits = [node.config.overlay_mtu, peer.mtu];
    if limits.iter().any(|&mtu| mtu != 0 && longest > mtu as usize) {
        return pass(PassReason::TooBig);
    }
    let address = peer.address.into();
    // The kernel looks at the length before it says by which interface.
    let outer_length = longest + ENCAPSULATION_LEN;
    match node.ways.get(&address) {
        Some(way) if outer_length.min(usize::from(u16::MAX)) > way.mtu as usize => {
            return pass(PassReason::TooBig);
        }
        _ => {}
    }
    let Some(way) = node.way(address) else {
        return pass(PassReason::NoNextHop);
    };
    if arrival.segment_size != 0 {
        // The kernel adds headers only to what it will know how to segment.
        return pass(PassReason::Unreadable);
    }

    let inner_length = arrival.packet.len() - ETHERNET_LEN;
    Outcome {
        verdict: Verdict::Redirect(Redirect::Neighbour {
            link: way.link,
            next_hop: way.next_hop,
        }),
        packet: encapsulated(node, peer, arrival, ip.tos),
        counted: Some(Counted {
            index: peer.counters,
            add: PeerStats {
                tx_packets: 1,
                tx_bytes: inner_length as u64,
                ..PeerStats::default()
            },
            heard: false,
        }),
        event: None,
    }
}

/// Ingress of the bridge.
///
/// Takes and refuses the packets that [`encapsulate`] takes and refuses, if a port has no program
/// that has done it before; by which port a packet came is not known here, but for that it is none
/// of those whose addresses it claims where the packet filter says so. What that one has left
/// to the kernel and counted is left alone.
pub fn catch_all(node: &Node, arrival: &Arrival<'_>) -> Outcome {
    let port = arrival.claims_anothers.then_some(ANOTHER_PORT);
    let outcome = from_container(node, arrival, port);
    match outcome.verdict {
        Verdict::Pass(_) => Outcome::unchanged(arrival, Verdict::Continue),
        _ => outcome,
    }
}

/// Whether the port leaves the packet to the kernel path: as the entry says that binds its sender to the port,
/// or, where none does, the port's own. What came by no known port is not left to it.
fn is_left_to_kernel(node: &Node, port: Option<u32>, ethernet: &Ethernet, ip: &Ipv4) -> bool {
    let Some(port) = port else { return false };
    let bound = node
        .endpoint(ip.source)
        .filter(|it| it.link == port && it.mac == ethernet.source);
    match bound {
        Some(endpoint) => endpoint.flags & ENDPOINT_PORT_KERNEL != 0,
        None => !ip.source.is_unspecified() && node.is_left_to_kernel(port),
    }
}

/// RFC 7348, section 5, around the packet with one hop less to live. The outer Ethernet
/// header is still the container's: whoever sends the packet to the neighbour writes it.
fn encapsulated(node: &Node, peer: &Peer, arrival: &Arrival<'_>, inner_tos: u8) -> Vec<u8> {
    let (container_ethernet, inner_ip) = arrival.packet.split_at(ETHERNET_LEN);
    let mut inner_ip = inner_ip.to_vec();
    decrement_ttl(&mut inner_ip);

    let outer_length = inner_ip.len() + ENCAPSULATION_LEN;
    let outer = Ipv4 {
        version: 4,
        words: 5,
        // The congestion mark alone: the underlay's service classes are not the container's.
        tos: outer_for(Ecn::of(inner_tos)).bits(),
        total_length: length16(outer_length),
        // It may be fragmented, so no other may have its identification (RFC 6864).
        identification: arrival.identification,
        dont_fragment: false,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol: PROTOCOL_UDP,
        source: node.host_address(),
        destination: Ipv4Addr::from(peer.address),
    };
    let udp = Udp {
        source: arrival.flow_port,
        destination: node.config.port as u16,
        length: length16(outer_length - IPV4_LEN),
        checksum: 0,
    };
    let vxlan = Vxlan {
        flags: VXLAN_FLAG_VNI,
        vni: peer.vni,
    };
    let inner_ethernet = Ethernet {
        destination: peer.mac,
        source: node.config.overlay_mac,
        ethertype: ETHERTYPE_IPV4,
    };
    [
        container_ethernet,
        &outer.bytes(&[]),
        &udp.bytes(),
        &vxlan.bytes(),
        &inner_ethernet.bytes(),
        &inner_ip,
    ]
    .concat()
}
