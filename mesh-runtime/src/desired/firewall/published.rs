//! Ports of the host by which containers are reached, as elements of maps and sets.
//!
//! A range is one element a port: no map of the packet filter keeps an offset.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use mesh_ipam::{Protocol, Published};

use super::Element;

/// A port of this host: its address (`None` for all of its own), the protocol, and the number.
type Door = (Option<Ipv4Addr>, Protocol, u16);

/// Where each leads: to a container and its port.
pub(super) type Doors = BTreeMap<Door, (Ipv4Addr, u16)>;

/// From a port of this host, whatever its address, to one of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Publication {
    pub(super) protocol: Protocol,
    pub(super) host_port: u16,
    pub(super) container: Ipv4Addr,
    pub(super) container_port: u16,
}

impl Publication {
    /// Protocol and port as the kernel compares them: in network byte order, each filled up to four
    /// bytes.
    pub(super) fn from(&self) -> Vec<u8> {
        let protocol = match self.protocol {
            Protocol::Tcp => libc::IPPROTO_TCP,
            Protocol::Udp => libc::IPPROTO_UDP,
        };
        [[protocol as u8, 0, 0, 0], port(self.host_port)].concat()
    }

    /// Container and port, in the same way.
    pub(super) fn to(&self) -> Vec<u8> {
        [self.container.octets(), port(self.container_port)].concat()
    }
}

fn port(number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [high, low, 0, 0]
}

/// The ports one by one, of containers of `subnet`. Of two containers that want one, the lower address
/// has it. The overlay's own port is nobody's: other nodes' packets come to it.
pub(super) fn doors(
    published: &BTreeSet<(Ipv4Addr, Published)>,
    subnet: Ipv4Net,
    vxlan_port: u16,
) -> Doors {
    let mut doors = Doors::new();
    for (container, range) in published {
        let ports = (0..range.count).filter_map(|offset| {
            let host = range.host_port.checked_add(offset)?;
            Some((host, range.container_port.checked_add(offset)?))
        });
        for (host, inside) in ports {
            let overlay = range.protocol == Protocol::Udp && host == vxlan_port;
            if subnet.contains(container) && !overlay {
                let door = (range.host_address, range.protocol, host);
                doors.entry(door).or_insert((*container, inside));
            }
        }
    }
    doors
}

/// Whether any is reached by an address of loopback.
pub(super) fn by_loopback(doors: &Doors) -> bool {
    let mut addresses = doors.keys().map(|(address, ..)| address);
    addresses.any(|address| address.is_none_or(|it| it.is_loopback()))
}

/// Each publication, with the address of the host that it begins at.
pub(super) fn each(doors: &Doors) -> impl Iterator<Item = (Option<Ipv4Addr>, Publication)> {
    doors.iter().map(|(&(address, protocol, host_port), to)| {
        let &(container, container_port) = to;
        let publication = Publication {
            protocol,
            host_port,
            container,
            container_port,
        };
        (address, publication)
    })
}

/// The elements of the map for one address of the host each, or of that for all.
pub(super) fn elements(doors: &Doors, of_one_address: bool) -> BTreeSet<Element> {
    each(doors)
        .filter(|(address, _)| address.is_some() == of_one_address)
        .map(|(address, publication)| Element::Door(publication, address))
        .collect()
}
