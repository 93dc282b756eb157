//! What is in a container's network namespace.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use futures_util::TryStreamExt as _;
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily,
    address::AddressAttribute,
    link::{LinkAttribute, LinkFlags},
    route::{RouteAddress, RouteAttribute},
};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::inside::{InsideError, enter};

/// The kernel's number of the main routing table (`RT_TABLE_MAIN`).
const MAIN: u8 = 254;

/// Interfaces and routes of a namespace, as the kernel shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// All interfaces but loopback.
    pub interfaces: Vec<SeenInterface>,
    /// The IPv4 routes of the main table.
    pub routes: Vec<SeenRoute>,
}

/// An interface of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenInterface {
    /// Its name there.
    pub name: String,
    /// The kernel's number of it there.
    pub index: u32,
    /// Its MAC address, e.g. "02:53:0a:2a:01:02"; empty if it has none.
    pub mac: String,
    /// In bytes.
    pub mtu: u32,
    /// Whether it was brought up, and its other end on the host as well.
    pub up: bool,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Net>,
}

/// An IPv4 route of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRoute {
    /// Where to.
    pub destination: Ipv4Net,
    /// The next hop, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// Number of the interface.
    pub interface: Option<u32>,
}

impl Seen {
    /// An interface by its name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&SeenInterface> {
        self.interfaces.iter().find(|it| it.name == name)
    }

    /// Whether a route leads everywhere.
    #[must_use]
    pub fn has_default_route(&self) -> bool {
        self.routes
            .iter()
            .any(|it| it.destination.prefix_len() == 0)
    }
}

/// Looks into a namespace, which takes root.
///
/// # Errors
///
/// [`InsideError`].
pub async fn look(namespace: &Path) -> Result<Seen, InsideError> {
    let path = namespace.to_owned();
    enter(namespace, async move |handle| {
        let seen = read(&handle).await;
        seen.map_err(|error| InsideError::Step {
            path,
            step: "see what is there".to_owned(),
            reason: error.to_string(),
        })
    })
    .await
}

async fn read(handle: &Handle) -> Result<Seen, rtnetlink::Error> {
    let mut seen = Seen::default();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        if link.header.flags.contains(LinkFlags::Loopback) {
            continue;
        }
        let mut interface = SeenInterface {
            index: link.header.index,
            up: (link.header.flags).contains(LinkFlags::Up | LinkFlags::LowerUp),
            ..SeenInterface::default()
        };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
                LinkAttribute::Address(bytes) => {
                    let digits: Vec<_> = bytes.iter().map(|it| format!("{it:02x}")).collect();
                    interface.mac = digits.join(":");
                }
                _ => {}
            }
        }
        seen.interfaces.push(interface);
    }
    let mut addresses = handle.address().get().execute();
    while let Some(address) = addresses.try_next().await? {
        if address.header.family != AddressFamily::Inet {
            continue;
        }
        let local = address.attributes.iter().find_map(|it| match it {
            AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
            _ => None,
        });
        let interface = seen
            .interfaces
            .iter_mut()
            .find(|it| it.index == address.header.index);
        if let (Some(local), Some(interface)) = (local, interface)
            && let Ok(local) = Ipv4Net::new(local, address.header.prefix_len)
        {
            interface.addresses.push(local);
        }
    }
    let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let mut routes = handle.route().get(all).execute();
    while let Some(route) = routes.try_next().await? {
        if route.header.table != MAIN {
            continue;
        }
        let mut seen_route = SeenRoute {
            destination: Ipv4Net::default(),
            gateway: None,
            interface: None,
        };
        let mut destination = Ipv4Addr::UNSPECIFIED;
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = address,
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => {
                    seen_route.gateway = Some(gateway);
                }
                RouteAttribute::Oif(index) => seen_route.interface = Some(index),
                _ => {}
            }
        }
        let length = route.header.destination_prefix_length;
        if let Ok(destination) = Ipv4Net::new(destination, length) {
            seen_route.destination = destination;
            seen.routes.push(seen_route);
        }
    }
    Ok(seen)
}
