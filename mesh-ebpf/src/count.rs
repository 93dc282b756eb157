//! Counting what goes to and comes from a peer, and the program that counts the kernel path.

use aya_ebpf::{
    bindings::TC_ACT_UNSPEC, helpers::bpf_ktime_get_coarse_ns, macros::classifier,
    programs::TcContext,
};
use mesh_layout::{DropReason, ETHERNET_LEN, ETHERTYPE_IPV4, EventProgram, PeerKey, PeerStats};

use crate::{
    maps::{CONFIG, PEER_STATS, PEERS},
    packet::{Ethernet, Ipv4, OUTER_IP, Packet},
    verdict::{Dropped, Verdict},
    watch,
};

/// Runs `add` on this CPU's counters of the peer with this index.
#[inline(always)]
pub(crate) fn count(index: u32, add: impl FnOnce(&mut PeerStats)) {
    if let Some(stats) = PEER_STATS.get_ptr_mut(index) {
        // SAFETY: this CPU's own slot; programs on a hook are not interrupted by others of
        // their kind.
        add(unsafe { &mut *stats });
    }
}

/// Now, to the resolution of the timer tick, which is all that "when did we last hear of
/// this peer" needs; the exact clock costs ten times as much.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Egress of the overlay device: counts what the kernel is about to encapsulate. Nothing else happens
/// to it, unless its source was changed since the guard of its container's port has seen it.
#[classifier]
fn count_egress(context: TcContext) -> i32 {
    let packet = Packet::new(&context);
    match try_count(packet) {
        Err(dropped) => Verdict::Drop(dropped).conclude(&context, EventProgram::CountEgress),
        Ok(Some(())) => {
            watch::told(packet, watch::SENT_BY_KERNEL);
            TC_ACT_UNSPEC
        }
        Ok(None) => TC_ACT_UNSPEC,
    }
}

#[inline(always)]
fn try_count(packet: Packet) -> Result<Option<()>, Dropped> {
    let (Some(ethernet), Some(ip)) = (packet.at::<Ethernet>(0), packet.at::<Ipv4>(OUTER_IP)) else {
        return Ok(None);
    };
    // SAFETY: `at` proved that the headers are in the packet.
    let (ethernet, ip) = unsafe { (&*ethernet, &*ip) };
    if ethernet.ethertype != ETHERTYPE_IPV4.to_be() {
        return Ok(None);
    }
    if packet.has_another_source(ip) {
        return Err(Dropped {
            inner_source: ip.source,
            inner_destination: ip.destination,
            inner_at: OUTER_IP as u32,
            ..Dropped::because(DropReason::SpoofedAddress)
        });
    }
    Ok(count_kernel_path(packet, ip))
}

#[inline(always)]
fn count_kernel_path(packet: Packet, ip: &Ipv4) -> Option<()> {
    let config = CONFIG.get(0)?;
    let subnet = ip.destination & u32::from_ne_bytes(config.mask);
    let key = PeerKey {
        subnet: subnet.to_ne_bytes(),
    };
    // SAFETY: the entry may change under us; each field is one aligned word.
    let peer = unsafe { PEERS.get(&key)? };
    let packets = packet.segments(ip, OUTER_IP);
    let bytes = u64::from(packet.len()) - ETHERNET_LEN as u64;
    count(peer.counters, |stats| {
        stats.kernel_tx_packets += packets;
        stats.kernel_tx_bytes += bytes;
    });
    Some(())
}
