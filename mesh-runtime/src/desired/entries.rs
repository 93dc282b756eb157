//! Routes, neighbours and forwarding entries over the VXLAN device: what leads to the peers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;
use mesh_layout::{ENCAPSULATION_LEN, overlay_mac};

use super::{devices::Devices, underlay::EXPECTED_MTU};
use crate::{
    ebpf::{Mac, PeerPath},
    observed::{NextHops, Observed, ROUTE_PROTOCOL, Route, Routes, ipsec::TransformPolicy},
    problem::Problem,
    settings::Settings,
    wanted::{Wanted, peer::Peer, subnet::gateway},
};

/// `RTPROT_KERNEL`: routes the kernel makes for the addresses of interfaces.
const PROTOCOL_KERNEL: u8 = 2;

/// `destination via gateway dev <overlay> onlink proto 81 src source`, as flannel has it:
/// the gateway is the network address of the peer's subnet, whose neighbour entry names the
/// peer's VXLAN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverlayRoute {
    pub(crate) destination: Ipv4Net,
    /// Preferred source of what this host itself sends.
    pub(crate) source: Ipv4Addr,
    /// The largest packet that reaches the peer, where that is less than the overlay's MTU.
    pub(crate) mtu: Option<u32>,
}

impl OverlayRoute {
    /// The next hop: the network address of the subnet.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.destination.network()
    }

    /// The route as the kernel shows it, over the VXLAN device with that index.
    pub(crate) fn on(&self, overlay: u32) -> Route {
        Route {
            destination: self.destination,
            gateway: Some(self.gateway()),
            link: Some(overlay),
            source: Some(self.source),
            metric: 0,
            protocol: ROUTE_PROTOCOL,
            onlink: true,
            unicast: true,
            mtu: self.mtu,
        }
    }
}

/// What they lean on: as long as that is the same, so are they.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Basis {
    subnet: Option<Ipv4Net>,
    /// The VXLAN device that is there.
    present: Option<u32>,
    /// Whether it stays, or is to be made; `None` if there will be none with routes over it.
    staying: Option<Option<u32>>,
    /// Addresses of earlier subnets, which take routes along, with their interface.
    stale_addresses: Vec<(u32, Ipv4Net)>,
    peers: Arc<BTreeMap<Ipv4Net, Peer>>,
    injected: Arc<BTreeSet<Ipv4Net>>,
    routes: Arc<Routes>,
    next_hops: Arc<NextHops>,
    overlay_mtu: Option<u32>,
    policies: Arc<Vec<TransformPolicy>>,
    multipath: Arc<Vec<Ipv4Net>>,
    /// This node's underlay address, and the port of VXLAN.
    outer: Option<(Ipv4Addr, u16)>,
}

/// The entries of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    basis: Basis,
    /// Routes, by destination.
    pub(crate) routes: BTreeMap<Ipv4Net, OverlayRoute>,
    /// MAC addresses of the gateways.
    pub(crate) neighbours: BTreeMap<Ipv4Addr, Mac>,
    /// Underlay addresses behind these MAC addresses.
    pub(crate) forwarding: BTreeMap<Mac, Ipv4Addr>,
    /// What the programs are told of the peers.
    pub(crate) paths: Arc<BTreeMap<Ipv4Net, PeerPath>>,
    /// Underlay addresses of the peers: who may send VXLAN to this host.
    pub(crate) vteps: Arc<BTreeSet<Ipv4Addr>>,
    /// Network addresses of the subnets that routes lead to: what may be inside.
    pub(crate) subnets: Arc<BTreeSet<Ipv4Addr>>,
    /// Destinations that a foreign route keeps from being taken: they get no entry at all.
    pub(crate) blocked: BTreeSet<Ipv4Net>,
    problems: Vec<Problem>,
}

impl Entries {
    /// The entries of a node with these devices. Those of `before` are as good while what they lean on is the
    /// same, which is quickly told: there may be thousands of them.
    pub(super) fn new(
        settings: &Settings,
        wanted: &Wanted,
        observed: &Observed,
        devices: &Devices,
        before: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let basis = Basis {
            subnet: wanted.subnet,
            present: observed
                .link_named(&settings.overlay)
                .map(|link| link.index),
            // Without the bridge's address our routes have no source, and the kernel refuses them.
            staying: match (&devices.bridge, &devices.overlay) {
                (Some(_), Some(overlay)) => Some(overlay.staying),
                _ => None,
            },
            stale_addresses: devices
                .bridge
                .as_ref()
                .map_or_else(Vec::new, |bridge| bridge.stale_addresses.clone()),
            peers: Arc::clone(&wanted.peers),
            injected: Arc::clone(&wanted.injected),
            routes: Arc::clone(&observed.routes),
            next_hops: Arc::clone(&observed.next_hops),
            overlay_mtu: devices.bridge.as_ref().and_then(|bridge| bridge.mtu),
            policies: Arc::clone(&observed.policies),
            multipath: Arc::clone(&observed.multipath),
            outer: devices.overlay.as_ref().and_then(|overlay| {
                let (local, _) = overlay.underlay?;
                Some((local, overlay.settings.vxlan_port))
            }),
        };
        match before.filter(|before| before.basis == basis) {
            Some(before) => Arc::clone(before),
            None => Arc::new(basis.entries(settings, wanted, observed)),
        }
    }

    /// What is in their way.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether there is, or will be, a VXLAN device to lead over; and the index of one that stays.
    pub(crate) fn overlay(&self) -> Option<Option<u32>> {
        self.basis.staying
    }

    /// Whether the kernel drops a route by itself when the device over which it leads is made anew.
    pub(crate) fn goes_with_device(&self, route: &Route) -> bool {
        self.basis.staying == Some(None) && self.basis.leads_over_present(route)
    }
}

impl Basis {
    fn entries(self, settings: &Settings, wanted: &Wanted, observed: &Observed) -> Entries {
        let mut entries = Entries::default();
        let Some(subnet) = self.subnet else {
            return entries;
        };
        let cluster = settings.cluster.cidr;
        let mut foreign: BTreeMap<Ipv4Net, &Route> = BTreeMap::new();
        // Ours of the preferred metric: whether one is as it should be, and how many there are.
        let mut preferred: BTreeMap<Ipv4Net, (bool, usize)> = BTreeMap::new();
        let source = gateway(subnet);
        let routes = self.routes.iter();
        for route in routes.filter(|route| cluster.contains(&route.destination)) {
            let destination = route.destination;
            let goal = OverlayRoute {
                destination,
                source,
                mtu: self.mtu(wanted, destination),
            };
            if !route.is_ours() {
                if !self.vanishes(route) {
                    foreign.entry(destination).or_insert(route);
                }
            } else if route.metric == 0 {
                let (right, count) = preferred.entry(destination).or_default();
                *right |= self
                    .staying
                    .flatten()
                    .is_some_and(|index| goal.on(index) == *route);
                *count += 1;
            }
        }
        // A node's subnets do not overlap, so the one before it is the only one that may contain it.
        let destinations = wanted.destinations();
        for (&part, &route) in &foreign {
            let containing = destinations.range(..part).next_back();
            if let Some(&destination) = containing.filter(|it| it.contains(&part)) {
                entries.problems.push(Problem::PartOfPeer {
                    destination,
                    part,
                    description: describe(route, observed),
                });
            }
        }
        for destination in destinations {
            if let Some(route) = foreign.get(&destination) {
                entries.problems.push(Problem::ForeignRoute {
                    destination,
                    description: describe(route, observed),
                });
                // A route of ours that carries traffic stays: the other one came later.
                if preferred.get(&destination) != Some(&(true, 1)) {
                    entries.blocked.insert(destination);
                    continue;
                }
            }
            let mac = overlay_mac(destination.network().octets());
            let route = OverlayRoute {
                destination,
                source,
                mtu: self.mtu(wanted, destination),
            };
            entries.neighbours.insert(route.gateway(), mac);
            entries.routes.insert(destination, route);
            if let Some(peer) = wanted.peers.get(&destination) {
                entries.forwarding.insert(mac, peer.address);
            }
        }
        let peers = self.peers.iter();
        let accepted = peers.filter(|(subnet, _)| !entries.blocked.contains(subnet));
        let path = |(&subnet, peer): (&Ipv4Net, &Peer)| {
            let path = PeerPath {
                address: peer.address,
                mtu: self.mtu(wanted, subnet).unwrap_or(0),
                kernel: self.is_transformed(peer),
                // One that another route takes away from it is asked about more often than needed, and no worse.
                multipath: self.multipath.iter().any(|net| net.contains(&peer.address)),
            };
            (subnet, path)
        };
        entries.paths = Arc::new(accepted.map(path).collect());
        let transformed = self.peers.values().filter(|peer| self.is_transformed(peer));
        let transformed: Vec<Ipv4Addr> = transformed.map(|peer| peer.address).collect();
        if !transformed.is_empty() {
            entries.problems.push(Problem::Transformed(transformed));
        }
        let narrow = |peer: &&Peer| peer.mtu.is_some_and(|mtu| mtu < EXPECTED_MTU);
        let narrow: Vec<Ipv4Addr> = self
            .peers
            .values()
            .filter(narrow)
            .map(|it| it.address)
            .collect();
        if !narrow.is_empty() {
            entries.problems.push(Problem::NarrowPeers(narrow));
        }
        entries.vteps = Arc::new(self.peers.values().map(|peer| peer.address).collect());
        entries.subnets = Arc::new(entries.routes.keys().map(Ipv4Net::network).collect());
        entries.basis = self;
        entries
    }

    /// Whether a policy of IPsec is about what goes to a peer or comes from it: no program knows what it asks for.
    fn is_transformed(&self, peer: &Peer) -> bool {
        let concerns =
            |(host, port), policy: &TransformPolicy| policy.concerns(host, peer.address, port);
        self.outer
            .is_some_and(|outer| self.policies.iter().any(|policy| concerns(outer, policy)))
    }

    /// The largest packet that reaches a peer, where that is less than the overlay's MTU: by the kernel's way to its
    /// host, and by what the peer says that it takes.
    fn mtu(&self, wanted: &Wanted, destination: Ipv4Net) -> Option<u32> {
        let peer = wanted.peers.get(&destination)?;
        let way = self.next_hops.to(peer.address).and_then(|way| way.mtu);
        // ENCAPSULATION_LEN is 50, which fits every integer. What a way does not carry is cut up on it; what the peer's
        // own card does not take is lost.
        let through = way.map(|mtu| mtu.saturating_sub(ENCAPSULATION_LEN as u32));
        let through = through.map(|mtu| mtu.max(EXPECTED_MTU));
        let least = through.into_iter().chain(peer.mtu).min()?;
        self.overlay_mtu.filter(|mtu| least < *mtu).map(|_| least)
    }

    /// Whether a route leads over the device that is there now.
    fn leads_over_present(&self, route: &Route) -> bool {
        route.link.is_some() && route.link == self.present
    }

    /// Whether the changes to the devices make the kernel drop a route: it goes with its device,
    /// and with the address it was made for or prefers as its source.
    fn vanishes(&self, route: &Route) -> bool {
        let with_device = self.staying == Some(None) && self.leads_over_present(route);
        let with_address = self.stale_addresses.iter().any(|&(link, address)| {
            let made_for_it = route.protocol == PROTOCOL_KERNEL
                && route.link == Some(link)
                && route.destination == address.trunc();
            made_for_it || route.source == Some(address.addr())
        });
        with_device || with_address
    }
}

/// A route in the words of `ip route`.
pub(crate) fn describe(route: &Route, observed: &Observed) -> String {
    let mut words = vec![route.destination.to_string()];
    if let Some(gateway) = route.gateway {
        words.push(format!("via {gateway}"));
    }
    if let Some(link) = route.link {
        words.push(format!("dev {}", observed.name_of(link)));
    }
    words.push(format!("proto {}", route.protocol));
    if route.metric != 0 {
        words.push(format!("metric {}", route.metric));
    }
    words.join(" ")
}
