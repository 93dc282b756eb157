//! What the tables should hold, from settings, wanted and observed state. Pure.

mod datagrams;
mod element;
mod passages;
mod published;
mod rule_text;
#[cfg(test)]
mod tests;
mod text;
mod translation;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;
use mesh_layout::PRIORITY_ANOTHERS_CLAIM;

use super::{Desired, underlay::Underlay};
use crate::{
    ebpf::Mac,
    observed::{Link, LinkKind, Observed},
    settings::Settings,
    wanted::{Wanted, node_settings::NodeSettings},
};
use element::Element;
pub(crate) use element::Raw;
use published::{Doors, doors};

/// The rules of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    /// What the rules are made of; a change of it writes the tables anew.
    frame: Frame,
    /// What the sets hold; a change of it changes elements alone.
    pub(crate) sets: Sets,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    bridge: String,
    overlay: String,
    cluster: Ipv4Net,
    subnet: Ipv4Net,
    bridge_mac: Mac,
    /// This node's address on the underlay, once it is known.
    host_address: Option<Ipv4Addr>,
    /// UDP port and VNI.
    settings: NodeSettings,
    routed_from: BTreeSet<Ipv4Net>,
    /// Whether containers go out under the host's address.
    masquerade: bool,
    /// Whether our bridge takes VLAN tags off.
    filters_vlans: bool,
    /// Whether our bridge may route loopback, so that published ports are reached by 127.0.0.1: one that somebody else
    /// made is left as it is.
    routes_loopback: bool,
    /// Whether addresses are left as they are and nothing is counted by name, for a kernel that can do neither.
    guards_alone: bool,
}

/// What the named sets hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    /// Underlay addresses of peers: who may send VXLAN to this host.
    peers: Arc<BTreeSet<Ipv4Addr>>,
    /// Network addresses of peers' subnets: what may be inside.
    subnets: Arc<BTreeSet<Ipv4Addr>>,
    /// Interfaces over which peers are believed wherever the way to them leads.
    uplinks: BTreeSet<String>,
    /// Bridges of other containers on this host.
    bridges: BTreeSet<String>,
    /// Bridges of this host's other guests, which may speak to other nodes' containers.
    guests: BTreeSet<String>,
    /// Ports of our bridge.
    ports: BTreeSet<u32>,
    /// Addresses that containers hold, each with its port.
    held: BTreeMap<Ipv4Addr, u32>,
    /// Their MAC addresses.
    macs: BTreeMap<Mac, u32>,
    /// Ports that may send from no others than those.
    strict: BTreeSet<u32>,
    /// Ports whose packets no program of ours may see.
    bare: BTreeSet<u32>,
    /// Marks of frames that go no further than the rules, because no program at the bridge judges them.
    refused: BTreeSet<u32>,
    /// Ports of this host by which containers are reached.
    doors: Doors,
}

/// How many rules there are, and the elements of each named set, as the kernel compares them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) rules: usize,
    pub(crate) elements: BTreeMap<&'static str, BTreeSet<Vec<u8>>>,
}

/// A named set or map: its family, name and type, and how to get its elements.
pub(crate) struct NamedSet {
    pub(crate) family: &'static str,
    pub(crate) name: &'static str,
    kind: &'static str,
    /// Whether two have the same of what its elements are made of.
    same: fn(&Sets, &Sets) -> bool,
    elements: fn(&Sets) -> BTreeSet<Element>,
}

impl NamedSet {
    /// What nft calls it.
    fn what(&self) -> &'static str {
        match self.kind.contains(" : ") {
            true => "map",
            false => "set",
        }
    }
}

/// Elements of a set that come or go.
pub(crate) struct ElementChange {
    pub(crate) family: &'static str,
    pub(crate) set: &'static str,
    pub(crate) add: bool,
    pub(crate) elements: Vec<Raw>,
}

pub(crate) const SETS: [NamedSet; 15] = [
    NamedSet {
        family: "inet",
        name: "peers",
        kind: "ipv4_addr",
        same: |one, other| one.peers == other.peers,
        elements: |sets| elements(&*sets.peers, |&address| Element::Address(address)),
    },
    NamedSet {
        family: "inet",
        name: "subnets",
        kind: "ipv4_addr",
        same: |one, other| one.subnets == other.subnets,
        elements: |sets| elements(&*sets.subnets, |&address| Element::Address(address)),
    },
    NamedSet {
        family: "inet",
        name: "uplinks",
        kind: "ifname",
        same: |one, other| one.uplinks == other.uplinks,
        elements: |sets| elements(&sets.uplinks, |name| Element::Interface(name.clone())),
    },
    NamedSet {
        family: "inet",
        name: "bridges",
        kind: "ifname",
        same: |one, other| one.bridges == other.bridges,
        elements: |sets| elements(&sets.bridges, |name| Element::Interface(name.clone())),
    },
    NamedSet {
        family: "inet",
        name: "guests",
        kind: "ifname",
        same: |one, other| one.guests == other.guests,
        elements: |sets| elements(&sets.guests, |name| Element::Interface(name.clone())),
    },
    NamedSet {
        family: "inet",
        name: "published",
        kind: "inet_proto . inet_service : ipv4_addr . inet_service",
        same: |one, other| one.doors == other.doors,
        elements: |sets| published::elements(&sets.doors, false),
    },
    NamedSet {
        family: "inet",
        name: "published_at",
        kind: "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
        same: |one, other| one.doors == other.doors,
        elements: |sets| published::elements(&sets.doors, true),
    },
    NamedSet {
        family: "bridge",
        name: "ports",
        kind: "iface_index",
        same: |one, other| one.ports == other.ports,
        elements: |sets| elements(&sets.ports, |&port| Element::Port(port)),
    },
    NamedSet {
        family: "bridge",
        name: "held",
        kind: "ipv4_addr",
        same: |one, other| one.held == other.held,
        elements: |sets| elements(&sets.held, |(&address, _)| Element::Address(address)),
    },
    NamedSet {
        family: "bridge",
        name: "holders",
        kind: "iface_index . ipv4_addr",
        same: |one, other| one.held == other.held,
        elements: |sets| {
            elements(&sets.held, |(&address, &port)| {
                Element::Holder(port, address)
            })
        },
    },
    NamedSet {
        family: "bridge",
        name: "macs",
        kind: "ether_addr",
        same: |one, other| one.macs == other.macs,
        elements: |sets| elements(&sets.macs, |(&mac, _)| Element::Mac(mac)),
    },
    NamedSet {
        family: "bridge",
        name: "mac_holders",
        kind: "iface_index . ether_addr",
        same: |one, other| one.macs == other.macs,
        elements: |sets| elements(&sets.macs, |(&mac, &port)| Element::MacHolder(port, mac)),
    },
    NamedSet {
        family: "bridge",
        name: "strict",
        kind: "iface_index",
        same: |one, other| one.strict == other.strict,
        elements: |sets| elements(&sets.strict, |&port| Element::Port(port)),
    },
    NamedSet {
        family: "bridge",
        name: "bare",
        kind: "iface_index",
        same: |one, other| one.bare == other.bare,
        elements: |sets| elements(&sets.bare, |&port| Element::Port(port)),
    },
    NamedSet {
        family: "bridge",
        name: "refused",
        kind: "classid",
        same: |one, other| one.refused == other.refused,
        elements: |sets| elements(&sets.refused, |&mark| Element::Mark(mark)),
    },
];

fn elements<T: IntoIterator>(all: T, element: fn(T::Item) -> Element) -> BTreeSet<Element> {
    all.into_iter().map(element).collect()
}

/// Whether a name means itself between quotation marks: nft knows no way to escape one, and takes
/// an asterisk for a pattern. Others' interfaces may be named as they like.
fn is_plain(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-:@+".contains(&byte))
}

pub(crate) use datagrams::{ChangedPublications, Flow};
pub(crate) use passages::Passage;
pub(crate) use translation::MASQUERADED;

impl Ruleset {
    /// The rules for a node; `None` until it has a subnet and its bridge.
    pub(crate) fn new(
        settings: &Settings,
        wanted: &Wanted,
        observed: &Observed,
        desired: &Desired,
    ) -> Option<Self> {
        let subnet = wanted.subnet?;
        let bridge = observed
            .link_named(&settings.bridge)
            .filter(|link| link.kind == LinkKind::Bridge)?;
        let underlay = desired.underlay.as_ref();
        let containers = &desired.containers;
        let ports = observed.ports_of(bridge.index).map(|port| port.index);
        Some(Self {
            frame: Frame {
                bridge: settings.bridge.clone(),
                overlay: settings.overlay.clone(),
                cluster: settings.cluster.cidr,
                subnet,
                bridge_mac: bridge.mac?,
                host_address: underlay.map(|underlay| underlay.address),
                settings: wanted.node_settings,
                routed_from: settings.routed_from.clone(),
                masquerade: settings.masquerade,
                filters_vlans: bridge.filters_vlans,
                routes_loopback: desired.devices.bridge.as_ref().is_some_and(|it| it.own),
                guards_alone: false,
            },
            sets: Sets {
                peers: Arc::clone(&desired.entries.vteps),
                subnets: Arc::clone(&desired.entries.subnets),
                uplinks: uplinks(observed, underlay),
                bridges: underlay.map_or_else(BTreeSet::new, |underlay| {
                    container_bridges(observed, underlay, bridge.index)
                }),
                guests: underlay.map_or_else(BTreeSet::new, |underlay| {
                    guest_bridges(observed, underlay, bridge.index)
                }),
                ports: ports.collect(),
                held: containers
                    .endpoints
                    .iter()
                    .filter(|(_, path)| path.held)
                    .map(|(&address, path)| (address, path.link))
                    .collect(),
                macs: containers.macs.clone(),
                strict: containers.strict_ports.clone(),
                bare: containers.bare_ports.clone(),
                // The bridge's program knows whether the port is still there that has what is claimed; the
                // rules alone cannot tell a container made again from a thief. With a daemon they can: it tells
                // them of both at once.
                refused: match observed.bridge_has_program {
                    true => BTreeSet::new(),
                    false => [PRIORITY_ANOTHERS_CLAIM].into(),
                },
                doors: doors(&wanted.published, subnet, wanted.node_settings.vxlan_port),
            },
        })
    }

    /// The rules for a kernel that cannot translate addresses: it guards all the same.
    pub(crate) fn guards_alone(mut self) -> Self {
        self.frame.guards_alone = true;
        self
    }

    /// The bridge that has to route loopback for what these rules lead by it; `None` where they lead nothing, or the
    /// bridge is none of ours.
    pub(crate) fn routes_loopback(&self) -> Option<&str> {
        let Frame {
            bridge,
            routes_loopback,
            guards_alone,
            ..
        } = &self.frame;
        let needed = *routes_loopback && !guards_alone && published::by_loopback(&self.sets.doors);
        needed.then_some(bridge)
    }

    /// The name of our bridge.
    pub(crate) fn bridge(&self) -> &str {
        &self.frame.bridge
    }

    /// Whether VXLAN from that address passes.
    pub(crate) fn takes_from(&self, peer: Ipv4Addr) -> bool {
        self.sets.peers.contains(&peer)
    }

    /// Whether a port sends from what is registered of it alone.
    pub(crate) fn is_strict(&self, port: u32) -> bool {
        self.sets.strict.contains(&port)
    }

    /// How many peers it knows.
    pub(crate) fn peers(&self) -> usize {
        self.sets.peers.len()
    }

    /// The changes of elements that turn `shown` into this; `None` where the rules differ.
    pub(crate) fn since(&self, shown: &Self) -> Option<Vec<ElementChange>> {
        if self.frame != shown.frame {
            return None;
        }
        let mut changes = Vec::new();
        for set in SETS
            .iter()
            .filter(|set| !(set.same)(&self.sets, &shown.sets))
        {
            let (new, old) = ((set.elements)(&self.sets), (set.elements)(&shown.sets));
            for (add, elements) in [(false, old.difference(&new)), (true, new.difference(&old))] {
                let elements: Vec<Raw> = elements.map(Element::raw).collect();
                if !elements.is_empty() {
                    changes.push(ElementChange {
                        family: set.family,
                        set: set.name,
                        add,
                        elements,
                    });
                }
            }
        }
        Some(changes)
    }

    /// What the kernel shows once all is written.
    pub(crate) fn content(&self) -> Content {
        // The text has a line for each rule, deeper than the chain that it is in.
        let text = self.text();
        let rules = text.lines().filter(|line| {
            let line = line.strip_prefix("\t\t");
            line.is_some_and(|line| !line.starts_with("type "))
        });
        Content {
            rules: rules.count(),
            elements: SETS
                .iter()
                .map(|set| {
                    let elements = (set.elements)(&self.sets);
                    let whole = elements.iter().map(|element| element.raw().whole());
                    (set.name, whole.collect())
                })
                .collect(),
        }
    }
}

/// Cards, and whatever carries the underlay. On others, such as a container's veth that is routed to
/// or a virtual machine's bridge, a peer is believed only where the way to it leads back there: none of
/// them can be told from a container by its kind.
fn uplinks(observed: &Observed, underlay: Option<&Underlay>) -> BTreeSet<String> {
    let carries = |index| underlay.is_some_and(|it| it.links.contains_key(&index));
    observed
        .links
        .values()
        .filter(|link| is_card(link) || carries(link.index))
        .map(|link| link.name.clone())
        .filter(|name| is_plain(name) && name != "lo")
        .collect()
}

/// Whether an interface is one that a host is connected by, whatever its address: an underlay
/// may be unnumbered, and the host's address on loopback. A port of a bridge or bond hands its
/// packets to that.
pub(crate) fn is_card(link: &Link) -> bool {
    let kind = match &link.kind {
        LinkKind::Other(kind) => kind.as_str(),
        _ => return false,
    };
    link.up && link.master.is_none() && matches!(kind, "" | "vlan" | "bond" | "team")
}

/// Bridges on which other containers of this host are, so that no peer is behind them: those with
/// a veth port whose other end is in another namespace, unless they carry the underlay.
pub(crate) fn container_bridges(
    observed: &Observed,
    underlay: &Underlay,
    own: u32,
) -> BTreeSet<String> {
    let containers = observed
        .links
        .values()
        .filter(|link| link.kind == LinkKind::Veth && link.far_end.is_some());
    containers
        .filter_map(|link| observed.links.get(&link.master?))
        .filter(|bridge| bridge.kind == LinkKind::Bridge && bridge.index != own)
        .filter(|bridge| !underlay.links.contains_key(&bridge.index))
        .map(|bridge| bridge.name.clone())
        .filter(|name| is_plain(name))
        .collect()
}

/// Bridges that connect guests of this host, containers or virtual machines, and nothing else: no card is a port of
/// theirs, by which others would come in, and no way to a peer leads over them.
fn guest_bridges(observed: &Observed, underlay: &Underlay, own: u32) -> BTreeSet<String> {
    let is_guest = |port: &Link| match &port.kind {
        LinkKind::Veth => true,
        LinkKind::Other(kind) => kind == "tun",
        LinkKind::Bridge | LinkKind::Vxlan(_) => false,
    };
    let bridges = observed.links.values();
    bridges
        .filter(|bridge| bridge.kind == LinkKind::Bridge && bridge.index != own)
        .filter(|bridge| !underlay.links.contains_key(&bridge.index))
        .filter(|bridge| observed.ports_of(bridge.index).all(is_guest))
        .map(|bridge| bridge.name.clone())
        .filter(|name| is_plain(name))
        .collect()
}
