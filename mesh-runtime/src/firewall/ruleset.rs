//! What the tables should hold, from settings, wanted and observed state. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use mesh_layout::{VNI, VXLAN_PORT};

use super::TABLE;
use crate::{
    fast_path::Mac,
    kernel::{
        change::DisplayMac,
        observed::{LinkKind, Observed},
        plan::{Plan, Settings},
        underlay::Underlay,
    },
    subnet::gateway,
    wanted::Wanted,
};

/// The rules of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruleset {
    /// What the rules are made of; a change of it writes the tables anew.
    frame: Frame,
    /// What the sets hold; a change of it changes elements alone.
    pub(super) sets: Sets,
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
    routed_from: BTreeSet<Ipv4Net>,
}

/// What the named sets hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sets {
    /// Underlay addresses of peers: who may send VXLAN to this host.
    peers: BTreeSet<Ipv4Addr>,
    /// Network addresses of peers' subnets: what may be inside.
    subnets: BTreeSet<Ipv4Addr>,
    /// Bridges of other containers on this host.
    bridges: BTreeSet<String>,
    /// Ports of our bridge.
    ports: BTreeSet<String>,
}

/// How much there is of rules, and of elements of each named set.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) rules: usize,
    pub(super) elements: BTreeMap<&'static str, usize>,
}

/// A named set: its family, name and type, and how to get its elements.
pub(super) struct NamedSet {
    pub(super) family: &'static str,
    pub(super) name: &'static str,
    kind: &'static str,
    elements: fn(&Sets) -> BTreeSet<Element>,
}

/// Elements of a set that come or go.
pub(super) struct ElementChange {
    pub(super) family: &'static str,
    pub(super) set: &'static str,
    pub(super) add: bool,
    /// As the kernel compares them.
    pub(super) keys: Vec<Vec<u8>>,
}

pub(super) const SETS: [NamedSet; 4] = [
    NamedSet {
        family: "inet",
        name: "peers",
        kind: "ipv4_addr",
        elements: |sets| sets.peers.iter().copied().map(Element::Address).collect(),
    },
    NamedSet {
        family: "inet",
        name: "subnets",
        kind: "ipv4_addr",
        elements: |sets| sets.subnets.iter().copied().map(Element::Address).collect(),
    },
    NamedSet {
        family: "inet",
        name: "bridges",
        kind: "ifname",
        elements: |sets| {
            sets.bridges
                .iter()
                .cloned()
                .map(Element::Interface)
                .collect()
        },
    },
    NamedSet {
        family: "bridge",
        name: "ports",
        kind: "ifname",
        elements: |sets| sets.ports.iter().cloned().map(Element::Interface).collect(),
    },
];

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Element {
    Address(Ipv4Addr),
    Interface(String),
}

impl Element {
    /// As the kernel compares it: an address in network byte order, a name filled up with zeros
    /// (`IFNAMSIZ`).
    fn key(&self) -> Vec<u8> {
        match self {
            Self::Address(address) => address.octets().to_vec(),
            Self::Interface(name) => {
                let mut key = name.as_bytes().to_vec();
                key.resize(16, 0);
                key
            }
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Interface(name) => write!(f, "\"{name}\""),
        }
    }
}

/// Whether a name means itself between quotation marks: nft knows no way to escape one, and takes
/// an asterisk for a pattern. Others' interfaces may be named as they like.
fn is_plain(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-:@+".contains(&byte))
}

impl Ruleset {
    /// The rules for a node; `None` until it has a subnet and its bridge.
    pub(crate) fn new(
        settings: &Settings,
        wanted: &Wanted,
        observed: &Observed,
        plan: &Plan,
    ) -> Option<Self> {
        let subnet = wanted.subnet?;
        let bridge = observed
            .link_named(&settings.bridge)
            .filter(|link| link.kind == LinkKind::Bridge)?;
        let accepted = |subnet: &&Ipv4Net| !plan.blocked.contains(*subnet);
        let ports = observed.ports_of(bridge.index);
        Some(Self {
            frame: Frame {
                bridge: settings.bridge.clone(),
                overlay: settings.overlay.clone(),
                cluster: settings.cluster.cidr,
                subnet,
                bridge_mac: bridge.mac?,
                host_address: plan.underlay.as_ref().map(|underlay| underlay.address),
                routed_from: settings.routed_from.clone(),
            },
            sets: Sets {
                peers: wanted.peers.values().map(|peer| peer.address).collect(),
                subnets: wanted
                    .destinations()
                    .iter()
                    .filter(accepted)
                    .map(Ipv4Net::network)
                    .collect(),
                bridges: plan
                    .underlay
                    .as_ref()
                    .map_or_else(BTreeSet::new, |underlay| {
                        container_bridges(observed, underlay, bridge.index)
                    }),
                ports: ports
                    .map(|port| port.name.clone())
                    .filter(|name| is_plain(name))
                    .collect(),
            },
        })
    }

    /// Whether VXLAN from that address passes.
    pub(crate) fn takes_from(&self, peer: Ipv4Addr) -> bool {
        self.sets.peers.contains(&peer)
    }

    /// How many peers it knows.
    pub(crate) fn peers(&self) -> usize {
        self.sets.peers.len()
    }

    /// The changes of elements that turn `shown` into this; `None` where the rules differ.
    pub(super) fn since(&self, shown: &Self) -> Option<Vec<ElementChange>> {
        if self.frame != shown.frame {
            return None;
        }
        let mut changes = Vec::new();
        for set in &SETS {
            let (new, old) = ((set.elements)(&self.sets), (set.elements)(&shown.sets));
            for (add, elements) in [(false, old.difference(&new)), (true, new.difference(&old))] {
                let keys: Vec<Vec<u8>> = elements.map(Element::key).collect();
                if !keys.is_empty() {
                    changes.push(ElementChange {
                        family: set.family,
                        set: set.name,
                        add,
                        keys,
                    });
                }
            }
        }
        Some(changes)
    }

    /// How many rules and elements the kernel shows once all is written.
    pub(super) fn size(&self) -> Size {
        // The text has a line for each rule, deeper than the chain that it is in.
        let text = self.text();
        let rules = text.lines().filter(|line| {
            let line = line.strip_prefix("\t\t");
            line.is_some_and(|line| !line.starts_with("type "))
        });
        Size {
            rules: rules.count(),
            elements: SETS
                .iter()
                .map(|set| (set.name, (set.elements)(&self.sets).len()))
                .collect(),
        }
    }

    /// Both tables whole, in the place of what they held, as input of nft.
    pub(super) fn text(&self) -> String {
        // nft has no way to say "delete if it exists" before 1.0.8.
        let anew =
            |family: &str| format!("table {family} {TABLE}\ndelete table {family} {TABLE}\n");
        format!(
            "{}{}{}{}",
            anew("inet"),
            self.inet_table(),
            anew("bridge"),
            self.bridge_table()
        )
    }

    fn sets_of(&self, family: &str) -> String {
        let mut text = String::new();
        for set in SETS.iter().filter(|set| set.family == family) {
            let elements = (set.elements)(&self.sets);
            let elements: Vec<String> = elements.iter().map(Element::to_string).collect();
            let elements = match elements.is_empty() {
                true => String::new(),
                false => format!("elements = {{ {} }}; ", elements.join(", ")),
            };
            // A String takes everything.
            let _ = writeln!(
                text,
                "\tset {} {{ type {}; {elements}}}",
                set.name, set.kind
            );
        }
        text
    }

    fn inet_table(&self) -> String {
        let Frame {
            bridge,
            overlay,
            cluster,
            subnet,
            host_address,
            routed_from,
            ..
        } = &self.frame;
        let (mask, network, gateway) = (subnet.netmask(), subnet.network(), gateway(*subnet));
        let sets = self.sets_of("inet");
        let vxlan = format!("udp dport {VXLAN_PORT}");
        let vni = format!("@th,96,24 {VNI}");
        let other_vni = format!("@th,96,24 != {VNI}");
        let ours = format!("{{ \"{bridge}\", \"{overlay}\" }}");
        let errors = "icmp type { destination-unreachable, source-quench, redirect, \
                      time-exceeded, parameter-problem } ct state invalid,untracked counter drop";
        let own_address = host_address.map_or_else(String::new, |address| {
            format!("\t\tmeta iif != 0 ip saddr {address} counter drop\n")
        });
        let networks = match routed_from.is_empty() {
            true => String::new(),
            false => {
                let networks: Vec<String> = routed_from.iter().map(ToString::to_string).collect();
                format!("elements = {{ {} }}; ", networks.join(", "))
            }
        };
        // Only its own address tells the other nodes where the answers go.
        let source_nat = match routed_from.is_empty() {
            true => String::new(),
            false => format!(
                "\tchain routed_on {{\n\
                 \t\ttype nat hook postrouting priority srcnat - 1;\n\
                 \t\toifname \"{overlay}\" ip saddr != {cluster} ip saddr @routed_from snat ip to {gateway}\n\
                 \t}}\n"
            ),
        };
        format!(
            "table inet {TABLE} {{\n\
             {sets}\
             \tset routed_from {{ type ipv4_addr; flags interval; auto-merge; {networks}}}\n\
             \tchain vxlan_in {{\n\
             \t\t{other_vni} return\n\
             \t\tiifname {{ \"lo\", \"{bridge}\", \"{overlay}\" }} counter drop\n\
             \t\tiifname @bridges counter drop\n\
             \t\tip saddr != @peers counter drop\n\
             \t}}\n\
             \tchain inner {{\n\
             \t\tmeta nfproto != ipv4 counter drop\n\
             \t\tip saddr & {mask} != @subnets counter drop\n\
             \t\tip daddr & {mask} != {network} counter drop\n\
             \t}}\n\
             \tchain from_containers {{\n\
             \t\tip saddr {gateway} counter drop\n\
             \t\tip saddr != 0.0.0.0 ip saddr & {mask} != {network} counter drop\n\
             \t\ticmpv6 type {{ nd-router-advert, nd-redirect }} counter drop\n\
             \t\tudp sport 67 udp dport 68 counter drop\n\
             \t\tudp sport 547 udp dport 546 counter drop\n\
             \t}}\n\
             \tchain early {{\n\
             \t\ttype filter hook prerouting priority raw;\n\
             \t\tiifname \"{overlay}\" jump inner\n\
             \t\tiifname \"{bridge}\" jump from_containers\n\
             \t\t{vxlan} fib daddr type {{ local, broadcast, multicast, anycast }} jump vxlan_in\n\
             \t\t{vxlan} {vni} ip saddr @peers fib daddr type local notrack\n\
             \t}}\n\
             \tchain early_out {{\n\
             \t\ttype filter hook output priority raw;\n\
             \t\t{vxlan} {vni} ip daddr @peers notrack\n\
             \t}}\n\
             \tchain input {{\n\
             \t\ttype filter hook input priority filter - 10;\n\
             \t\t{vxlan} jump vxlan_in\n\
             \t\tiifname {ours} icmp type redirect counter drop\n\
             \t\tiifname {ours} {errors}\n\
             \t}}\n\
             \tchain routed {{\n\
             \t\tct status dnat accept\n\
             \t\tip saddr {cluster} counter drop\n\
             \t\tct state established,related accept\n\
             \t\tip saddr @routed_from accept\n\
             \t\tcounter drop\n\
             \t}}\n\
             \tchain forward {{\n\
             \t\ttype filter hook forward priority filter - 10;\n\
             \t\tiifname \"{bridge}\" oifname != {ours} {vxlan} {vni} counter drop\n\
             \t\tiifname @bridges oifname != {ours} {vxlan} {vni} counter drop\n\
             \t\tiifname {ours} oifname != {ours} {errors}\n\
             \t\tmeta nfproto ipv4 oifname {ours} iifname != {ours} jump routed\n\
             \t}}\n\
             \tchain vxlan_out {{\n\
             \t\toifname {ours} return\n\
             \t\t{other_vni} return\n\
             \t\tiifname \"{overlay}\" return\n\
             {own_address}\
             \t\tmeta skuid != 0 counter drop\n\
             \t}}\n\
             \tchain late {{\n\
             \t\ttype filter hook postrouting priority srcnat + 10;\n\
             \t\t{vxlan} jump vxlan_out\n\
             \t}}\n\
             {source_nat}\
             }}\n"
        )
    }

    /// The rules between the ports of our bridge.
    ///
    /// A port that was made while no runtime runs is in no set. But a frame from one port goes to
    /// another of the same bridge alone, so the port it goes to tells whose it is. (`meta ibrname`
    /// would, but not every kernel has the module nft_meta_bridge.)
    fn bridge_table(&self) -> String {
        let Frame {
            subnet, bridge_mac, ..
        } = &self.frame;
        let (mask, network, gateway) = (subnet.netmask(), subnet.network(), gateway(*subnet));
        let sets = self.sets_of("bridge");
        let mac = DisplayMac(*bridge_mac);
        // `meta protocol`, not `ether type`: the kernel takes a frame with a tag of VLAN 0 for one
        // without, and so must the rules.
        format!(
            "table bridge {TABLE} {{\n\
             {sets}\
             \tchain frames {{\n\
             \t\tether saddr {mac} counter drop\n\
             \t\tvlan id != 0 accept\n\
             \t\tmeta protocol {{ 0x8100, 0x88a8 }} counter drop\n\
             \t\tmeta protocol arp arp saddr ip {gateway} counter drop\n\
             \t\tmeta protocol arp arp saddr ip != 0.0.0.0 arp saddr ip & {mask} != {network} counter drop\n\
             \t\tmeta protocol ip ip saddr {gateway} counter drop\n\
             \t\tmeta protocol ip ip saddr != 0.0.0.0 ip saddr & {mask} != {network} counter drop\n\
             \t\tmeta protocol ip6 icmpv6 type {{ nd-router-advert, nd-redirect }} counter drop\n\
             \t\tmeta protocol ip icmp type redirect counter drop\n\
             \t\tudp sport 67 udp dport 68 counter drop\n\
             \t\tudp sport 547 udp dport 546 counter drop\n\
             \t}}\n\
             \tchain early {{\n\
             \t\ttype filter hook prerouting priority -300;\n\
             \t\tiifname @ports jump frames\n\
             \t}}\n\
             \tchain between {{\n\
             \t\ttype filter hook forward priority -300;\n\
             \t\tiifname != @ports oifname @ports jump frames\n\
             \t}}\n\
             }}\n"
        )
    }
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
