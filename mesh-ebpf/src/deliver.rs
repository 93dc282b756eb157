//! The last step to a container, for packets from the underlay and from the overlay device.

use aya_ebpf::helpers::bpf_redirect_peer;
use mesh_layout::{Config, ENDPOINT_KERNEL, Endpoint, EndpointKey, PassReason};

use crate::{
    maps::ENDPOINTS,
    packet::{ECN_MASK, Ethernet, Ipv4, OUTER_IP, Packet},
};

/// The container that owns `destination`, if its interface is known and there, and not the kernel's to
/// deliver to.
#[inline(always)]
pub(crate) fn endpoint(packet: Packet, destination: u32) -> Result<&'static Endpoint, PassReason> {
    let key = EndpointKey {
        address: destination.to_ne_bytes(),
    };
    // SAFETY: the entry may change under us; a packet that is delivered to the old interface
    // is one that arrived a moment earlier.
    let endpoint = unsafe { ENDPOINTS.get(&key) }.ok_or(PassReason::NoEndpoint)?;
    if endpoint.flags & ENDPOINT_KERNEL != 0 {
        return Err(PassReason::LeftToKernel);
    }
    if packet.has_link(endpoint.link) {
        Ok(endpoint)
    } else {
        Err(PassReason::NoEndpoint)
    }
}

/// Delivers a packet that begins with an Ethernet header and the IPv4 header: as the router
/// between overlay and container, so with one hop less to live and the gateway as sender. `mark` are the
/// congestion bits it arrives with.
///
/// `None` if the headers are not readable.
#[inline(always)]
pub(crate) fn deliver(
    packet: Packet,
    config: &Config,
    endpoint: &Endpoint,
    mark: u8,
) -> Option<i32> {
    let ethernet: *mut Ethernet = packet.at(0)?;
    let ip: *mut Ipv4 = packet.at(OUTER_IP)?;
    // SAFETY: `at` proved that the headers are in the packet.
    unsafe {
        (*ethernet).set(&config.bridge_mac, &endpoint.mac);
        if (*ip).tos & ECN_MASK != mark {
            (*ip).set_mark(mark);
        }
        (*ip).decrement_ttl();
        // Into the container's end of the pair, past this host's bridge and backlog.
        Some(bpf_redirect_peer(endpoint.link, 0) as i32)
    }
}
