//! Container → peer: guards what the container sends, puts outer Ethernet, IPv4, UDP and VXLAN headers before the packet and
//! sends it out of the underlay interface.

use aya_ebpf::{
    bindings::{
        BPF_ADJ_ROOM_ENCAP_L2_MASK, BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_ADJ_ROOM_NO_CSUM_RESET, TC_ACT_UNSPEC, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{bpf_get_hash_recalc, bpf_skb_adjust_room},
    macros::classifier,
    programs::TcContext,
};
use mesh_layout::{
    CONFIG_GUARD_ONLY, Config, DropReason, ENCAPSULATION_LEN, ETHERNET_LEN, ETHERTYPE_IPV4,
    EventProgram, IPV4_LEN, PEER_KERNEL, PRIORITY_ANOTHERS_CLAIM, PRIORITY_TRANSLATED,
    PRIORITY_UNKNOWN_FRAGMENT, PROTOCOL_UDP, PassReason, Peer, PeerKey, TRANSPORT_VXLAN,
    VXLAN_FLAG_VNI,
};

use crate::{
    count::count,
    maps::{CONFIG, PEERS},
    packet::{
        ECN_CE, ECN_ECT0, ECN_MASK, Ethernet, INNER_ETHERNET, INNER_IP, Ipv4, OUTER_IP, OUTER_UDP,
        Packet, UdpVxlan, VERSION_4_NO_OPTIONS, mac,
    },
    path::{self, outer_length},
    port_guard::{self, ANOTHER_PORT, ANY_PORT},
    verdict::{Dropped, Verdict},
};

/// Outer time to live, as the kernel's VXLAN device sets it.
const OUTER_TTL: u8 = 64;

/// What the kernel has to know about the headers we add, so that it can segment a large
/// packet afterwards. The inner layer 2 is an Ethernet header of 14 bytes: with the length of
/// UDP and VXLAN added to it, UDP works and TCP dies.
const ROOM_FLAGS: u64 = (BPF_F_ADJ_ROOM_FIXED_GSO
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH
    | BPF_F_ADJ_ROOM_NO_CSUM_RESET) as u64
    | (ETHERNET_LEN as u64 & BPF_ADJ_ROOM_ENCAP_L2_MASK as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;

/// Ingress of a bridge port, before the bridge sees the packet.
#[classifier]
fn encapsulate(context: TcContext) -> i32 {
    let packet = Packet::new(&context);
    let verdict = match try_encapsulate(packet, packet.link(), true, false) {
        Ok(action) => Verdict::Redirect(action),
        Err(verdict) => verdict,
    };
    verdict.conclude(&context, EventProgram::Encapsulate)
}

/// Ingress of the bridge, for what its ports hand up: the packets of a port that has no program
/// yet, or lost it.
///
/// Attaching a program takes the kernel milliseconds, one after the other, and nobody attaches
/// any while the daemon is away. What a port's own program has left to the kernel comes by here
/// as well and meets the same verdict, so what is left here is not counted a second time.
#[classifier]
fn catch_all(context: TcContext) -> i32 {
    let packet = Packet::new(&context);
    let mark = packet.take_mark();
    if mark == PRIORITY_UNKNOWN_FRAGMENT && packet.leaves_checksum() {
        // As at a port, which sees it before anybody has put it together.
        return Verdict::Drop(Dropped::because(DropReason::Malformed))
            .conclude(&context, EventProgram::CatchAll);
    }
    let port = match mark {
        PRIORITY_ANOTHERS_CLAIM => ANOTHER_PORT,
        _ => ANY_PORT,
    };
    let translated = mark == PRIORITY_TRANSLATED;
    // Of a fragment it is not known: there is one mark alone.
    let may_be_translated = translated || mark == PRIORITY_UNKNOWN_FRAGMENT;
    match try_encapsulate(packet, port, !translated, may_be_translated) {
        Ok(action) => Verdict::Redirect(action).conclude(&context, EventProgram::CatchAll),
        Err(Verdict::Pass(_)) => TC_ACT_UNSPEC,
        Err(verdict) => verdict.conclude(&context, EventProgram::CatchAll),
    }
}

#[inline(always)]
fn try_encapsulate(
    packet: Packet,
    port: u32,
    carries: bool,
    may_be_translated: bool,
) -> Result<i32, Verdict> {
    let pass = |reason| Err(Verdict::Pass(reason));
    let Some(config) = CONFIG.get(0) else {
        return pass(PassReason::NotPeer);
    };
    let is_left = port_guard::check(packet, config, port, may_be_translated)?;
    if !carries || config.flags & CONFIG_GUARD_ONLY != 0 {
        return pass(PassReason::ForwardingOff);
    }

    let Some(ethernet) = packet.at::<Ethernet>(0) else {
        return pass(PassReason::Unreadable);
    };
    // SAFETY: `at` proved that the header is in the packet.
    if unsafe { (*ethernet).ethertype } != ETHERTYPE_IPV4.to_be() {
        return pass(PassReason::NotRouted);
    }
    let Some(ip) = packet.at::<Ipv4>(OUTER_IP) else {
        return pass(PassReason::Unreadable);
    };
    // SAFETY: `at` proved that the headers are in the packet.
    let (ethernet, ip) = unsafe { (&*ethernet, &*ip) };
    if ethernet.destination != mac(&config.bridge_mac) {
        return pass(PassReason::NotRouted);
    }

    let mask = u32::from_ne_bytes(config.mask);
    let key = PeerKey {
        subnet: (ip.destination & mask).to_ne_bytes(),
    };
    // SAFETY: the entry may change under us; each field is one aligned word, and a packet
    // that leaves with the old address is one that left a moment earlier.
    let Some(peer) = (unsafe { PEERS.get(&key) }) else {
        return pass(PassReason::NotPeer);
    };
    if is_left || peer.transport != TRANSPORT_VXLAN || peer.flags & PEER_KERNEL != 0 {
        return pass(PassReason::LeftToKernel);
    }
    if ip.version_and_length != VERSION_4_NO_OPTIONS || packet.has_vlan_tag() {
        return pass(PassReason::Unreadable);
    }
    if !ip.has_right_checksum() {
        // The kernel drops it. Carried, it could become right on its way: whoever may send raw
        // frames has the card write a checksum wherever he likes, over the source for one.
        return pass(PassReason::Unreadable);
    }
    if ip.source & mask != u32::from_ne_bytes(config.subnet) {
        return pass(PassReason::SourceNotOurs);
    }
    if ip.ttl <= 1 {
        return pass(PassReason::TtlExpired);
    }
    let source_port = source_port(packet);
    let wire = packet.on_the_wire(ip, OUTER_IP);
    if is_too_long(wire.longest, config, peer) {
        return pass(PassReason::TooBig);
    }
    let outer_length = outer_length(wire.longest);
    let mut way =
        path::to(packet, config, peer, outer_length, source_port).map_err(Verdict::Pass)?;

    let inner_length = packet.len() - ETHERNET_LEN as u32;
    let inner_tos = ip.tos;
    // SAFETY: the context is valid as long as the program runs.
    let grown = unsafe {
        bpf_skb_adjust_room(
            packet.skb,
            ENCAPSULATION_LEN as i32,
            BPF_ADJ_ROOM_MAC,
            ROOM_FLAGS,
        )
    };
    if grown != 0 {
        // A packet that is still to be segmented, in a way the kernel cannot do inside a
        // tunnel (SCTP's). It is as it was, and the kernel path segments it first.
        return pass(PassReason::Unreadable);
    }
    // From here on the packet is changed, and the kernel path can no longer have it.
    let outer = Outer {
        inner_length,
        inner_tos,
        source_port,
        identification: way.identify(wire.packets),
    };
    if write_headers(packet, config, peer, outer).is_none() {
        return Err(Verdict::Drop(Dropped::because(DropReason::RewriteFailed)));
    }
    count(peer.counters, |stats| {
        stats.tx_packets += wire.packets;
        stats.tx_bytes += u64::from(inner_length);
    });
    Ok(way.send())
}

/// Whether an inner packet is longer than overlay or peer take, by what the runtime knows of them. The kernel is
/// asked for the rest.
///
/// One that is too long is left to the kernel, which answers the sender; sent anyway it could
/// vanish on the underlay, and the container with it.
#[inline(always)]
fn is_too_long(length: u32, config: &Config, peer: &Peer) -> bool {
    config.overlay_mtu != 0 && length > config.overlay_mtu || peer.mtu != 0 && length > peer.mtu
}

/// A source port that tells flows apart, for the ECMP and RSS of the underlay: the flow's
/// hash in the dynamic range (RFC 7348, section 5).
#[inline(always)]
fn source_port(packet: Packet) -> u16 {
    // SAFETY: the context is valid as long as the program runs.
    let hash = unsafe { bpf_get_hash_recalc(packet.skb) };
    ((hash ^ (hash >> 16)) as u16 & 0x3fff) | 0xc000
}

/// What the outer headers say beside what node and peer are.
struct Outer {
    /// Length of the inner packet from its IPv4 header on.
    inner_length: u32,
    inner_tos: u8,
    /// The flow's.
    source_port: u16,
    identification: u16,
}

#[inline(always)]
fn write_headers(packet: Packet, config: &Config, peer: &Peer, of: Outer) -> Option<()> {
    // The furthest header first: its check covers the others.
    let inner_ip: *mut Ipv4 = packet.at(INNER_IP)?;
    let inner_ethernet: *mut Ethernet = packet.at(INNER_ETHERNET)?;
    let udp: *mut UdpVxlan = packet.at(OUTER_UDP)?;
    let ip: *mut Ipv4 = packet.at(OUTER_IP)?;

    let udp_length = of.inner_length + (ENCAPSULATION_LEN - IPV4_LEN) as u32;
    let mut outer = Ipv4 {
        version_and_length: VERSION_4_NO_OPTIONS,
        tos: outer_tos(of.inner_tos),
        total_length: length_field(udp_length + IPV4_LEN as u32),
        // Unlike packets that must not be fragmented, these need one that no other has for as long as
        // its fragments are under way (RFC 6864, section 4.2). At high rates 16 bits cannot hold that, which
        // is why the receiver's inner checksums have to find what was put together wrongly (RFC 4963).
        identification: of.identification.to_be(),
        // May be fragmented, as the kernel's VXLAN: a router with a smaller MTU between the hosts, of which
        // nobody here knows, would drop it otherwise.
        fragment: 0,
        ttl: OUTER_TTL,
        protocol: PROTOCOL_UDP,
        checksum: 0,
        source: u32::from_ne_bytes(config.host_address),
        destination: u32::from_ne_bytes(peer.address),
    };
    outer.checksum = outer.compute_checksum();

    // SAFETY: `at` proved that the headers are in the packet.
    unsafe {
        (*inner_ip).decrement_ttl();
        *ip = outer;
        *udp = UdpVxlan {
            source_port: of.source_port.to_be(),
            destination_port: (config.port as u16).to_be(),
            length: length_field(udp_length),
            // None: the inner packet has its own (RFC 7348, section 5).
            checksum: 0,
            flags: (u32::from(VXLAN_FLAG_VNI) << 24).to_be(),
            vni: (peer.vni << 8).to_be(),
        };
        (*inner_ethernet).set(&config.overlay_mac, &peer.mac);
    }
    Some(())
}

/// The outer congestion bits: those of the inner packet, but a mark already made stays
/// inside (RFC 3168, section 9.1.1, as the kernel's tunnels do it).
#[inline(always)]
fn outer_tos(inner_tos: u8) -> u8 {
    match inner_tos & ECN_MASK {
        ECN_CE => ECN_ECT0,
        other => other,
    }
}

/// A length as it goes into a 16-bit field. A packet still to be segmented may be longer:
/// the kernel writes 0 then, and the right lengths when it segments.
#[inline(always)]
fn length_field(length: u32) -> u16 {
    if length > u32::from(u16::MAX) {
        0
    } else {
        (length as u16).to_be()
    }
}
