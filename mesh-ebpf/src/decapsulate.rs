//! Peer → container: takes the outer headers off and delivers the inner packet.

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_FIXED_GSO, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NOT_FWDED,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_fib_lookup, bpf_fib_lookup__bindgen_ty_1,
        bpf_fib_lookup__bindgen_ty_2, bpf_fib_lookup__bindgen_ty_3, bpf_fib_lookup__bindgen_ty_4,
        bpf_fib_lookup__bindgen_ty_5,
    },
    helpers::{self, bpf_skb_adjust_room},
    macros::classifier,
    programs::TcContext,
};
use mesh_layout::{
    CONFIG_GUARD_ONLY, Config, DropReason, ENCAPSULATION_LEN, ETHERNET_LEN, ETHERTYPE_IPV4,
    EventProgram, IPV4_LEN, PEER_KERNEL, PROTOCOL_UDP, PassReason, Peer, PeerKey, UDP_LEN, VtepKey,
};

use crate::{
    count::{count, now},
    deliver::{deliver, endpoint},
    maps::{CONFIG, PEERS, VTEPS},
    packet::{
        ECN_CE, ECN_ECT0, ECN_ECT1, ECN_MASK, Ethernet, INNER_ETHERNET, INNER_IP, Ipv4, OUTER_IP,
        OUTER_UDP, Packet, UdpVxlan, VERSION_4_NO_OPTIONS,
    },
    path::AF_INET,
    verdict::{Dropped, Verdict},
};

/// Ingress of an underlay interface.
#[classifier]
fn decapsulate(context: TcContext) -> i32 {
    let verdict = match try_decapsulate(Packet::new(&context)) {
        Ok(action) => Verdict::Redirect(action),
        Err(verdict) => verdict,
    };
    verdict.conclude(&context, EventProgram::Decapsulate)
}

#[inline(always)]
fn try_decapsulate(packet: Packet) -> Result<i32, Verdict> {
    let pass = |reason| Err(Verdict::Pass(reason));

    // Most packets of a host are not ours; they leave after a handful of comparisons.
    let Some(ethernet) = packet.at::<Ethernet>(0) else {
        return pass(PassReason::NotVxlan);
    };
    // SAFETY: `at` proved that the header is in the packet.
    if unsafe { (*ethernet).ethertype } != ETHERTYPE_IPV4.to_be() {
        return pass(PassReason::NotVxlan);
    }
    if packet.at::<[u8; OUTER_UDP + UDP_LEN]>(0).is_none()
        && !packet.pull((OUTER_UDP + UDP_LEN) as u32)
    {
        // Shorter than a UDP header: a later fragment, or nothing of ours.
        return pass(PassReason::NotVxlan);
    }
    let (Some(outer), Some(ports)) = (
        packet.at::<Ipv4>(OUTER_IP),
        packet.at::<[u16; 4]>(OUTER_UDP),
    ) else {
        return pass(PassReason::NotVxlan);
    };
    // SAFETY: `at` proved that the headers are in the packet.
    let (outer, [_, destination_port, udp_length, udp_checksum]) = unsafe { (*outer, *ports) };
    let Some(config) = CONFIG.get(0) else {
        return pass(PassReason::NotVxlan);
    };
    if outer.protocol != PROTOCOL_UDP {
        return pass(PassReason::NotVxlan);
    }
    if outer.destination != u32::from_ne_bytes(config.host_address) {
        return Err(at_another_address(packet, config, &outer, destination_port));
    }
    if outer.version_and_length != VERSION_4_NO_OPTIONS {
        return Err(beyond_options(packet, config, &outer));
    }
    if outer.is_later_fragment() {
        return pass(PassReason::OuterFragment);
    }
    if destination_port != (config.port as u16).to_be() {
        return pass(PassReason::NotVxlan);
    }

    let (peer, inner) = guarded(packet, config, &outer)?;

    if config.flags & CONFIG_GUARD_ONLY != 0 {
        return pass(PassReason::ForwardingOff);
    }
    if peer.flags & PEER_KERNEL != 0 {
        return pass(PassReason::LeftToKernel);
    }
    // The guards have seen the packet, also one the kernel has to put together first: without
    // its first fragment a stranger's packet never becomes whole.
    if outer.is_fragment() {
        return pass(PassReason::OuterFragment);
    }
    if udp_checksum != 0 || !outer.has_right_checksum() {
        return pass(PassReason::OuterChecksum);
    }
    if !lengths_agree(packet, &outer, udp_length) {
        return pass(PassReason::Unreadable);
    }
    let Some(mark) = mark_after(outer.tos, inner.tos) else {
        return Err(Verdict::Drop(Dropped {
            counters: peer.counters,
            vni: config.vni,
            outer_source: outer.source,
            outer_destination: outer.destination,
            inner_source: inner.source,
            inner_destination: inner.destination,
            inner_at: INNER_IP as u32,
            ..Dropped::because(DropReason::CongestionUntold)
        }));
    };
    if packet.has_vlan_tag() {
        return pass(PassReason::Unreadable);
    }
    if inner.ttl <= 1 {
        return pass(PassReason::TtlExpired);
    }
    let endpoint = endpoint(packet, inner.destination).map_err(Verdict::Pass)?;

    let segments = packet.segments(&inner, INNER_IP);
    let bytes = u64::from(packet.len()) - INNER_IP as u64;
    // The checksum state is reset (no NO_CSUM_RESET): what the NIC said of the outer packet
    // must not vouch for the inner one.
    // SAFETY: the context is valid as long as the program runs.
    let shrunk = unsafe {
        bpf_skb_adjust_room(
            packet.skb,
            -(ENCAPSULATION_LEN as i32),
            BPF_ADJ_ROOM_MAC,
            u64::from(BPF_F_ADJ_ROOM_FIXED_GSO),
        )
    };
    if shrunk != 0 {
        // A merged packet of a kind the kernel takes apart itself. It is as it was.
        return pass(PassReason::Unreadable);
    }
    let Some(action) = deliver(packet, config, endpoint, mark) else {
        return Err(Verdict::Drop(Dropped::because(DropReason::RewriteFailed)));
    };
    count(peer.counters, |stats| {
        stats.rx_packets += segments;
        stats.rx_bytes += bytes;
        stats.last_seen_ns = now();
    });
    Ok(action)
}

/// The peer the packet came from, and its inner header, if the guards let it in.
#[inline(always)]
fn guarded(
    packet: Packet,
    config: &Config,
    outer: &Ipv4,
) -> Result<(&'static Peer, Ipv4), Verdict> {
    let dropped = Dropped {
        outer_source: outer.source,
        outer_destination: outer.destination,
        ..Dropped::because(DropReason::Malformed)
    };
    const NEEDED: usize = INNER_IP + IPV4_LEN - OUTER_IP;
    if outer.is_fragment() && outer.total_len() < NEEDED {
        // The headers come in the next fragment; what follows here is padding.
        return Err(Verdict::Drop(dropped));
    }
    let (vni, inner) = inner_headers(packet, config, dropped)?;
    let dropped = Dropped {
        outer_source: outer.source,
        outer_destination: outer.destination,
        inner_source: inner.source,
        inner_destination: inner.destination,
        inner_at: INNER_IP as u32,
        vni,
        ..Dropped::because(DropReason::Malformed)
    };
    let peer = guard(config, outer, &inner, dropped)?;
    Ok((peer, inner))
}

/// The verdict on UDP to another address than the one peers send to.
///
/// The kernel's VXLAN device listens on all of this host's, and to broadcast and multicast.
/// So the guards apply there too, or a stranger would get round them; what they let in, as
/// from a peer that has not heard of a new address yet, is the kernel's.
#[inline(always)]
fn at_another_address(
    packet: Packet,
    config: &Config,
    outer: &Ipv4,
    destination_port: u16,
) -> Verdict {
    const PASS: Verdict = Verdict::Pass(PassReason::NotVxlan);
    let without_options = outer.version_and_length == VERSION_4_NO_OPTIONS;
    if without_options && destination_port != (config.port as u16).to_be()
        || outer.is_later_fragment()
        || is_forwarded(packet, outer)
    {
        return PASS;
    }
    let verdict = if without_options {
        guarded(packet, config, outer).err().unwrap_or(PASS)
    } else {
        beyond_options(packet, config, outer)
    };
    match verdict {
        Verdict::Drop(dropped) => Verdict::Drop(dropped),
        _ => PASS,
    }
}

/// Whether the kernel would send the packet on to another host.
#[inline(always)]
fn is_forwarded(packet: Packet, outer: &Ipv4) -> bool {
    // "This network", multicast, broadcast: never routed on by unicast rules, although a
    // default route seems to say so.
    let first = outer.destination.to_ne_bytes()[0];
    if first == 0 || first >= 224 {
        return false;
    }
    let mut lookup = bpf_fib_lookup {
        family: AF_INET as u8,
        l4_protocol: PROTOCOL_UDP,
        sport: 0,
        dport: 0,
        __bindgen_anon_1: bpf_fib_lookup__bindgen_ty_1 { tot_len: 0 },
        ifindex: packet.link(),
        __bindgen_anon_2: bpf_fib_lookup__bindgen_ty_2 { rt_metric: 0 },
        __bindgen_anon_3: bpf_fib_lookup__bindgen_ty_3 {
            ipv6_src: [outer.source, 0, 0, 0],
        },
        __bindgen_anon_4: bpf_fib_lookup__bindgen_ty_4 {
            ipv6_dst: [outer.destination, 0, 0, 0],
        },
        __bindgen_anon_5: bpf_fib_lookup__bindgen_ty_5 { tbid: 0 },
        smac: [0; 6],
        dmac: [0; 6],
    };
    // SAFETY: the context is valid as long as the program runs, and the parameters live on
    // the stack and are as long as said.
    let answer = unsafe {
        helpers::bpf_fib_lookup(
            packet.skb.cast(),
            &mut lookup,
            size_of::<bpf_fib_lookup>() as i32,
            0,
        )
    };
    const NOT_FORWARDED: i64 = BPF_FIB_LKUP_RET_NOT_FWDED as i64;
    const FORWARDING_DISABLED: i64 = BPF_FIB_LKUP_RET_FWD_DISABLED as i64;
    answer >= 0 && answer != NOT_FORWARDED && answer != FORWARDING_DISABLED
}

/// The verdict on UDP to this host behind IPv4 options.
///
/// No VTEP sends any, but the kernel's accepts them, and from anybody: VXLAN of our VNI is
/// dropped, or a stranger would get round the guards with a single no-operation.
#[inline(always)]
fn beyond_options(packet: Packet, config: &Config, outer: &Ipv4) -> Verdict {
    if !outer.is_valid() {
        return Verdict::Pass(PassReason::Unreadable);
    }
    if outer.is_later_fragment() {
        return Verdict::Pass(PassReason::OuterFragment);
    }
    let udp = OUTER_IP + outer.header_len();
    let end = (udp + size_of::<UdpVxlan>()) as u32;
    if packet.at::<UdpVxlan>(udp).is_none() {
        // Not linear, or not there.
        packet.pull(if packet.len() < end {
            packet.len()
        } else {
            end
        });
    }
    match packet.at::<[u16; 4]>(udp) {
        // SAFETY: `at` proved that the header is in the packet.
        Some(ports) if unsafe { (*ports)[1] } == (config.port as u16).to_be() => {}
        _ => return Verdict::Pass(PassReason::Unreadable),
    }
    if let Some(vxlan) = packet.at::<UdpVxlan>(udp) {
        // SAFETY: `at` proved that the header is in the packet.
        let vxlan = unsafe { *vxlan };
        // Of a fragment that ends before it, it is padding.
        let whole =
            !outer.is_fragment() || outer.total_len() >= outer.header_len() + size_of::<UdpVxlan>();
        let hidden =
            packet.segment_size() != 0 && packet.any_has_vni((udp + UDP_LEN) as u32, config.vni);
        if vxlan.has_vni() && vxlan.vni() != config.vni && whole && !hidden {
            return Verdict::Pass(PassReason::OtherVni);
        }
    }
    Verdict::Drop(Dropped {
        outer_source: outer.source,
        outer_destination: outer.destination,
        ..Dropped::because(DropReason::Malformed)
    })
}

/// Whether the outer length fields say what arrived. The kernel cuts off what is too much,
/// as a trailer of the link, and drops what is too little.
///
/// A packet that was merged, or never cut, carries its own length or, beyond 64 KiB, none.
#[inline(always)]
fn lengths_agree(packet: Packet, outer: &Ipv4, udp_length: u16) -> bool {
    let total = u32::from(u16::from_be(outer.total_length));
    let udp = u32::from(u16::from_be(udp_length));
    let arrived = packet.len() - ETHERNET_LEN as u32;
    if packet.segment_size() != 0 {
        return total == arrived || total == 0;
    }
    total == arrived && udp + IPV4_LEN as u32 == total
}

/// The congestion bits of the delivered packet (RFC 6040, figure 4, as `INET_ECN_decapsulate` of the kernel does
/// it); `None` if it has to be dropped, because its sender would not understand that it met congestion.
#[inline(always)]
fn mark_after(outer_tos: u8, inner_tos: u8) -> Option<u8> {
    let inner = inner_tos & ECN_MASK;
    match outer_tos & ECN_MASK {
        ECN_CE if inner == 0 => None,
        ECN_CE => Some(ECN_CE),
        ECN_ECT1 if inner == ECN_ECT0 => Some(ECN_ECT1),
        _ => Some(inner),
    }
}

/// Reads the VXLAN header and the inner IPv4 header, and refuses what is not one of ours.
#[inline(always)]
fn inner_headers(
    packet: Packet,
    config: &Config,
    dropped: Dropped,
) -> Result<(u32, Ipv4), Verdict> {
    const NEEDED: usize = INNER_IP + IPV4_LEN;
    if packet.at::<[u8; NEEDED]>(0).is_none() {
        // Not linear, or not there.
        let wanted = if packet.len() < NEEDED as u32 {
            packet.len()
        } else {
            NEEDED as u32
        };
        packet.pull(wanted);
    }
    let Some(vxlan) = packet.at::<UdpVxlan>(OUTER_UDP) else {
        return Err(Verdict::Drop(dropped));
    };
    // SAFETY: `at` proved that the header is in the packet.
    let vxlan = unsafe { *vxlan };
    if !vxlan.has_vni() {
        return Err(Verdict::Drop(dropped));
    }
    let vni = vxlan.vni();
    if vni != config.vni {
        let first = (OUTER_UDP + UDP_LEN) as u32;
        return Err(
            match packet.segment_size() != 0 && packet.any_has_vni(first, config.vni) {
                true => Verdict::Drop(Dropped { vni, ..dropped }),
                false => Verdict::Pass(PassReason::OtherVni),
            },
        );
    }
    let Some(ethernet) = packet.at::<Ethernet>(INNER_ETHERNET) else {
        return Err(Verdict::Drop(Dropped { vni, ..dropped }));
    };
    // SAFETY: `at` proved that the header is in the packet.
    if unsafe { (*ethernet).ethertype } != ETHERTYPE_IPV4.to_be() {
        return Err(Verdict::Drop(Dropped {
            reason: DropReason::NotIpv4,
            vni,
            ..dropped
        }));
    }
    match packet.at::<Ipv4>(INNER_IP) {
        // SAFETY: `at` proved that the header is in the packet.
        Some(inner) if unsafe { (*inner).is_valid() } => {
            // SAFETY: as above.
            Ok((vni, unsafe { *inner }))
        }
        _ => Err(Verdict::Drop(Dropped { vni, ..dropped })),
    }
}

/// The outer source must be a peer, the inner source must lie in that peer's subnet, and the
/// inner destination in ours. Returns the peer.
#[inline(always)]
fn guard(
    config: &Config,
    outer: &Ipv4,
    inner: &Ipv4,
    dropped: Dropped,
) -> Result<&'static Peer, Verdict> {
    let mask = u32::from_ne_bytes(config.mask);
    let key = PeerKey {
        subnet: (inner.source & mask).to_ne_bytes(),
    };
    // SAFETY: the entry may change under us; each field is one aligned word.
    let peer = match unsafe { PEERS.get(&key) } {
        Some(peer) if u32::from_ne_bytes(peer.address) == outer.source => peer,
        _ => {
            let key = VtepKey {
                address: outer.source.to_ne_bytes(),
            };
            // SAFETY: as above.
            return Err(Verdict::Drop(match unsafe { VTEPS.get(&key) } {
                Some(vtep) => Dropped {
                    reason: DropReason::ForeignSource,
                    counters: vtep.counters,
                    ..dropped
                },
                None => Dropped {
                    reason: DropReason::UnknownVtep,
                    ..dropped
                },
            }));
        }
    };
    if inner.destination & mask != u32::from_ne_bytes(config.subnet) {
        return Err(Verdict::Drop(Dropped {
            reason: DropReason::ForeignTarget,
            counters: peer.counters,
            ..dropped
        }));
    }
    Ok(peer)
}

// The offsets are those of the layout the documentation draws.
const _: () = assert!(INNER_IP == ETHERNET_LEN + ENCAPSULATION_LEN);
