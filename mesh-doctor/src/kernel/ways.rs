//! Where the kernel would send packets (`ip route get`, RTM_GETROUTE), with all that decides it: rules, tables, routes.

use std::{collections::BTreeMap, io, net::Ipv4Addr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage},
};

use super::question::Kernel;
use crate::snapshot::{Mesh, Way, Ways};

/// IP protocol number of UDP.
const UDP: u8 = 17;
/// The most containers that are asked about: a subnet of the usual length has no more addresses.
const ASKED: usize = 256;
/// Stands for whatever is outside: a name server of the root, to which nothing is sent.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);

/// Asks for the ways to all peers.
pub(crate) fn ways(kernel: &mut Kernel, mesh: &Mesh) -> io::Result<Ways> {
    let mut ways = Ways::default();
    // An address that a container of this node may have: the kernel takes none of its own from an interface.
    let container = mesh
        .subnet
        .map(|subnet| Ipv4Addr::from_bits(subnet.network().to_bits() | 2));
    let from_container = mesh.bridge.zip(container);
    for peer in &mesh.peers {
        if let Some((bridge, source)) = from_container {
            let to = Ipv4Addr::from_bits(peer.subnet.network().to_bits() | 1);
            let way = way(kernel, question(to, Some(source), Some(bridge), None))?;
            ways.to_containers.insert(peer.subnet, way);
        }
        let vxlan = question(peer.address, mesh.host_address, None, Some(mesh.port));
        ways.to_hosts.insert(peer.address, way(kernel, vxlan)?);
        let plain = question(peer.address, mesh.host_address, None, None);
        ways.back.insert(peer.address, way(kernel, plain)?);
    }
    for &address in mesh.containers.iter().take(ASKED) {
        let way = way(kernel, question(address, None, None, None))?;
        ways.to_own.insert(address, way);
    }
    if let Some((bridge, source)) = from_container {
        let outside = question(OUTSIDE, Some(source), Some(bridge), None);
        ways.outside = Some(way(kernel, outside)?);
    }
    Ok(ways)
}

fn question(
    to: Ipv4Addr,
    from: Option<Ipv4Addr>,
    iif: Option<u32>,
    udp_port: Option<u16>,
) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    message.header.flags = RouteFlags::LookupTable;
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(to))];
    if let Some(from) = from {
        message.header.source_prefix_length = 32;
        let source = RouteAttribute::Source(RouteAddress::Inet(from));
        message.attributes.push(source);
    }
    message.attributes.extend(iif.map(RouteAttribute::Iif));
    if let Some(port) = udp_port {
        message.attributes.push(RouteAttribute::IpProto(UDP));
        message.attributes.push(RouteAttribute::Dport(port));
    }
    message
}

fn way(kernel: &mut Kernel, question: RouteMessage) -> io::Result<Way> {
    match kernel.get(RouteNetlinkMessage::GetRoute(question)) {
        Ok(Some(RouteNetlinkMessage::NewRoute(route))) => {
            let mut way = Way {
                link: None,
                table: route.header.table.into(),
            };
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(link) => way.link = Some(*link),
                    RouteAttribute::Table(table) => way.table = *table,
                    _ => {}
                }
            }
            Ok(way)
        }
        Ok(_) => Err(io::Error::other("the kernel's answer is no route")),
        // ENETUNREACH, EHOSTUNREACH, EACCES (prohibit), EINVAL (blackhole), ENOENT, EXDEV (strict filtering): nowhere.
        Err(error) if error.raw_os_error().is_some_and(is_of_a_route) => Ok(Way {
            link: None,
            table: 0,
        }),
        Err(error) => Err(error),
    }
}

fn is_of_a_route(errno: i32) -> bool {
    [
        libc::ENETUNREACH,
        libc::EHOSTUNREACH,
        libc::EACCES,
        libc::EINVAL,
        libc::ENOENT,
        libc::EXDEV,
        libc::ENODEV,
    ]
    .contains(&errno)
}

/// Peers by the way that what is for them takes, where it is not the right one.
pub(crate) fn grouped<K: Copy + Ord>(
    ways: &BTreeMap<K, Way>,
    wrong: impl Fn(K, &Way) -> bool,
) -> BTreeMap<Option<u32>, Vec<K>> {
    let mut groups: BTreeMap<Option<u32>, Vec<K>> = BTreeMap::new();
    for (&key, way) in ways {
        if wrong(key, way) {
            groups.entry(way.link).or_default().push(key);
        }
    }
    groups
}
