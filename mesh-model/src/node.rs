//! What a node knows when a packet arrives: the contents of the maps, and its devices.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use mesh_layout::{
    CONFIG_GUARD_ONLY, CONFIG_GUARD_TAGGED, Config, ENDPOINT_KERNEL, Endpoint, EndpointKey,
    MacHolder, MacKey, PORT_KERNEL, PORT_STRICT, PassReason, Peer, PeerKey, PortKey, StrictPort,
    Underlay, UnderlayKey, Vtep, VtepKey,
};

/// The way from a node to an underlay address, as the kernel's routing has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the interface.
    pub link: u32,
    /// The neighbour there: the address itself or a gateway.
    pub next_hop: Ipv4Addr,
    /// The largest packet that it takes, in bytes.
    pub mtu: u32,
}

/// A node's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's own entry.
    pub config: Config,
    /// What the kernel says of the way to peers, by their underlay address; those it has no route to are
    /// missing.
    pub ways: BTreeMap<Ipv4Addr, Way>,
    /// Interfaces by which packets may leave.
    pub underlays: BTreeMap<UnderlayKey, Underlay>,
    /// What the kernel takes for itself although it is not the node's underlay address: other
    /// addresses of the host, broadcast addresses.
    pub local: BTreeSet<Ipv4Addr>,
    /// Peers by the network address of their subnet.
    pub peers: BTreeMap<PeerKey, Peer>,
    /// Peers by their underlay address.
    pub vteps: BTreeMap<VtepKey, Vtep>,
    /// Containers of this node.
    pub endpoints: BTreeMap<EndpointKey, Endpoint>,
    /// Ports by the MAC address behind them.
    pub macs: BTreeMap<MacKey, MacHolder>,
    /// Ports of registered containers.
    pub strict_ports: BTreeMap<PortKey, StrictPort>,
    /// Indices of the interfaces that there are. Entries may name others: they outlive a
    /// container until somebody removes them.
    pub links: BTreeSet<u32>,
}

impl Node {
    /// The network address of the subnet that `address` would be in.
    fn subnet_of(&self, address: Ipv4Addr) -> [u8; 4] {
        (address & Ipv4Addr::from(self.config.mask)).octets()
    }

    /// Whether the address lies in this node's subnet.
    pub fn owns(&self, address: Ipv4Addr) -> bool {
        self.subnet_of(address) == self.config.subnet
    }

    /// The peer in whose subnet the address lies.
    pub fn peer(&self, address: Ipv4Addr) -> Option<&Peer> {
        self.peers.get(&PeerKey {
            subnet: self.subnet_of(address),
        })
    }

    /// The peer with this underlay address.
    pub fn vtep(&self, address: Ipv4Addr) -> Option<&Vtep> {
        self.vteps.get(&VtepKey {
            address: address.octets(),
        })
    }

    /// The container with this address, if its interface is known.
    pub fn endpoint(&self, address: Ipv4Addr) -> Option<&Endpoint> {
        self.endpoints.get(&EndpointKey {
            address: address.octets(),
        })
    }

    /// The container with this address, if its interface is known and there, and not left to the kernel path.
    pub fn deliverable(&self, address: Ipv4Addr) -> Result<&Endpoint, PassReason> {
        let endpoint = self.endpoint(address).ok_or(PassReason::NoEndpoint)?;
        if endpoint.flags & ENDPOINT_KERNEL != 0 {
            return Err(PassReason::LeftToKernel);
        }
        match self.exists(endpoint.link) {
            true => Ok(endpoint),
            false => Err(PassReason::NoEndpoint),
        }
    }

    /// The port behind which a MAC address is known to be.
    pub fn port_of(&self, mac: [u8; 6]) -> Option<u32> {
        let holder = self.macs.get(&MacKey { mac, pad: [0; 2] })?;
        Some(holder.link)
    }

    /// Whether a registered container is behind a port.
    pub fn is_strict(&self, link: u32) -> bool {
        self.port_flags(link) & PORT_STRICT != 0
    }

    /// Whether what comes by a port is left to the kernel path.
    pub fn is_left_to_kernel(&self, link: u32) -> bool {
        self.port_flags(link) & PORT_KERNEL != 0
    }

    fn port_flags(&self, link: u32) -> u32 {
        let port = self.strict_ports.get(&PortKey { link });
        port.map_or(0, |port| port.flags)
    }

    /// The way to an address that packets may leave by.
    pub fn way(&self, address: Ipv4Addr) -> Option<Way> {
        let way = *self.ways.get(&address)?;
        let key = UnderlayKey { link: way.link };
        self.underlays.contains_key(&key).then_some(way)
    }

    /// Whether an interface is still there.
    pub fn exists(&self, link: u32) -> bool {
        self.links.contains(&link)
    }

    /// The address of this node's containers' gateway: the first of the subnet.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from_be_bytes(self.config.subnet) + 1)
    }

    /// Whether a container of the mesh may have that address: it lies in a node's subnet, is not
    /// the node's own, and does not mean everybody there.
    pub fn may_be_a_container(&self, address: Ipv4Addr) -> bool {
        let hosts = !u32::from_be_bytes(self.config.mask);
        let host = u32::from(address) & hosts;
        let special = [0, 1, hosts].contains(&host);
        !special && (self.owns(address) || self.peer(address).is_some())
    }

    /// Whether the address means its whole subnet, or everybody there.
    pub fn is_everybodys(&self, address: Ipv4Addr) -> bool {
        let hosts = !u32::from_be_bytes(self.config.mask);
        [0, hosts].contains(&(u32::from(address) & hosts))
    }

    /// Whether frames of a VLAN are judged like those of none.
    pub fn guards_tagged(&self) -> bool {
        self.config.flags & CONFIG_GUARD_TAGGED != 0
    }

    /// Whether the programs are to guard and to forward nothing.
    pub fn guards_only(&self) -> bool {
        self.config.flags & CONFIG_GUARD_ONLY != 0
    }

    /// Whether the kernel would route packets to this address on, given that it has a route
    /// for every address that may be routed.
    pub fn forwards(&self, address: Ipv4Addr) -> bool {
        let [first, ..] = address.octets();
        // "This network", loopback, multicast and above (RFC 6890).
        let special = first == 0 || first == 127 || first >= 224;
        !special && address != self.host_address() && !self.local.contains(&address)
    }

    /// This node's underlay address.
    pub fn host_address(&self) -> Ipv4Addr {
        self.config.host_address.into()
    }
}
