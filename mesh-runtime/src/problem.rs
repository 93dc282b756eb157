//! What keeps the kernel from the wanted state.

mod kind;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::{
    desired::{firewall::Passage, holders::Contest, underlay::EXPECTED_MTU},
    diff::change::{Change, Stage},
    observed::policy_rules::Diversion,
    settings::Device,
};

/// What keeps the kernel from the wanted state. It is reported until it is gone, and what
/// it stands in the way of is tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// Nothing says which address is the node's.
    #[error(
        "this node's underlay address is not known: there is no default route, and {candidates}; \
         start with --host-ip ADDRESS"
    )]
    NoHostAddress { candidates: String },
    /// The node's address is not on any interface.
    #[error(
        "host address {0} is on no interface of this host: give an interface that address, or \
         correct --host-ip on runtime and agent"
    )]
    HostAddressNotHere(Ipv4Addr),
    /// A device of ours cannot have its name.
    #[error("{name} exists and is {what}: rename or delete it, or choose another name ({option})")]
    NameTaken {
        device: Device,
        name: String,
        what: String,
        option: &'static str,
    },
    /// A policy rule decides before our routes.
    #[error(
        "a policy rule before that of table main (ip rule) sends what is for {} {}: let our routes decide first \
         (ip rule add priority {} to {cluster} lookup main), or delete that rule", .diversion.subnet,
        elsewhere(.over.as_deref()), .diversion.before
    )]
    Diverted {
        diversion: Diversion,
        over: Option<String>,
        cluster: Ipv4Net,
    },
    /// Policies of IPsec are about VXLAN to or from some peers.
    #[error(
        "an IPsec policy is about VXLAN to or from {} (ip xfrm policy): what these peers exchange takes the kernel path, \
         which heeds it; have the policy leave out UDP port 4789 if they shall use the fast path", name_some(.0)
    )]
    Transformed(Vec<Ipv4Addr>),
    /// The underlay leaves containers less than everybody counts on.
    #[error(
        "containers have an MTU of {overlay_mtu} only, because that of {interface} is so small: raise it (ip link set \
         {interface} mtu 1500), or have peers reached over another interface"
    )]
    SmallMtu { interface: String, overlay_mtu: u32 },
    /// An address within the cluster's network that is none of ours.
    #[error(
        "{interface} has the address {address}, which lies within the cluster's network: what is for the containers \
         of its subnet may not reach them; take it away (ip address delete {address} dev {interface})"
    )]
    ForeignAddress { address: Ipv4Net, interface: String },
    /// A route of somebody else to a part of a peer's subnet.
    #[error(
        "the route to a part of {destination} belongs to somebody else ({description}): what is for those containers \
         goes there; delete it (ip route delete {part}) if they shall be reached over the overlay"
    )]
    PartOfPeer {
        destination: Ipv4Net,
        part: Ipv4Net,
        description: String,
    },
    /// Another VXLAN device has our VNI and port.
    #[error(
        "UDP port {port} with VNI {vni} is taken by the vxlan device {name}, which is not ours: \
         delete it (ip link delete {name}) or stop what made it"
    )]
    PortTakenByVxlan { name: String, vni: u32, port: u16 },
    /// A route of somebody else is in the way.
    #[error(
        "the route to {destination} belongs to somebody else ({description}): it is left alone; \
         delete it (ip route delete {destination}) if the peer shall be reached over the overlay"
    )]
    ForeignRoute {
        destination: Ipv4Net,
        description: String,
    },
    /// The kernel refused a change.
    #[error("cannot {change}: {reason}")]
    ChangeFailed { change: Change, reason: String },
    /// Reading the kernel's state failed.
    #[error("cannot read the kernel's network state: {0}")]
    Observe(String),
    /// No way to the hosts of some peers.
    #[error("this host has no route to {}: check its interfaces and default route", name_some(.0))]
    NoRoute(Vec<Ipv4Addr>),
    /// Peers that take smaller packets than everybody counts on.
    #[error(
        "containers behind {} get packets of less than {EXPECTED_MTU} bytes alone, on which programs rely: there, ip link set the interface \
         of the underlay to an MTU of 1330 or more", count_some(.0)
    )]
    NarrowPeers(Vec<Ipv4Addr>),
    /// The disk does not take the wanted state.
    #[error(
        "the wanted state is not kept on disk ({0}): packets pass, but after a reboot the overlay waits \
         for the agent, and addresses are neither leased nor given back; make room or permit writing, or \
         choose --state-dir"
    )]
    StateNotKept(String),
    /// Underlay interfaces that the fast path cannot use.
    #[error(
        "no fast path over {}: packets have no Ethernet header there; those to and from peers \
         behind it go over the kernel path", .0.join(", ")
    )]
    NotEthernet(Vec<String>),
    /// More than one container holds an address.
    #[error(
        "address {} is held by several containers: the one behind {} has it, because {}, and \
         not {}; take it from all but one", .0.address, .0.holder, .0.reason(), .0.others.join(", ")
    )]
    Contested(Contest),
    /// The packet filter does not guard.
    #[error(
        "the guards' nftables rules are not in place ({0}): no port is published, VXLAN from strangers is taken where no eBPF \
         program guards, and the underlay can reach into containers"
    )]
    NoFirewall(String),
    /// The kernel cannot translate addresses.
    #[error(
        "the kernel refuses the nftables rules that translate addresses ({0}): the guards stand, but containers do \
         not go out under their host's address, and published ports lead nowhere; load its modules (modprobe -a \
         nft_chain_nat nft_nat nft_masq nft_objref), and it is tried again within five minutes"
    )]
    NoTranslation(String),
    /// Somebody else's rule gives what containers send to other nodes another source.
    #[error(
        "a rule of somebody else masquerades what containers send to other nodes, which drop it there \
         (foreign_source): have it leave out the cluster (ip daddr != {cluster}; `nft list ruleset` and \
         `iptables-save -t nat` show it), and end what it has begun: conntrack -D -s {subnet} -d {cluster}"
    )]
    Masqueraded { subnet: Ipv4Net, cluster: Ipv4Net },
    /// Somebody else's rules drop all that takes a way over this host.
    #[error(
        "none of the last connections {} has passed the packet filter of somebody else on this host, which no rule \
         of ours overrules: unless that is meant, {}", traffic(*.passage),
        door(*.passage, .bridge, .overlay, *.subnet, *.port)
    )]
    Blocked {
        passage: Passage,
        bridge: String,
        overlay: String,
        subnet: Ipv4Net,
        /// UDP port of VXLAN.
        port: u16,
    },
    /// Somebody between the hosts drops VXLAN, and neither host sees it.
    #[error(
        "something on the way swallows UDP port {port} (VXLAN) to or from {}: let it through, or have all nodes use \
         another port (--vxlan-port of the control plane). Their hosts answer otherwise, and nothing comes over the \
         overlay: a hypervisor, a security group, or a packet filter on the way or there drops it; or the agents there \
         have not heard of this node yet", count_some(.peers)
    )]
    Swallowed { peers: Vec<Ipv4Addr>, port: u16 },
    /// No eBPF program guards.
    #[error(
        "no eBPF program guards what containers send ({0}): one may speak from another's address; the \
         nftables rules hold the rest"
    )]
    Unguarded(String),
    /// The fast path refused its state.
    #[error("fast path: {0}")]
    FastPath(String),
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
