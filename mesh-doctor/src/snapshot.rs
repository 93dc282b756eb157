//! What there is on a host, as far as it matters for the mesh. Plain data.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// The kernel's name of its kind; empty for hardware.
    pub(crate) kind: String,
    /// `None` for what has no 6-byte hardware address.
    pub(crate) mac: Option<Mac>,
    /// Index of the bridge or bond that it is a port of.
    pub(crate) master: Option<u32>,
    /// VNI and UDP port of a VXLAN device.
    pub(crate) vxlan: Option<(u32, u16)>,
    /// Outer source address of a VXLAN device.
    pub(crate) local: Option<Ipv4Addr>,
    /// Whether it is the host's own loopback.
    pub(crate) loopback: bool,
}

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) link: u32,
    pub(crate) address: Ipv4Net,
}

/// A neighbour of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) link: u32,
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: Mac,
}

/// A forwarding entry of the overlay device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forwarding {
    pub(crate) mac: Mac,
    pub(crate) remote: Ipv4Addr,
}

/// A route over the overlay device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverlayRoute {
    pub(crate) destination: Ipv4Net,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// `RTPROT_*`.
    pub(crate) protocol: u8,
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// `None` where it goes nowhere: no route, or one that drops.
    pub(crate) link: Option<u32>,
    /// The table whose route decides; 0 where it is not known.
    pub(crate) table: u32,
}

/// What is read of the host's network over netlink without any privilege.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) links: BTreeMap<u32, Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) forwarding: Vec<Forwarding>,
    pub(crate) overlay_routes: Vec<OverlayRoute>,
    /// Policy rules for IPv4 but for the three that every host has.
    pub(crate) rules: usize,
}

impl Network {
    /// Name of an interface.
    pub(crate) fn name_of(&self, index: u32) -> String {
        let link = self.links.get(&index);
        link.map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }

    /// Its first holder of an address.
    pub(crate) fn holders(&self, address: Ipv4Addr) -> impl Iterator<Item = &Address> {
        let held = self.addresses.iter();
        held.filter(move |it| it.address.addr() == address)
    }
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its host's name, or its subnet where that is not known.
    pub(crate) name: String,
    pub(crate) subnet: Ipv4Net,
    /// Its host's address on the underlay.
    pub(crate) address: Ipv4Addr,
}

/// What of a host is the mesh's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mesh {
    /// Index of the VXLAN device.
    pub(crate) overlay: Option<u32>,
    /// Index of the bridge.
    pub(crate) bridge: Option<u32>,
    /// The node's subnet.
    pub(crate) subnet: Option<Ipv4Net>,
    /// The node's address on the underlay.
    pub(crate) host_address: Option<Ipv4Addr>,
    /// Addresses of containers of this node.
    pub(crate) containers: Vec<Ipv4Addr>,
    /// UDP port of VXLAN.
    pub(crate) port: u16,
    pub(crate) peers: Vec<Peer>,
}

impl Mesh {
    /// Whether an interface is one of the mesh's two.
    pub(crate) fn has(&self, index: u32) -> bool {
        [self.overlay, self.bridge].contains(&Some(index))
    }

    /// The interface that holds the node's address on the underlay, and with which prefix.
    pub(crate) fn underlay<'a>(&self, network: &'a Network) -> Option<&'a Address> {
        let mut holders = network.holders(self.host_address?);
        holders.find(|held| !self.has(held.link))
    }

    /// The interfaces over which VXLAN goes: that of the node's address, and those over which peers are reached.
    pub(crate) fn underlays(&self, network: &Network, ways: &Ways) -> BTreeSet<u32> {
        let held = self.underlay(network).map(|held| held.link);
        let reached = ways.to_hosts.values().filter_map(|way| way.link);
        held.into_iter()
            .chain(reached)
            .filter(|index| !self.has(*index))
            .collect()
    }
}

/// Where the kernel sends what is for peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// What containers send, by the peer's subnet.
    pub(crate) to_containers: BTreeMap<Ipv4Net, Way>,
    /// VXLAN, by the peer's address.
    pub(crate) to_hosts: BTreeMap<Ipv4Addr, Way>,
    /// What the host itself would answer to a peer, as strict filtering asks, by the peer's address.
    pub(crate) back: BTreeMap<Ipv4Addr, Way>,
    /// What is for containers of this node, by their addresses.
    pub(crate) to_own: BTreeMap<Ipv4Addr, Way>,
    /// What containers send to the outside.
    pub(crate) outside: Option<Way>,
}
