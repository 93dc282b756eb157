//! The part of the kernel's network state that matters here, as it was when it was read.

pub(crate) mod containers;
pub(crate) mod dirty;
pub(crate) mod events;
pub(crate) mod ipsec;
pub(crate) mod listeners;
pub(crate) mod message;
pub(crate) mod namespace;
pub(crate) mod namespace_events;
mod next_hops;
mod notification;
pub(crate) mod policy_rules;
pub(crate) mod port_holder;
pub(crate) mod read;
pub(crate) mod shaping;
pub(crate) mod sysctl;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;

use crate::{
    desired::holders::Holders, diff::change::Change, ebpf::Mac, headroom, settings::Device,
    wanted::peer::Peer,
};
use containers::{Container, FarEnd};
use ipsec::TransformPolicy;
use policy_rules::Diversion;
use shaping::Shaping;

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
    pub(crate) routes: Arc<Routes>,
    /// IPv4 neighbours on the bridge.
    pub(crate) neighbours: Vec<Neighbour>,
    /// What the bridge forwards by.
    pub(crate) forwarding: Vec<Forwarding>,
    /// Destinations, of whatever host, that some route of any table leads to over several next hops of equal cost.
    pub(crate) multipath: Arc<Vec<Ipv4Net>>,
    /// A peer that policy rules keep from being reached over the VXLAN device.
    pub(crate) diversion: Option<Diversion>,
    /// Neighbours and forwarding entries of the VXLAN device.
    pub(crate) overlay: Arc<OverlayEntries>,
    /// The kernel's way to each peer's underlay address.
    pub(crate) next_hops: Arc<NextHops>,
    /// The peers for which they were asked, and the address from which.
    pub(crate) asked_about: (Arc<BTreeMap<Ipv4Net, Peer>>, Option<Ipv4Addr>),
    /// What others have made at ports with tc(8).
    pub(crate) shaping: Shaping,
    /// Ports of our bridge that came a moment ago, where it matters whether programs stand there, and the packet filter
    /// guards them.
    pub(crate) new_ports: BTreeSet<u32>,
    /// Ports that were left free, and whose programs are on their way.
    pub(crate) awaiting_programs: BTreeSet<u32>,
    /// Whether programs are attached as filters, for which an interface needs a queueing discipline.
    pub(crate) by_filters: bool,
    /// Policies by which the kernel transforms packets.
    pub(crate) policies: Arc<Vec<TransformPolicy>>,
    /// What is at the far ends of the bridge's ports, by the ports' indexes.
    pub(crate) containers: BTreeMap<u32, Container>,
    /// Who held the containers' addresses at the last look.
    pub(crate) holders: Holders,
    /// Those of our two devices that lack a setting which they need.
    pub(crate) unsettled: BTreeSet<Device>,
    /// `net.ipv4.ip_forward`.
    pub(crate) ip_forward: bool,
    /// Whether there are programs, attached or about to be.
    pub(crate) has_programs: bool,
    /// Whether our bridge's program is known to stand. Until then, and where there is none, the packet filter
    /// judges alone what goes up to the host.
    pub(crate) bridge_has_program: bool,
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
    /// Index of its other end, if it is a veth device and that is in this network namespace (`IFLA_LINK`).
    pub(crate) near_end: Option<u32>,
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
    /// The MTU that was set for it, in bytes.
    pub(crate) mtu: Option<u32>,
}

impl Route {
    /// Whether this project made it.
    pub(crate) fn is_ours(&self) -> bool {
        self.protocol == ROUTE_PROTOCOL
    }
}

/// Routes by destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes(BTreeMap<Ipv4Net, Vec<Route>>);

impl FromIterator<Route> for Routes {
    fn from_iter<T: IntoIterator<Item = Route>>(routes: T) -> Self {
        let mut all = Self::default();
        for route in routes {
            all.add(route);
        }
        all
    }
}

impl Routes {
    /// All of them, in the order of their destinations.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.values().flatten()
    }

    /// Those to exactly that destination, in the order in which the kernel has them.
    pub(crate) fn to(&self, destination: Ipv4Net) -> &[Route] {
        self.0.get(&destination).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn add(&mut self, route: Route) {
        self.0.entry(route.destination).or_default().push(route);
    }

    /// Takes out the first of ours to a destination with that metric.
    pub(crate) fn remove_ours(&mut self, destination: Ipv4Net, metric: u32) {
        if let Some(routes) = self.0.get_mut(&destination) {
            let first = routes
                .iter()
                .position(|route| route.is_ours() && route.metric == metric);
            first.map(|first| routes.remove(first));
            if routes.is_empty() {
                self.0.remove(&destination);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn retain(&mut self, keep: impl Fn(&Route) -> bool) {
        self.0.retain(|_, routes| {
            routes.retain(&keep);
            !routes.is_empty()
        });
    }
}

/// What the VXLAN device leads by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OverlayEntries {
    pub(crate) neighbours: BTreeMap<Ipv4Addr, Neighbour>,
    /// By MAC address and where it leads: there may be several of one MAC address.
    pub(crate) forwarding: BTreeMap<(Mac, Option<Ipv4Addr>), Forwarding>,
}

impl OverlayEntries {
    pub(crate) fn new(neighbours: Vec<Neighbour>, forwarding: Vec<Forwarding>) -> Self {
        Self {
            neighbours: neighbours.into_iter().map(|it| (it.address, it)).collect(),
            forwarding: forwarding
                .into_iter()
                .map(|it| ((it.mac, it.remote), it))
                .collect(),
        }
    }

    /// The entries of a MAC address.
    pub(crate) fn of(&self, mac: Mac) -> impl Iterator<Item = &Forwarding> {
        let all = (mac, None)..=(mac, Some(Ipv4Addr::BROADCAST));
        self.forwarding.range(all).map(|(_, entry)| entry)
    }

    fn forget_forwarding(&mut self, mac: Mac) {
        let gone: Vec<_> = self
            .of(mac)
            .map(|entry| (entry.mac, entry.remote))
            .collect();
        for key in gone {
            self.forwarding.remove(&key);
        }
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
    /// The largest packet that comes through, where that is less than the interface's MTU: as somebody said of the
    /// route, or as a router has told.
    pub(crate) mtu: Option<u32>,
}

/// The kernel's ways to the peers' underlay addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NextHops {
    /// By the peer's address; one without a way is absent.
    by_peer: BTreeMap<Ipv4Addr, NextHop>,
    /// The peers that were asked about.
    peers: BTreeSet<Ipv4Addr>,
    /// Interfaces over which they lead.
    links: BTreeSet<u32>,
}

impl NextHops {
    /// What the kernel answered for each of some peers.
    pub(crate) fn new(answers: BTreeMap<Ipv4Addr, Option<NextHop>>) -> Self {
        let peers = answers.keys().copied().collect();
        let answered = answers.into_iter();
        let by_peer: BTreeMap<_, _> = answered
            .filter_map(|(peer, next_hop)| Some((peer, next_hop?)))
            .collect();
        Self {
            links: by_peer.values().map(|next_hop| next_hop.link).collect(),
            by_peer,
            peers,
        }
    }

    /// The way to a peer.
    pub(crate) fn to(&self, peer: Ipv4Addr) -> Option<&NextHop> {
        self.by_peer.get(&peer)
    }

    /// Interfaces over which ways lead.
    pub(crate) fn links(&self) -> &BTreeSet<u32> {
        &self.links
    }

    /// Whether it was asked about a peer.
    pub(crate) fn knows(&self, peer: Ipv4Addr) -> bool {
        self.peers.contains(&peer)
    }

    /// Peers that this host has no way to.
    pub(crate) fn unreachable(&self) -> Vec<Ipv4Addr> {
        if self.by_peer.len() == self.peers.len() {
            return Vec::new();
        }
        let missing = |peer: &&Ipv4Addr| !self.by_peer.contains_key(*peer);
        self.peers.iter().filter(missing).copied().collect()
    }
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
            Change::ForgetContainer { address } => {
                self.neighbours.retain(|it| it.address != *address);
            }
            Change::AddRoute(route) => Arc::make_mut(&mut self.routes).add(route.on(overlay)),
            Change::ReplaceRoute(route) => {
                let routes = Arc::make_mut(&mut self.routes);
                routes.remove_ours(route.destination, 0);
                routes.add(route.on(overlay));
            }
            Change::RemoveRoute {
                destination,
                metric,
            } => Arc::make_mut(&mut self.routes).remove_ours(*destination, *metric),
            Change::SetNeighbour { address, mac } => {
                let neighbour = Neighbour {
                    link: overlay,
                    address: *address,
                    mac: Some(*mac),
                    state: NeighbourState::Permanent,
                };
                let entries = Arc::make_mut(&mut self.overlay);
                entries.neighbours.insert(*address, neighbour);
            }
            Change::RemoveNeighbour { address } => {
                Arc::make_mut(&mut self.overlay).neighbours.remove(address);
            }
            Change::SetForwarding { mac, remote } => {
                let entry = Forwarding {
                    link: overlay,
                    mac: *mac,
                    remote: Some(*remote),
                    bridge: None,
                    permanent: true,
                    pinned: false,
                    sticky: false,
                };
                let entries = Arc::make_mut(&mut self.overlay);
                entries.forget_forwarding(*mac);
                entries.forwarding.insert((*mac, Some(*remote)), entry);
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
            Change::RemoveForwarding { mac, .. } => {
                Arc::make_mut(&mut self.overlay).forget_forwarding(*mac);
            }
            _ => {}
        }
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

    /// Whether an interface holds an address of this host, or leads to a peer.
    pub(crate) fn leads_somewhere(&self, index: u32) -> bool {
        self.addresses.iter().any(|held| held.link == index)
            || self.next_hops.links().contains(&index)
    }

    /// Ports of the bridge with that index, but for the one of ours that only asks for
    /// headroom: nothing is behind it.
    pub(crate) fn ports_of(&self, bridge: u32) -> impl Iterator<Item = &Link> {
        self.links
            .values()
            .filter(move |link| link.master == Some(bridge) && !headroom::is_ours(link))
    }
}
