//! XDP on an underlay interface, where the operator asks for it: drops VXLAN of our VNI from
//! addresses that are no peer's before the kernel spends a socket buffer on it.
//!
//! It only ever drops what `decapsulate` would drop as well, and leaves every other packet
//! alone. Carrying packets from here was tried and is slower: XDP runs before packets are
//! merged, and redirecting into a veth loses the state of partial checksums.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::xdp,
    programs::XdpContext,
};
use mesh_layout::{DropReason, ETHERTYPE_IPV4, PROTOCOL_UDP, VXLAN_FLAG_VNI, VtepKey};

use crate::{
    maps::{CONFIG, VTEPS},
    packet::{Ethernet, Ipv4, OUTER_IP, OUTER_UDP, UdpVxlan, VERSION_4_NO_OPTIONS},
    verdict::{Dropped, count_drop},
};

/// XDP on an underlay interface.
#[xdp]
fn drop_strangers(context: XdpContext) -> u32 {
    match stranger(&context) {
        Some(dropped) => {
            // SAFETY: the context is valid as long as the program runs.
            let link = unsafe { (*context.ctx).ingress_ifindex };
            let length = context.data_end() - context.data();
            count_drop(&dropped, link, length as u32);
            XDP_DROP
        }
        None => XDP_PASS,
    }
}

/// The packet, if it is a stranger's.
#[inline(always)]
fn stranger(context: &XdpContext) -> Option<Dropped> {
    // The furthest header first: its check covers the others. A packet too short for it, or
    // one with a VLAN tag, is left to `decapsulate`.
    let udp = at::<UdpVxlan>(context, OUTER_UDP)?;
    let outer = at::<Ipv4>(context, OUTER_IP)?;
    let ethernet = at::<Ethernet>(context, 0)?;
    let config = CONFIG.get(0)?;
    let ours = ethernet.ethertype == ETHERTYPE_IPV4.to_be()
        && outer.version_and_length == VERSION_4_NO_OPTIONS
        && outer.protocol == PROTOCOL_UDP
        && outer.destination == u32::from_ne_bytes(config.host_address)
        && !outer.is_later_fragment()
        && udp.destination_port == (config.port as u16).to_be()
        && udp.flags & (u32::from(VXLAN_FLAG_VNI) << 24).to_be() != 0
        && u32::from_be(udp.vni) >> 8 == config.vni;
    if !ours {
        return None;
    }
    let key = VtepKey {
        address: outer.source.to_ne_bytes(),
    };
    // SAFETY: the entry may change under us; only whether it exists counts.
    if unsafe { VTEPS.get(&key) }.is_some() {
        return None;
    }
    Some(Dropped {
        vni: config.vni,
        outer_source: outer.source,
        outer_destination: outer.destination,
        ..Dropped::because(DropReason::UnknownVtep)
    })
}

/// The header at `offset`, or `None` if it does not lie in the packet.
#[inline(always)]
fn at<T>(context: &XdpContext, offset: usize) -> Option<&T> {
    let start = context.data();
    if start + offset + size_of::<T>() > context.data_end() {
        return None;
    }
    // SAFETY: the bounds were checked, and the packet stays as long as the program runs.
    Some(unsafe { &*((start + offset) as *const T) })
}
