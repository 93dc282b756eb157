//! What keeps the kernel from the wanted state.

use std::{fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;
use mesh_problems::{
    Problem as Told,
    catalog::dataplane::{
        ADDRESS_CONTESTED, DEVICE_NAME_TAKEN, FAST_PATH_REFUSED, FOREIGN_ADDRESS, FOREIGN_FIREWALL,
        FOREIGN_MASQUERADE, FOREIGN_ROUTE, FOREIGN_ROUTE_TO_PART, HOST_ADDRESS_NOT_HERE,
        IPSEC_POLICY, KERNEL_REFUSES, KERNEL_UNREADABLE, NARROW_PEERS, NO_ADDRESS_TRANSLATION,
        NO_GUARD_PROGRAMS, NO_GUARD_RULES, NO_HOST_ADDRESS, NO_ROUTE_TO_PEERS, POLICY_RULE,
        SMALL_MTU, STATE_NOT_KEPT, UNDERLAY_NOT_ETHERNET, VXLAN_SWALLOWED, VXLAN_TAKEN,
    },
    catalog::maintenance::NODE_DRAINED,
    catalog::path::NO_PROBE_ENDPOINT,
};

use crate::{
    desired::{firewall::Passage, holders::Contest, underlay::EXPECTED_MTU},
    diff::change::{Change, Stage},
    observed::policy_rules::Diversion,
    settings::Device,
};

/// What keeps the kernel from the wanted state. It is reported until it is gone, and what
/// it stands in the way of is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// Nothing says which address is the node's.
    NoHostAddress { candidates: String },
    /// The node's address is not on any interface.
    HostAddressNotHere(Ipv4Addr),
    /// A device of ours cannot have its name.
    NameTaken {
        device: Device,
        name: String,
        what: String,
        option: &'static str,
    },
    /// A policy rule decides before our routes.
    Diverted {
        diversion: Diversion,
        over: Option<String>,
        cluster: Ipv4Net,
    },
    /// Policies of IPsec are about VXLAN to or from some peers.
    Transformed(Vec<Ipv4Addr>),
    /// The underlay leaves containers less than everybody counts on.
    SmallMtu { interface: String, overlay_mtu: u32 },
    /// An address within the cluster's network that is none of ours.
    ForeignAddress { address: Ipv4Net, interface: String },
    /// A route of somebody else to a part of a peer's subnet.
    PartOfPeer {
        destination: Ipv4Net,
        part: Ipv4Net,
        description: String,
    },
    /// Another VXLAN device has our VNI and port.
    PortTakenByVxlan { name: String, vni: u32, port: u16 },
    /// A route of somebody else is in the way.
    ForeignRoute {
        destination: Ipv4Net,
        description: String,
    },
    /// The kernel refused a change.
    ChangeFailed { change: Change, reason: String },
    /// Reading the kernel's state failed.
    Observe(String),
    /// No way to the hosts of some peers.
    NoRoute(Vec<Ipv4Addr>),
    /// Peers that take smaller packets than everybody counts on.
    NarrowPeers(Vec<Ipv4Addr>),
    /// The disk does not take the wanted state.
    StateNotKept(String),
    /// Underlay interfaces that the fast path cannot use.
    NotEthernet(Vec<String>),
    /// More than one container holds an address.
    Contested(Contest),
    /// The packet filter does not guard.
    NoFirewall(String),
    /// The kernel cannot translate addresses.
    NoTranslation(String),
    /// Somebody else's rule gives what containers send to other nodes another source.
    Masqueraded { subnet: Ipv4Net, cluster: Ipv4Net },
    /// Somebody else's rules drop all that takes a way over this host.
    Blocked {
        passage: Passage,
        bridge: String,
        overlay: String,
        subnet: Ipv4Net,
        /// UDP port of VXLAN.
        port: u16,
    },
    /// Somebody between the hosts drops VXLAN, and neither host sees it.
    Swallowed { peers: Vec<Ipv4Addr>, port: u16 },
    /// Nothing of this node's answers probes.
    NoProbeEndpoint(String),
    /// An operator has said that the node takes no new containers.
    Drained,
    /// No eBPF program guards.
    Unguarded(String),
    /// The fast path refused its state.
    FastPath(String),
}

impl Problem {
    /// As operators are told of it: which of the catalogue it is, with what was observed.
    #[must_use]
    pub(crate) fn told(&self) -> Told {
        match self {
            Self::NoHostAddress { candidates } => Told::new(
                &NO_HOST_ADDRESS,
                format!("this node's underlay address is not known: there is no default route, and {candidates}"),
            )
            .remedied_by("start with --host-ip ADDRESS"),
            Self::HostAddressNotHere(address) => Told::new(
                &HOST_ADDRESS_NOT_HERE,
                format!("host address {address} is on no interface of this host"),
            ),
            Self::NameTaken { name, what, option, .. } => {
                Told::new(&DEVICE_NAME_TAKEN, format!("{name} exists and is {what}"))
                    .remedied_by(format!("rename or delete it, or choose another name ({option})"))
            }
            Self::Diverted { diversion, over, cluster } => Told::new(
                &POLICY_RULE,
                format!(
                    "a policy rule before that of table main (ip rule) sends what is for {} {}",
                    diversion.subnet,
                    elsewhere(over.as_deref())
                ),
            )
            .remedied_by(format!(
                "let our routes decide first (ip rule add priority {} to {cluster} lookup main), or delete that rule",
                diversion.before
            )),
            Self::Transformed(peers) => Told::new(
                &IPSEC_POLICY,
                format!("an IPsec policy is about VXLAN to or from {} (ip xfrm policy)", name_some(peers)),
            ),
            Self::SmallMtu { interface, overlay_mtu } => Told::new(
                &SMALL_MTU,
                format!("containers have an MTU of {overlay_mtu} only, because that of {interface} is so small"),
            )
            .remedied_by(format!(
                "raise it (ip link set {interface} mtu 1500), or have peers reached over another interface"
            )),
            Self::ForeignAddress { address, interface } => Told::new(
                &FOREIGN_ADDRESS,
                format!("{interface} has the address {address}, which lies within the cluster's network"),
            )
            .remedied_by(format!("take it away (ip address delete {address} dev {interface})")),
            Self::PartOfPeer { destination, part, description } => Told::new(
                &FOREIGN_ROUTE_TO_PART,
                format!("the route to a part of {destination} belongs to somebody else ({description})"),
            )
            .remedied_by(format!(
                "delete it (ip route delete {part}) if they shall be reached over the overlay"
            )),
            Self::PortTakenByVxlan { name, vni, port } => Told::new(
                &VXLAN_TAKEN,
                format!("UDP port {port} with VNI {vni} is taken by the vxlan device {name}, which is not ours"),
            )
            .remedied_by(format!("delete it (ip link delete {name}) or stop what made it")),
            Self::ForeignRoute { destination, description } => Told::new(
                &FOREIGN_ROUTE,
                format!("the route to {destination} belongs to somebody else ({description})"),
            )
            .remedied_by(format!(
                "delete it (ip route delete {destination}) if the peer shall be reached over the overlay"
            )),
            Self::ChangeFailed { change, reason } => {
                Told::new(&KERNEL_REFUSES, format!("cannot {change}: {reason}"))
            }
            Self::Observe(reason) => {
                Told::new(&KERNEL_UNREADABLE, format!("cannot read the kernel's network state: {reason}"))
            }
            Self::NoRoute(peers) => Told::new(
                &NO_ROUTE_TO_PEERS,
                format!("this host has no route to {}", name_some(peers)),
            )
            .remedied_by("check its interfaces and default route"),
            Self::NarrowPeers(peers) => Told::new(
                &NARROW_PEERS,
                format!("containers behind {} get packets of less than {EXPECTED_MTU} bytes alone", count_some(peers)),
            ),
            Self::StateNotKept(reason) => {
                Told::new(&STATE_NOT_KEPT, format!("the wanted state is not kept on disk ({reason})"))
            }
            Self::NotEthernet(interfaces) => Told::new(
                &UNDERLAY_NOT_ETHERNET,
                format!("no fast path over {}: packets have no Ethernet header there", interfaces.join(", ")),
            ),
            Self::Contested(contest) => Told::new(
                &ADDRESS_CONTESTED,
                format!(
                    "address {} is held by several containers: the one behind {} has it, because {}, and not {}",
                    contest.address,
                    contest.holder,
                    contest.reason(),
                    contest.others.join(", ")
                ),
            ),
            Self::NoFirewall(reason) => {
                Told::new(&NO_GUARD_RULES, format!("the guards' nftables rules are not in place ({reason})"))
            }
            Self::NoTranslation(reason) => Told::new(
                &NO_ADDRESS_TRANSLATION,
                format!("the kernel refuses the nftables rules that translate addresses ({reason})"),
            ),
            Self::Masqueraded { subnet, cluster } => Told::new(
                &FOREIGN_MASQUERADE,
                "a rule of somebody else masquerades what containers send to other nodes",
            )
            .remedied_by(format!(
                "have it leave out the cluster (ip daddr != {cluster}; `nft list ruleset` and `iptables-save -t nat` \
                 show it), and end what it has begun: conntrack -D -s {subnet} -d {cluster}"
            )),
            Self::Blocked { passage, bridge, overlay, subnet, port } => Told::new(
                &FOREIGN_FIREWALL,
                format!(
                    "none of the last connections {} has passed the packet filter of somebody else on this host",
                    traffic(*passage)
                ),
            )
            .remedied_by(format!("unless that is meant, {}", door(*passage, bridge, overlay, *subnet, *port))),
            Self::Swallowed { peers, port } => Told::new(
                &VXLAN_SWALLOWED,
                format!("something on the way swallows UDP port {port} (VXLAN) to or from {}", count_some(peers)),
            ),
            Self::NoProbeEndpoint(reason) => Told::new(
                &NO_PROBE_ENDPOINT,
                format!("this node has no endpoint for probes ({reason})"),
            )
            .remedied_by("free the address or the name, and it is made by itself"),
            Self::Drained => Told::new(&NODE_DRAINED, "an operator has said so (meshctl drain)"),
            Self::Unguarded(reason) => Told::new(
                &NO_GUARD_PROGRAMS,
                format!("no eBPF program guards what containers send ({reason})"),
            ),
            Self::FastPath(reason) => Told::new(&FAST_PATH_REFUSED, format!("fast path: {reason}")),
        }
    }
}

/// In one line: what was observed, what it breaks, what to do.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told().fmt(f)
    }
}

fn elsewhere(over: Option<&str>) -> String {
    over.map_or_else(|| "nowhere".to_owned(), |over| format!("over {over}"))
}

/// Whose traffic passes there.
fn traffic(passage: Passage) -> &'static str {
    match passage {
        Passage::Underlay => "by VXLAN from other nodes",
        Passage::Arrival | Passage::FromNodes => {
            "from other nodes to containers by the kernel path"
        }
        Passage::ToNodes => "from containers to other nodes by the kernel path",
        Passage::Between => "between containers of this node",
        Passage::Out => "from containers to the outside",
        Passage::In => "from elsewhere to published ports",
    }
}

/// How each of the others is told to let it through, by the door that it has for that. What gets into containers
/// our own tables decide all the same.
fn door(passage: Passage, bridge: &str, overlay: &str, subnet: Ipv4Net, port: u16) -> String {
    if passage == Passage::Underlay {
        return format!(
            "open its port: iptables -I INPUT -p udp --dport {port} -j ACCEPT (beside firewalld firewall-cmd \
             --permanent --add-port={port}/udp; firewall-cmd --reload; beside ufw ufw allow {port}/udp)"
        );
    }
    if passage == Passage::Arrival {
        return format!(
            "let it through: iptables -t raw -I PREROUTING -i {overlay} -d {subnet} -j ACCEPT"
        );
    }
    let iptables = |chain: &str| {
        format!(
            "iptables -I {chain} -i {bridge} -j ACCEPT; iptables -I {chain} -o {bridge} -j ACCEPT"
        )
    };
    format!(
        "let it through: {} (beside Docker {}; beside firewalld firewall-cmd --permanent --zone=trusted \
         --add-interface={bridge} --add-interface={overlay}; firewall-cmd --reload)",
        iptables("FORWARD"),
        iptables("DOCKER-USER")
    )
}

/// Names the first few of many addresses.
fn name_some(addresses: &[Ipv4Addr]) -> String {
    const SOME: usize = 3;
    let mut names: Vec<String> = addresses
        .iter()
        .take(SOME)
        .map(Ipv4Addr::to_string)
        .collect();
    if addresses.len() > SOME {
        names.push(format!("{} more", addresses.len() - SOME));
    }
    names.join(", ")
}

/// Says how many peers there are, and names the first few.
fn count_some(peers: &[Ipv4Addr]) -> String {
    match peers {
        [peer] => format!("peer {peer}"),
        _ => format!("{} peers ({})", peers.len(), name_some(peers)),
    }
}

impl Problem {
    /// Whether another attempt may succeed before anything is heard of a change.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::ChangeFailed { .. } | Self::Observe(_) | Self::FastPath(_)
        )
    }

    /// Whether it keeps one of our devices from being as it should.
    pub(crate) fn of_device(&self) -> bool {
        match self {
            Self::NameTaken { .. } | Self::PortTakenByVxlan { .. } | Self::Observe(_) => true,
            Self::ChangeFailed { change, .. } => change.stage() == Stage::Devices,
            _ => false,
        }
    }

    /// Whether it keeps the route to `destination` from being in place.
    pub(crate) fn of_destination(&self, destination: Ipv4Net) -> bool {
        match self {
            Self::ForeignRoute {
                destination: other, ..
            } => *other == destination,
            Self::ChangeFailed { change, .. } => match change {
                Change::AddRoute(route) | Change::ReplaceRoute(route) => {
                    route.destination == destination
                }
                Change::SetNeighbour { address, .. } => *address == destination.network(),
                Change::SetForwarding { mac, .. } => {
                    *mac == mesh_layout::overlay_mac(destination.network().octets())
                }
                _ => false,
            },
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swallowed_port_is_one_problem_however_many_peers_are_behind_it() {
        let peers = |count: u8| (0..count).map(|it| Ipv4Addr::new(192, 0, 2, it));
        let problem = |count| Problem::Swallowed {
            peers: peers(count).collect(),
            port: 8472,
        };
        let one = problem(1).to_string();
        assert!(one.contains("UDP port 8472"), "{one}");
        assert!(one.contains("from peer 192.0.2.0:"), "{one}");
        assert!(one.contains("--vxlan-port"), "{one}");
        let many = problem(254).to_string();
        let some = "254 peers (192.0.2.0, 192.0.2.1, 192.0.2.2, 251 more)";
        assert!(many.contains(some), "{many}");
        assert!(many.len() < 500, "{many}");
    }
}
