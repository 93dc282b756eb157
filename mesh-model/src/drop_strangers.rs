//! XDP on an underlay interface.

use mesh_layout::{DropReason, ETHERNET_LEN, ETHERTYPE_IPV4, PROTOCOL_UDP, UDP_LEN};

use crate::{Arrival, Ethernet, Ipv4, Node, Outcome, Udp, Verdict, Vxlan, outcome::Dropped};

/// Drops VXLAN of our VNI to this host from addresses that are no peer's, and nothing else:
/// not what a peer sends, however wrong it is, and not what is too short or too unusual to be
/// read in a few steps. Those are [`decapsulate`](crate::decapsulate())'s.
pub fn drop_strangers(node: &Node, arrival: &Arrival<'_>) -> Outcome {
    match strangers_addresses(node, arrival.packet) {
        Some(addresses) => Dropped {
            vni: node.config.vni,
            outer: Some(addresses),
            ..Dropped::because(DropReason::UnknownVtep)
        }
        .outcome(arrival),
        None => Outcome::unchanged(arrival, Verdict::Continue),
    }
}

/// Source and destination of a packet to be dropped.
fn strangers_addresses(
    node: &Node,
    packet: &[u8],
) -> Option<(std::net::Ipv4Addr, std::net::Ipv4Addr)> {
    Ethernet::read(packet).filter(|it| it.ethertype == ETHERTYPE_IPV4)?;
    let ip = Ipv4::read(&packet[ETHERNET_LEN..])
        .filter(|it| it.is_valid() && !it.has_options())
        .filter(|it| it.protocol == PROTOCOL_UDP && it.fragment_offset == 0)
        .filter(|it| it.destination == node.host_address())?;
    let udp_at = ETHERNET_LEN + ip.length();
    let udp = packet.get(udp_at..).and_then(Udp::read)?;
    let vxlan = Vxlan::read(&packet[udp_at + UDP_LEN..])?;
    let ours = u32::from(udp.destination) == node.config.port
        && vxlan.has_vni()
        && vxlan.vni == node.config.vni;
    (ours && node.vtep(ip.source).is_none()).then_some((ip.source, ip.destination))
}
