//! The kernel's next hops towards the peers' hosts (ip-route(8), `ip route get`).

use std::{io, net::Ipv4Addr};

use mesh_layout::PROTOCOL_UDP;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage},
};

use super::{NextHop, message::read_next_hop};
use crate::netlink::reader::Reader;

/// Asks for the next hops of some peers, in their order; `None` for one to which no route leads.
///
/// What the kernel has learnt of a route, such as a smaller MTU, it tells nobody: so all of them are asked about every
/// few seconds, and many at once.
pub(super) fn find(
    reader: &Reader,
    peers: &[Ipv4Addr],
    source: Option<Ipv4Addr>,
    vxlan_port: u16,
) -> io::Result<Vec<Option<NextHop>>> {
    let mut found = vec![None; peers.len()];
    if peers.is_empty() {
        return Ok(found);
    }
    let questions: Vec<_> = peers
        .iter()
        .map(|peer| question(*peer, source, vxlan_port))
        .collect();
    reader.ask_each(&questions, |place, answer| {
        // ENETUNREACH, EHOSTUNREACH, EACCES (prohibit), EINVAL (blackhole): no route there.
        let Ok(answer) = answer else { return Some(()) };
        let route = match NetlinkMessage::deserialize(answer).ok()?.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => route,
            _ => return None,
        };
        let peer = peers.get(place)?;
        *found.get_mut(place)? = read_next_hop(&route, *peer);
        Some(())
    })?;
    Ok(found)
}

/// Asks as the VXLAN device does: policy rules may go by source, protocol and port.
fn question(peer: Ipv4Addr, source: Option<Ipv4Addr>, vxlan_port: u16) -> Vec<u8> {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = 32;
    route.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(peer)),
        RouteAttribute::IpProto(PROTOCOL_UDP),
        RouteAttribute::Dport(vxlan_port),
    ];
    if let Some(source) = source {
        route.header.source_prefix_length = 32;
        let source = RouteAttribute::Source(RouteAddress::Inet(source));
        route.attributes.push(source);
    }
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(route));
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;

    #[test]
    fn what_is_found_of_many_addresses_is_each_in_its_place() {
        let reader = Reader::of(NETLINK_ROUTE).unwrap();
        let loopback = |last| Ipv4Addr::new(127, 0, 0, last);
        // More than are asked about at a time. Those of this host lead over no next hop, but are answered.
        let peers: Vec<_> = (1..=100).map(loopback).collect();
        let found = find(&reader, &peers, None, 4789).unwrap();
        assert_eq!(
            found,
            vec![None; 100],
            "local addresses are no unicast routes"
        );
        assert_eq!(find(&reader, &[], None, 4789).unwrap(), []);
    }
}
