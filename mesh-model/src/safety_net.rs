//! The overlay device: what the kernel decapsulated, and what it is about to encapsulate.

use mesh_layout::{DropReason, ETHERNET_LEN, ETHERTYPE_IPV4, PassReason, PeerStats};

use crate::{
    Arrival, Counted, Ecn, Ethernet, Ipv4, Node, Outcome, Verdict, deliver::deliver,
    outcome::Dropped, segments::segments,
};

/// Ingress of the overlay device.
///
/// The outer headers are gone: what is left of the guards is that the inner source must be
/// some peer's and the inner destination ours.
pub fn safety_net(node: &Node, arrival: &Arrival<'_>) -> Outcome {
    let packet = arrival.packet;
    let drop = |dropped: Dropped| dropped.outcome(arrival);

    let ip = packet.get(ETHERNET_LEN..).and_then(Ipv4::read);
    let (Some(ethernet), Some(ip)) = (Ethernet::read(packet), ip) else {
        return drop(Dropped::because(DropReason::Malformed));
    };
    if ethernet.ethertype != ETHERTYPE_IPV4 {
        return drop(Dropped::because(DropReason::NotIpv4));
    }
    let dropped = Dropped {
        inner: Some((ip.source, ip.destination)),
        inner_at: Some(ETHERNET_LEN),
        vni: node.config.vni,
        ..Dropped::because(DropReason::Malformed)
    };
    if !ip.is_valid() {
        return drop(dropped);
    }
    let Some(sender) = node.peer(ip.source) else {
        return drop(Dropped {
            reason: DropReason::ForeignSource,
            ..dropped
        });
    };
    if !node.owns(ip.destination) {
        return drop(Dropped {
            reason: DropReason::ForeignTarget,
            blamed: Some(sender.counters),
            ..dropped
        });
    }

    let counted = Counted {
        index: sender.counters,
        add: PeerStats {
            kernel_rx_packets: segments(arrival, &ip),
            kernel_rx_bytes: (packet.len() - ETHERNET_LEN) as u64,
            ..PeerStats::default()
        },
        heard: true,
    };
    let pass = |reason| Outcome {
        counted: Some(counted),
        ..Outcome::pass(arrival, reason)
    };
    if node.guards_only() {
        return pass(PassReason::ForwardingOff);
    }
    if ip.ttl <= 1 {
        return pass(PassReason::TtlExpired);
    }
    if ip.has_options() {
        return pass(PassReason::Unreadable);
    }
    let endpoint = match node.deliverable(ip.destination) {
        Ok(endpoint) => endpoint,
        Err(reason) => return pass(reason),
    };
    let (verdict, packet) = deliver(node, endpoint, packet, Ecn::of(ip.tos));
    Outcome {
        verdict,
        packet,
        counted: Some(counted),
        event: None,
    }
}

/// Egress of the overlay device: counts IPv4 to a peer, and touches nothing. What a packet remembers of its
/// source is not modelled: nothing that could be run through a program alone remembers any.
pub fn count_egress(node: &Node, arrival: &Arrival<'_>) -> Outcome {
    let packet = arrival.packet;
    let counted = || {
        Ethernet::read(packet).filter(|ethernet| ethernet.ethertype == ETHERTYPE_IPV4)?;
        let ip = Ipv4::read(&packet[ETHERNET_LEN..])?;
        let peer = node.peer(ip.destination)?;
        Some(Counted {
            index: peer.counters,
            add: PeerStats {
                kernel_tx_packets: segments(arrival, &ip),
                kernel_tx_bytes: (packet.len() - ETHERNET_LEN) as u64,
                ..PeerStats::default()
            },
            heard: false,
        })
    };
    Outcome {
        counted: counted(),
        ..Outcome::unchanged(arrival, Verdict::Continue)
    }
}
