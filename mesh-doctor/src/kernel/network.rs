//! Links, addresses, neighbours, rules, and the routes over the overlay device, over rtnetlink(7).

use std::{io, net::Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage},
    rule::{RuleAttribute, RuleMessage},
};

use super::question::Kernel;
use crate::snapshot::{Address, Forwarding, Link, Neighbour, Network, OverlayRoute};

/// Priorities of the rules that every host has (`fib_default_rules_init`, net/ipv4/fib_rules.c).
const OF_EVERY_HOST: [u32; 3] = [0, 32_766, 32_767];

/// Reads all but what is about the overlay device, which is not known before.
pub(crate) fn network(kernel: &mut Kernel) -> io::Result<Network> {
    let mut network = Network::default();
    for answer in kernel.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        if let RouteNetlinkMessage::NewLink(message) = answer {
            let link = link(&message);
            network.links.insert(link.index, link);
        }
    }
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet;
    for answer in kernel.dump(RouteNetlinkMessage::GetAddress(question))? {
        if let RouteNetlinkMessage::NewAddress(message) = answer {
            network.addresses.extend(address(&message));
        }
    }
    let mut question = NeighbourMessage::default();
    question.header.family = AddressFamily::Inet;
    for answer in kernel.dump(RouteNetlinkMessage::GetNeighbour(question))? {
        if let RouteNetlinkMessage::NewNeighbour(message) = answer {
            network.neighbours.extend(neighbour(&message));
        }
    }
    let mut question = RuleMessage::default();
    question.header.family = AddressFamily::Inet;
    for answer in kernel.dump(RouteNetlinkMessage::GetRule(question))? {
        if let RouteNetlinkMessage::NewRule(message) = answer {
            let found = message.attributes.iter().find_map(|it| match it {
                RuleAttribute::Priority(priority) => Some(*priority),
                _ => None,
            });
            network.rules += usize::from(!OF_EVERY_HOST.contains(&found.unwrap_or(0)));
        }
    }
    Ok(network)
}

/// Reads by what the overlay device leads.
pub(crate) fn overlay(kernel: &mut Kernel, device: u32, network: &mut Network) -> io::Result<()> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    question.attributes = vec![RouteAttribute::Oif(device)];
    for answer in kernel.dump(RouteNetlinkMessage::GetRoute(question))? {
        if let RouteNetlinkMessage::NewRoute(message) = answer {
            network
                .overlay_routes
                .extend(overlay_route(&message, device));
        }
    }
    let mut question = NeighbourMessage::default();
    question.header.family = AddressFamily::Bridge;
    question.header.ifindex = device;
    for answer in kernel.dump(RouteNetlinkMessage::GetNeighbour(question))? {
        if let RouteNetlinkMessage::NewNeighbour(message) = answer
            && message.header.ifindex == device
        {
            network.forwarding.extend(forwarding(&message));
        }
    }
    Ok(())
}

fn mac(bytes: &[u8]) -> Option<[u8; 6]> {
    bytes.try_into().ok()
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = mac(bytes),
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::LinkInfo(infos) => infos.iter().for_each(|info| match info {
                LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                LinkInfo::Data(InfoData::Vxlan(infos)) => {
                    link.vxlan = vxlan(infos);
                    link.local = infos.iter().find_map(|info| match info {
                        InfoVxlan::Local(address) => Some(*address),
                        _ => None,
                    });
                }
                _ => {}
            }),
            _ => {}
        }
    }
    link
}

fn vxlan(infos: &[InfoVxlan]) -> Option<(u32, u16)> {
    let vni = infos.iter().find_map(|info| match info {
        InfoVxlan::Id(vni) => Some(*vni),
        _ => None,
    })?;
    let port = infos.iter().find_map(|info| match info {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    })?;
    Some((vni, port))
}

fn address(message: &AddressMessage) -> Option<Address> {
    let of = |local: bool| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(std::net::IpAddr::V4(it)) if local => Some(*it),
                AddressAttribute::Address(std::net::IpAddr::V4(it)) if !local => Some(*it),
                _ => None,
            })
    };
    // Of a point-to-point link IFA_ADDRESS is the other end's.
    let address = of(true).or_else(|| of(false))?;
    Some(Address {
        link: message.header.index,
        address: Ipv4Net::new(address, message.header.prefix_len).ok()?,
    })
}

fn lladdr(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
            _ => None,
        })
}

fn destination(message: &NeighbourMessage) -> Option<Ipv4Addr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(*address),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                let bytes: [u8; 4] = bytes.as_slice().try_into().ok()?;
                Some(bytes.into())
            }
            _ => None,
        })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    Some(Neighbour {
        link: message.header.ifindex,
        address: destination(message)?,
        mac: lladdr(message)?,
    })
}

fn forwarding(message: &NeighbourMessage) -> Option<Forwarding> {
    Some(Forwarding {
        mac: lladdr(message)?,
        remote: destination(message)?,
    })
}

fn overlay_route(message: &RouteMessage, device: u32) -> Option<OverlayRoute> {
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let (mut gateway, mut over) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::Oif(link) => over = Some(*link),
            _ => {}
        }
    }
    let length = message.header.destination_prefix_length;
    (over == Some(device)).then_some(OverlayRoute {
        destination: Ipv4Net::new(destination, length).ok()?,
        gateway,
        protocol: message.header.protocol.into(),
    })
}
