//! Ingress of the overlay device: what the kernel decapsulated, because the underlay program
//! left it alone or is not attached there.
//!
//! The outer header is gone, so of the guards only those on the inner one are left.

use aya_ebpf::{macros::classifier, programs::TcContext};
use mesh_layout::{
    CONFIG_GUARD_ONLY, DropReason, ETHERNET_LEN, ETHERTYPE_IPV4, EventProgram, PassReason, PeerKey,
};

use crate::{
    count::{count, now},
    deliver::{deliver, endpoint},
    maps::{CONFIG, PEERS},
    packet::{ECN_MASK, Ethernet, Ipv4, OUTER_IP, Packet, VERSION_4_NO_OPTIONS},
    verdict::{Dropped, NO_PEER, Verdict},
};

/// Ingress of the overlay device.
#[classifier]
fn safety_net(context: TcContext) -> i32 {
    let verdict = match try_deliver(Packet::new(&context)) {
        Ok(action) => Verdict::Redirect(action),
        Err(verdict) => verdict,
    };
    verdict.conclude(&context, EventProgram::SafetyNet)
}

#[inline(always)]
fn try_deliver(packet: Packet) -> Result<i32, Verdict> {
    const NEEDED: usize = OUTER_IP + size_of::<Ipv4>();
    if packet.at::<[u8; NEEDED]>(0).is_none() && !packet.pull(NEEDED as u32) {
        return Err(Verdict::Drop(Dropped::because(DropReason::Malformed)));
    }
    let (Some(ethernet), Some(ip), Some(config)) = (
        packet.at::<Ethernet>(0),
        packet.at::<Ipv4>(OUTER_IP),
        CONFIG.get(0),
    ) else {
        return Err(Verdict::Drop(Dropped::because(DropReason::Malformed)));
    };
    // SAFETY: `at` proved that the headers are in the packet.
    let (ethernet, ip) = unsafe { (&*ethernet, *ip) };
    if ethernet.ethertype != ETHERTYPE_IPV4.to_be() {
        return Err(Verdict::Drop(Dropped::because(DropReason::NotIpv4)));
    }

    let dropped = |reason, counters| {
        Err(Verdict::Drop(Dropped {
            counters,
            inner_source: ip.source,
            inner_destination: ip.destination,
            inner_at: OUTER_IP as u32,
            vni: config.vni,
            ..Dropped::because(reason)
        }))
    };
    if !ip.is_valid() {
        return dropped(DropReason::Malformed, NO_PEER);
    }
    let mask = u32::from_ne_bytes(config.mask);
    let key = PeerKey {
        subnet: (ip.source & mask).to_ne_bytes(),
    };
    // SAFETY: the entry may change under us; each field is one aligned word.
    let Some(peer) = (unsafe { PEERS.get(&key) }) else {
        return dropped(DropReason::ForeignSource, NO_PEER);
    };
    if ip.destination & mask != u32::from_ne_bytes(config.subnet) {
        return dropped(DropReason::ForeignTarget, peer.counters);
    }

    let packets = packet.segments(&ip, OUTER_IP);
    let bytes = u64::from(packet.len()) - ETHERNET_LEN as u64;
    count(peer.counters, |stats| {
        stats.kernel_rx_packets += packets;
        stats.kernel_rx_bytes += bytes;
        stats.last_seen_ns = now();
    });

    if config.flags & CONFIG_GUARD_ONLY != 0 {
        return Err(Verdict::Pass(PassReason::ForwardingOff));
    }
    if ip.ttl <= 1 {
        return Err(Verdict::Pass(PassReason::TtlExpired));
    }
    if ip.version_and_length != VERSION_4_NO_OPTIONS {
        return Err(Verdict::Pass(PassReason::Unreadable));
    }
    let endpoint = endpoint(packet, ip.destination).map_err(Verdict::Pass)?;
    match deliver(packet, config, endpoint, ip.tos & ECN_MASK) {
        Some(action) => Ok(action),
        None => Err(Verdict::Pass(PassReason::Unreadable)),
    }
}
