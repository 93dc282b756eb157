//! What the kernel's messages say of interfaces, addresses, routes and neighbours.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage, AddressScope},
    link::{
        InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute,
        LinkFlags, LinkInfo, LinkMessage,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteType,
    },
};

use super::{
    Address, Forwarding, Link, LinkKind, Neighbour, NeighbourState, NextHop, Route, Vxlan,
    containers::FarEnd,
};
use crate::ebpf::Mac;

/// The destination of a route, of whatever table, that leads there over several next hops.
pub(super) fn multipath(message: &RouteMessage) -> Option<Ipv4Net> {
    let has = |is: fn(&RouteAttribute) -> bool| message.attributes.iter().any(is);
    let several = has(|it| matches!(it, RouteAttribute::MultiPath(_)))
        // Where `nexthop_compat_mode` is off, it names but its next hop object, which may be a group.
        || has(|it| matches!(it, RouteAttribute::NhId(_)))
            && !has(|it| matches!(it, RouteAttribute::Oif(_)));
    several.then(|| destination(message)).flatten()
}

fn destination(message: &RouteMessage) -> Option<Ipv4Net> {
    let given = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    };
    let address = message.attributes.iter().find_map(given);
    let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
    Ipv4Net::new(address, message.header.destination_prefix_length).ok()
}

pub(crate) fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Other(String::new()),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        master: None,
        far_end: None,
        filters_vlans: false,
        near_end: None,
        hairpin: false,
    };
    let mut other_end = 0;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(address) => link.mac = read_mac(address),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) if *index != 0 => link.master = Some(*index),
            LinkAttribute::Link(index) => other_end = *index,
            LinkAttribute::LinkNetNsId(namespace) => {
                link.far_end = Some(FarEnd {
                    namespace: *namespace,
                    link: 0,
                });
            }
            LinkAttribute::LinkInfo(infos) => {
                link.kind = read_kind(infos);
                link.filters_vlans = filters_vlans(infos);
                link.hairpin = hairpin(infos);
            }
            _ => {}
        }
    }
    match &mut link.far_end {
        Some(far_end) => far_end.link = other_end,
        // Of devices of other kinds it is what lies below them.
        None if link.kind == LinkKind::Veth && other_end != 0 => link.near_end = Some(other_end),
        None => {}
    }
    link
}

fn read_kind(infos: &[LinkInfo]) -> LinkKind {
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match kind {
        Some(InfoKind::Bridge) => LinkKind::Bridge,
        Some(InfoKind::Veth) => LinkKind::Veth,
        Some(InfoKind::Vxlan) => LinkKind::Vxlan(read_vxlan(infos)),
        Some(other) => LinkKind::Other(other.to_string()),
        None => LinkKind::Other(String::new()),
    }
}

fn filters_vlans(infos: &[LinkInfo]) -> bool {
    let filters = |attribute: &InfoBridge| matches!(attribute, InfoBridge::VlanFiltering(true));
    infos.iter().any(|info| match info {
        LinkInfo::Data(InfoData::Bridge(attributes)) => attributes.iter().any(filters),
        _ => false,
    })
}

fn hairpin(infos: &[LinkInfo]) -> bool {
    let gives_back =
        |attribute: &InfoBridgePort| matches!(attribute, InfoBridgePort::HairpinMode(true));
    infos.iter().any(|info| match info {
        LinkInfo::PortData(InfoPortData::BridgePort(attributes)) => {
            attributes.iter().any(gives_back)
        }
        _ => false,
    })
}

fn read_vxlan(infos: &[LinkInfo]) -> Vxlan {
    let mut vxlan = Vxlan::default();
    let attributes = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(attributes)) => Some(attributes.as_slice()),
        _ => None,
    });
    for attribute in attributes.unwrap_or_default() {
        match attribute {
            InfoVxlan::Id(vni) => vxlan.vni = *vni,
            InfoVxlan::Port(port) => vxlan.port = *port,
            InfoVxlan::Local(address) => vxlan.local = Some(*address),
            InfoVxlan::Learning(learning) => vxlan.learning = *learning,
            InfoVxlan::UDPCsum(checksum) => vxlan.checksum = *checksum,
            InfoVxlan::Link(index) if *index != 0 => vxlan.lower = Some(*index),
            InfoVxlan::CollectMetadata(external) => vxlan.external = *external,
            InfoVxlan::Group(_) | InfoVxlan::Group6(_) => vxlan.default_remote = true,
            _ => {}
        }
    }
    vxlan
}

pub(crate) fn read_address(message: &AddressMessage) -> Option<Address> {
    // IFA_LOCAL is the interface's own; IFA_ADDRESS is the other end on point-to-point links.
    let own = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    };
    let address = message.attributes.iter().find_map(own)?;
    Some(Address {
        link: message.header.index,
        address: Ipv4Net::new(address, message.header.prefix_len).ok()?,
        global: message.header.scope == AddressScope::Universe,
    })
}

pub(super) fn read_route(message: &RouteMessage) -> Option<Route> {
    // A route with a type of service is none that we make or that competes with ours.
    if message.header.tos != 0 || message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let mut route = Route {
        destination: destination(message)?,
        gateway: None,
        link: None,
        source: None,
        metric: 0,
        protocol: message.header.protocol.into(),
        onlink: message.header.flags.contains(RouteFlags::Onlink),
        unicast: message.header.kind == RouteType::Unicast,
        mtu: mtu(&message.attributes),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(*address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => {
                route.source = Some(*address);
            }
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::MultiPath(_) => route.unicast = false,
            _ => {}
        }
    }
    Some(route)
}

pub(super) fn read_next_hop(message: &RouteMessage, address: Ipv4Addr) -> Option<NextHop> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut gateway = None;
    let mut link = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(via)) => gateway = Some(*via),
            RouteAttribute::Oif(index) => link = Some(*index),
            _ => {}
        }
    }
    Some(NextHop {
        // By a gateway of IPv6 it is the address itself that is asked for.
        address: gateway.unwrap_or(address),
        link: link?,
        mtu: mtu(&message.attributes),
    })
}

/// The MTU among a route's metrics.
pub(crate) fn mtu(attributes: &[RouteAttribute]) -> Option<u32> {
    let metrics = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => Some(metrics),
        _ => None,
    });
    metrics?.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

pub(crate) fn read_neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(inet)) => {
                address = Some(*inet);
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = read_mac(bytes),
            _ => {}
        }
    }
    Some(Neighbour {
        link: message.header.ifindex,
        address: address?,
        mac,
        state: read_state(message.header.state.into()),
    })
}

const NUD_REACHABLE: u16 = 0x02;
const NUD_STALE: u16 = 0x04;
const NUD_DELAY: u16 = 0x08;
const NUD_PROBE: u16 = 0x10;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;

fn read_state(state: u16) -> NeighbourState {
    if state & NUD_PERMANENT != 0 {
        NeighbourState::Permanent
    } else if state & (NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE) != 0 {
        NeighbourState::Learnt
    } else {
        NeighbourState::Unusable
    }
}

pub(crate) fn read_forwarding(message: &NeighbourMessage) -> Option<Forwarding> {
    let mut mac = None;
    let mut remote = None;
    let mut bridge = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = read_mac(bytes),
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                remote = Some(*address);
            }
            // The family of the message is the bridge's, so the address is not taken apart.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                remote = <[u8; 4]>::try_from(bytes.as_slice())
                    .ok()
                    .map(Ipv4Addr::from);
            }
            NeighbourAttribute::Controller(index) => bridge = Some(*index),
            _ => {}
        }
    }
    Some(Forwarding {
        link: message.header.ifindex,
        mac: mac?,
        remote,
        bridge,
        permanent: u16::from(message.header.state) & NUD_PERMANENT != 0,
        pinned: u16::from(message.header.state) & NUD_NOARP != 0,
        sticky: message.header.flags.contains(NeighbourFlags::Sticky),
    })
}

fn read_mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    fn route(table: u8, attributes: &[RouteAttribute]) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.table = table;
        message.header.destination_prefix_length = 24;
        let destination = RouteAddress::Inet(Ipv4Addr::new(198, 51, 100, 0));
        message.attributes = vec![RouteAttribute::Destination(destination)];
        message.attributes.extend_from_slice(attributes);
        message
    }

    #[test]
    fn a_route_of_several_next_hops_is_told_in_whatever_table_it_is() {
        let net = "198.51.100.0/24".parse().ok();
        let hops = RouteAttribute::MultiPath(vec![RouteNextHop::default(); 2]);
        let group = RouteAttribute::NhId(10);
        for table in [RouteHeader::RT_TABLE_MAIN, 77] {
            assert_eq!(multipath(&route(table, std::slice::from_ref(&hops))), net);
            assert_eq!(
                multipath(&route(table, &[group.clone(), hops.clone()])),
                net
            );
            assert_eq!(multipath(&route(table, std::slice::from_ref(&group))), net);
            let one = [group.clone(), RouteAttribute::Oif(2)];
            assert_eq!(multipath(&route(table, &one)), None);
            assert_eq!(multipath(&route(table, &one[1..])), None);
        }
    }

    #[test]
    fn a_default_route_of_several_next_hops_leads_everywhere() {
        let mut message = route(77, &[RouteAttribute::MultiPath(Vec::new())]);
        message.header.destination_prefix_length = 0;
        message.attributes.remove(0);
        assert_eq!(multipath(&message), Some(Ipv4Net::default()));
    }
}
