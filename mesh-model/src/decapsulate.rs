//! Peer → container.

use mesh_layout::{
    DropReason, ENCAPSULATION_LEN, ETHERNET_LEN, ETHERTYPE_IPV4, IPV4_LEN, PEER_KERNEL,
    PROTOCOL_UDP, PassReason, PeerStats, UDP_LEN, VXLAN_LEN,
};

use crate::{
    Arrival, Counted, Ecn, Ethernet, Ipv4, Node, Outcome, Udp, Verdict, Vxlan,
    congestion::inner_after, deliver::deliver, header_checksum, outcome::Dropped,
    port_guard::any_is_ours,
};

/// Ingress of an underlay interface.
///
/// VXLAN of our VNI to this host is a peer's or it is dropped, and a peer may send from its
/// own subnet to ours only. That is decided before anything is left to the kernel, so that
/// nobody gets round it by sending what the program itself does not handle, or to another of
/// this host's addresses: the kernel's VXLAN device listens on all of them. The rest of a
/// host's packets pass untouched.
pub fn decapsulate(node: &Node, arrival: &Arrival<'_>) -> Outcome {
    let pass = |reason| Outcome::pass(arrival, reason);
    let packet = arrival.packet;

    let is_ipv4 =
        Ethernet::read(packet).is_some_and(|ethernet| ethernet.ethertype == ETHERTYPE_IPV4);
    if !is_ipv4 || packet.len() < ETHERNET_LEN + IPV4_LEN + UDP_LEN {
        return pass(PassReason::NotVxlan);
    }
    let Some(outer) = Ipv4::read(&packet[ETHERNET_LEN..]) else {
        return pass(PassReason::NotVxlan);
    };
    if outer.protocol != PROTOCOL_UDP {
        return pass(PassReason::NotVxlan);
    }
    if outer.destination == node.host_address() {
        return udp_to_us(node, arrival, &outer);
    }
    if node.forwards(outer.destination) {
        return pass(PassReason::NotVxlan);
    }
    // What the guards let in there is the kernel's, as from a peer that has not heard of a
    // new address yet.
    match udp_to_us(node, arrival, &outer) {
        dropped @ Outcome {
            verdict: Verdict::Drop(_),
            ..
        } => dropped,
        _ => pass(PassReason::NotVxlan),
    }
}

/// UDP that ends at this host.
fn udp_to_us(node: &Node, arrival: &Arrival<'_>, outer: &Ipv4) -> Outcome {
    let pass = |reason| Outcome::pass(arrival, reason);
    let packet = arrival.packet;

    if !outer.is_valid() {
        return pass(PassReason::Unreadable);
    }
    if outer.fragment_offset != 0 {
        // The ports are in the first fragment, and without that one there is no packet.
        return pass(PassReason::OuterFragment);
    }
    let udp_at = ETHERNET_LEN + outer.length();
    let udp = packet.get(udp_at..).and_then(Udp::read);
    let Some(udp) = udp.filter(|udp| u32::from(udp.destination) == node.config.port) else {
        return pass(match outer.has_options() {
            true => PassReason::Unreadable,
            false => PassReason::NotVxlan,
        });
    };

    let dropped = Dropped {
        outer: Some((outer.source, outer.destination)),
        ..Dropped::because(DropReason::Malformed)
    };
    let drop = |dropped: Dropped| dropped.outcome(arrival);
    // What follows a packet's own length is padding of the link, which the kernel cuts off.
    let total = usize::from(outer.total_length);
    let inner_header = ENCAPSULATION_LEN + IPV4_LEN;
    if outer.is_fragment() && !outer.has_options() && total < inner_header {
        return drop(dropped);
    }
    let data = &packet[udp_at + UDP_LEN..];
    let Some(vxlan) = Vxlan::read(data).filter(Vxlan::has_vni) else {
        return drop(dropped);
    };
    if vxlan.vni != node.config.vni {
        let hidden = arrival.segment_size != 0 && any_is_ours(node, arrival.segment_size, data);
        let whole = !outer.is_fragment() || total >= outer.length() + UDP_LEN + VXLAN_LEN;
        return match outer.has_options() {
            true if !whole || hidden => drop(dropped),
            false if hidden => drop(Dropped {
                vni: vxlan.vni,
                ..dropped
            }),
            _ => pass(PassReason::OtherVni),
        };
    }
    if outer.has_options() {
        // No VTEP sends options (RFC 7348 has none), and with them the inner headers are
        // elsewhere: nothing behind them is believed.
        return drop(dropped);
    }
    let dropped = Dropped {
        vni: vxlan.vni,
        ..dropped
    };
    let inner_frame = &packet[udp_at + UDP_LEN + VXLAN_LEN..];
    let Some(inner_ethernet) = Ethernet::read(inner_frame) else {
        return drop(dropped);
    };
    if inner_ethernet.ethertype != ETHERTYPE_IPV4 {
        return drop(Dropped {
            reason: DropReason::NotIpv4,
            ..dropped
        });
    }
    let Some(inner) = Ipv4::read(&inner_frame[ETHERNET_LEN..]).filter(Ipv4::is_valid) else {
        return drop(dropped);
    };
    let dropped = Dropped {
        inner: Some((inner.source, inner.destination)),
        inner_at: Some(packet.len() - inner_frame.len() + ETHERNET_LEN),
        ..dropped
    };
    let sender = node
        .peer(inner.source)
        .filter(|peer| peer.address == outer.source.octets());
    let Some(sender) = sender else {
        return drop(match node.vtep(outer.source) {
            Some(vtep) => Dropped {
                reason: DropReason::ForeignSource,
                blamed: Some(vtep.counters),
                ..dropped
            },
            None => Dropped {
                reason: DropReason::UnknownVtep,
                ..dropped
            },
        });
    };
    if !node.owns(inner.destination) {
        return drop(Dropped {
            reason: DropReason::ForeignTarget,
            blamed: Some(sender.counters),
            ..dropped
        });
    }

    // From here on the packet is a peer's and ours. What the program does not do itself the
    // kernel does.
    if node.guards_only() {
        return pass(PassReason::ForwardingOff);
    }
    if sender.flags & PEER_KERNEL != 0 {
        return pass(PassReason::LeftToKernel);
    }
    if outer.is_fragment() {
        return pass(PassReason::OuterFragment);
    }
    let header = &packet[ETHERNET_LEN..ETHERNET_LEN + IPV4_LEN];
    if udp.checksum != 0 || header_checksum(header) != 0 {
        return pass(PassReason::OuterChecksum);
    }
    if !lengths_agree(arrival, outer, &udp) {
        return pass(PassReason::Unreadable);
    }
    let Some(mark) = inner_after(Ecn::of(outer.tos), Ecn::of(inner.tos)) else {
        return drop(Dropped {
            reason: DropReason::CongestionUntold,
            blamed: Some(sender.counters),
            ..dropped
        });
    };
    if arrival.vlan_tag.is_some() {
        return pass(PassReason::Unreadable);
    }
    if inner.ttl <= 1 {
        return pass(PassReason::TtlExpired);
    }
    let endpoint = match node.deliverable(inner.destination) {
        Ok(endpoint) => endpoint,
        Err(reason) => return pass(reason),
    };
    if arrival.segment_size != 0 {
        // The kernel takes headers only off what it knows how to segment.
        return pass(PassReason::Unreadable);
    }

    let (verdict, packet) = deliver(node, endpoint, inner_frame, mark);
    Outcome {
        verdict,
        counted: Some(Counted {
            index: sender.counters,
            add: PeerStats {
                rx_packets: 1,
                rx_bytes: (inner_frame.len() - ETHERNET_LEN) as u64,
                ..PeerStats::default()
            },
            heard: true,
        }),
        packet,
        event: None,
    }
}

/// Whether the outer length fields say what arrived. What is too much the kernel cuts off,
/// and what is too little it drops. A packet that stands for several says its own length, or
/// nothing if that does not fit the field.
fn lengths_agree(arrival: &Arrival<'_>, outer: &Ipv4, udp: &Udp) -> bool {
    let arrived = arrival.packet.len() - ETHERNET_LEN;
    let total = usize::from(outer.total_length);
    match arrival.segment_size {
        0 => total == arrived && usize::from(udp.length) + IPV4_LEN == total,
        _ => total == arrived || total == 0,
    }
}
