//! The part of the kernel's network state that matters here, as it was when it was read.

pub(crate) mod containers;
pub(crate) mod events;
pub(crate) mod listeners;
pub(crate) mod namespace;
pub(crate) mod namespace_events;
pub(crate) mod port_holder;
pub(crate) mod read;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use crate::{
    desired::holders::Holders, diff::change::Change, ebpf::Mac, headroom, settings::Device,
};
use containers::{Container, FarEnd};

/// Routing protocol number of the routes this project makes (`RTPROT_*`, `rtm_protocol`).
///
/// It is how our routes are told from others': `ip route show proto 81` lists them. The
/// number is `0x51`, which neither the kernel's `rtnetlink.h` nor iproute2's `rt_protos`
/// assigns.
pub const ROUTE_PROTOCOL: u8 = 0x51;

/// What the kernel shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Interfaces by index.
    pub(crate) links: BTreeMap<u32, Link>,
    /// IPv4 addresses.
    pub(crate) addresses: Vec<Address>,
    /// IPv4 routes of the main table: defaults, and those inside the cluster's network.
    pub(crate) routes: Vec<Route>,
    /// IPv4 neighbours.
    pub(crate) neighbours: Vec<Neighbour>,
    /// Forwarding database entries of bridges and VXLAN devices.
    pub(crate) forwarding: Vec<Forwarding>,
    /// The kernel's way to each peer's underlay address; an address without a way is absent.
    pub(crate) next_hops: BTreeMap<Ipv4Addr, NextHop>,
    /// What is at the far ends of the bridge's ports, by the ports' indexes.
    pub(crate) containers: BTreeMap<u32, Container>,
    /// Who held the containers' addresses at the last look.
    pub(crate) holders: Holders,
    /// Those of our two devices on which the host would take IPv6 routes or addresses from what
    /// arrives.
    pub(crate) trusting: BTreeSet<Device>,
    /// `net.ipv4.ip_forward`.
    pub(crate) ip_forward: bool,
    /// Where the programs stand.
    pub(crate) programs: Programs,
}

/// Where the programs stand: the packet filter guards for those that are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Programs {
    /// They are being loaded.
    #[default]
    Pending,
    /// They are loaded, and attached or about to be.
    Loaded,
    /// There are none, and there will be none.
    Missing,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: LinkKind,
    /// `None` for what has no 6-byte hardware address.
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    /// Index of the bridge or bond it is a port of.
    pub(crate) master: Option<u32>,
    /// Its other end, if that is in another network namespace (`IFLA_LINK_NETNSID`).
    pub(crate) far_end: Option<FarEnd>,
    /// Whether it is a bridge that filters VLANs, and so takes tags off and puts them on.
    pub(crate) filters_vlans: bool,
    /// Whether its bridge gives it its own frames back.
    pub(crate) hairpin: bool,
}

/// What sort of device an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    Bridge,
    Vxlan(Vxlan),
    Veth,
    /// Anything else, by the kernel's name; empty for hardware.
    Other(String),
}

impl LinkKind {
    /// What to call it in a message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Bridge => "a bridge".to_owned(),
            Self::Vxlan(vxlan) => format!("a vxlan device with VNI {}", vxlan.vni),
            Self::Veth => "a veth device".to_owned(),
            Self::Other(kind) if kind.is_empty() => "a hardware device".to_owned(),
            Self::Other(kind) => format!("a device of kind {kind}"),
        }
    }
}

/// Attributes of a VXLAN device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vxlan {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    /// Outer source address; `None` if unset or IPv6.
    pub(crate) local: Option<Ipv4Addr>,
    pub(crate) learning: bool,
    /// Whether outer packets carry a UDP checksum.
    pub(crate) checksum: bool,
    /// Index of the underlay interface it is bound to.
    pub(crate) lower: Option<u32>,
    /// Whether the tunnel key comes with each packet (`external`).
    pub(crate) external: bool,
    /// Whether unknown destinations go to a remote or multicast group.
    pub(crate) default_remote: bool,
}

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) link: u32,
    pub(crate) address: Ipv4Net,
    /// Whether its scope is global, so that it may be used beyond this link.
    pub(crate) global: bool,
}

/// An IPv4 route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) destination: Ipv4Net,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// `None` for a route that leads nowhere or over several interfaces.
    pub(crate) link: Option<u32>,
    pub(crate) source: Option<Ipv4Addr>,
    /// `RTA_PRIORITY`; smaller is preferred.
    pub(crate) metric: u32,
    pub(crate) protocol: u8,
    pub(crate) onlink: bool,
    /// Whether it is a plain unicast route with one next hop.
    pub(crate) unicast: bool,
}

impl Route {
    /// Whether this project made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.protocol == ROUTE_PROTOCOL
    }
}

/// An IPv4 neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) link: u32,
    pub(crate) address: Ipv4Addr,
    /// `None` while it is not resolved.
    pub(crate) mac: Option<Mac>,
    pub(crate) state: NeighbourState,
}

/// What a neighbour entry is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NeighbourState {
    /// Set by somebody, and stays.
    Permanent,
    /// Learnt and usable: `REACHABLE`, `STALE`, `DELAY` or `PROBE`.
    Learnt,
    /// Being resolved, failed, or an address that needs no resolution.
    Unusable,
}

/// An entry of a forwarding database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forwarding {
    /// The VXLAN device, or the port of a bridge.
    pub(crate) link: u32,
    pub(crate) mac: Mac,
    /// The underlay address behind the MAC, on a VXLAN device.
    pub(crate) remote: Option<Ipv4Addr>,
    /// The bridge, for entries that a bridge holds.
    pub(crate) bridge: Option<u32>,
    /// Whether it is a port's own address, or on a VXLAN device one that stays.
    pub(crate) permanent: bool,
    /// Whether somebody has set it, and the bridge does not forget it (`NUD_NOARP`).
    pub(crate) pinned: bool,
    /// Whether the bridge does not learn it elsewhere either (`NTF_STICKY`).
    pub(crate) sticky: bool,
}

/// Where the kernel sends packets for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextHop {
    /// The neighbour: the address itself or a gateway.
    pub(crate) address: Ipv4Addr,
    /// Index of the interface.
    pub(crate) link: u32,
}

impl Observed {
    /// The interface of that name.
    pub(crate) fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// Keeps what was read in step with a change of an entry that the kernel has taken: its
    /// notifications of changes of our own are not looked at. Changes of devices have too
    /// many consequences and are read again.
    pub(crate) fn note(&mut self, overlay: u32, change: &Change) {
        match change {
            Change::ForgetContainer { address } => self
                .neighbours
                .retain(|it| it.link == overlay || it.address != *address),
            Change::AddRoute(route) => self.routes.push(route.on(overlay)),
            Change::ReplaceRoute(route) => {
                self.forget_route(route.destination, 0);
                self.routes.push(route.on(overlay));
            }
            Change::RemoveRoute {
                destination,
                metric,
            } => self.forget_route(*destination, *metric),
            Change::SetNeighbour { address, mac } => {
                self.forget_neighbour(overlay, *address);
                self.neighbours.push(Neighbour {
                    link: overlay,
                    address: *address,
                    mac: Some(*mac),
                    state: NeighbourState::Permanent,
                });
            }
            Change::RemoveNeighbour { address } => self.forget_neighbour(overlay, *address),
            Change::SetForwarding { mac, remote } => {
                self.forget_forwarding(overlay, *mac);
                self.forwarding.push(Forwarding {
                    link: overlay,
                    mac: *mac,
                    remote: Some(*remote),
                    bridge: None,
                    permanent: true,
                    pinned: false,
                    sticky: false,
                });
            }
            Change::PinContainer { mac, port } => {
                let bridge = self.links.get(port).and_then(|link| link.master);
                self.forget_pins(bridge, *mac);
                self.forwarding.push(Forwarding {
                    link: *port,
                    mac: *mac,
                    remote: None,
                    bridge,
                    permanent: false,
                    pinned: true,
                    sticky: true,
                });
            }
            Change::UnpinContainer { mac, port } => {
                let bridge = self.links.get(port).and_then(|link| link.master);
                self.forget_pins(bridge, *mac);
            }
            Change::GiveBack { port } => {
                if let Some(port) = self.links.get_mut(port) {
                    port.hairpin = true;
                }
            }
            Change::RemoveForwarding { mac, .. } => self.forget_forwarding(overlay, *mac),
            _ => {}
        }
    }

    fn forget_route(&mut self, destination: Ipv4Net, metric: u32) {
        let same = |route: &Route| {
            route.is_ours() && route.destination == destination && route.metric == metric
        };
        if let Some(first) = self.routes.iter().position(same) {
            self.routes.remove(first);
        }
    }

    fn forget_neighbour(&mut self, link: u32, address: Ipv4Addr) {
        self.neighbours
            .retain(|it| it.link != link || it.address != address);
    }

    fn forget_forwarding(&mut self, link: u32, mac: Mac) {
        self.forwarding
            .retain(|it| it.link != link || it.mac != mac || it.bridge.is_some());
    }

    /// Forgets what a bridge has of a MAC address but for a port's own.
    fn forget_pins(&mut self, bridge: Option<u32>, mac: Mac) {
        self.forwarding
            .retain(|it| bridge.is_none() || it.bridge != bridge || it.mac != mac || it.permanent);
    }

    /// Name of an interface, for messages.
    pub(crate) fn name_of(&self, index: u32) -> String {
        self.links
            .get(&index)
            .map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }

    /// Ports of the bridge with that index, but for the one of ours that only asks for
    /// headroom: nothing is behind it.
    pub(crate) fn ports_of(&self, bridge: u32) -> impl Iterator<Item = &Link> {
        self.links
            .values()
            .filter(move |link| link.master == Some(bridge) && !headroom::is_ours(link))
    }
}
