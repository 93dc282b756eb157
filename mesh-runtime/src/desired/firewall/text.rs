//! The rules in nft's own language.

use std::fmt::Write as _;

use ipnet::Ipv4Net;
use mesh_layout::{PRIORITY_ANOTHERS_CLAIM, PRIORITY_UNKNOWN_FRAGMENT};

use super::{Element, Frame, Ruleset, SETS, element::NOWHERE};
use crate::{
    apply::firewall::TABLE,
    diff::change::DisplayMac,
    wanted::{node_settings::NodeSettings, subnet::gateway},
};

/// The addresses that mean a whole subnet, or everybody there, as elements of a set.
fn everybody(subnet: Ipv4Net) -> String {
    format!("{}, {}", subnet.network(), subnet.broadcast())
}

/// A priority as nft writes it: a class of traffic.
pub(super) fn class(mark: u32) -> String {
    format!("{:x}:{:x}", mark >> 16, mark & 0xffff)
}

impl Ruleset {
    /// Both tables whole, in the place of what they held, as input of nft.
    pub(crate) fn text(&self) -> String {
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
                "\t{} {} {{ type {}; {elements}}}",
                set.what(),
                set.name,
                set.kind
            );
        }
        text
    }

    /// The rules about what this host takes in, routes and sends.
    ///
    /// Fragments between containers are not tracked, in front of the kernel's own hook that puts them together
    /// (-400): the programs carry those that fit, and it would wait for them until the others are lost. What is
    /// for an address of this host no program carries: it ends here, or is translated here, as an answer by a
    /// published port is, and so all of it has to be known.
    ///
    /// Whether VXLAN comes from where the way to its sender leads is asked last of all before it is routed, when
    /// whoever translates addresses has done so: in the input hook the kernel answers that from 5.19 on only
    /// (commit be8be04e5ddb), and an older one refuses the whole table.
    pub(super) fn inet_table(&self) -> String {
        let Frame {
            bridge,
            overlay,
            cluster,
            subnet,
            host_address,
            settings,
            routed_from,
            ..
        } = &self.frame;
        let NodeSettings {
            vxlan_port,
            vni: number,
        } = settings;
        let (mask, gateway) = (subnet.netmask(), gateway(*subnet));
        let everybody = everybody(*subnet);
        let sets = self.sets_of("inet");
        let vxlan = format!("udp dport {vxlan_port}");
        let vni = format!("@th,96,24 {number}");
        let other_vni = format!("@th,96,24 != {number}");
        let ours = format!("{{ \"{bridge}\", \"{overlay}\" }}");
        let errors = "icmp type { destination-unreachable, source-quench, time-exceeded, \
                      parameter-problem }";
        // What an error quotes begins behind the eight bytes of ICMP, and its destination 16 bytes on.
        // A container is asked about no flow but those to containers.
        let foreign_flow = format!(
            "@th,192,32 & {:#x} != {:#x}",
            u32::from(cluster.netmask()),
            u32::from(cluster.network())
        );
        let own_address = host_address.map_or_else(String::new, |address| {
            format!("\t\tmeta iif != {NOWHERE} {vni} ip saddr {address} counter drop\n")
        });
        // Of a flow of this host's own address over UDP, as the one to a peer is, no other bridge's container
        // has anything to say: this host speaks to those from its address there.
        let own_flow = host_address.map_or_else(String::new, |address| {
            let address = u32::from(address);
            format!(
                "\t\tiifname @bridges {errors} @th,160,32 {address:#x} @th,136,8 17 counter drop\n"
            )
        });
        let networks = match routed_from.is_empty() {
            true => String::new(),
            false => {
                let networks: Vec<String> = routed_from.iter().map(ToString::to_string).collect();
                format!("elements = {{ {} }}; ", networks.join(", "))
            }
        };
        let unless_alone = |text: fn(&Frame) -> String| match self.frame.guards_alone {
            true => String::new(),
            false => text(&self.frame),
        };
        let counters = unless_alone(Frame::counters);
        let passages = unless_alone(Frame::passages);
        let (translation, masqueraded) = (
            unless_alone(Frame::translation),
            unless_alone(Frame::masqueraded),
        );
        format!(
            "table inet {TABLE} {{\n\
             {counters}\
             {sets}\
             \tset routed_from {{ type ipv4_addr; flags interval; auto-merge; {networks}}}\n\
             \tchain vxlan_in {{\n\
             \t\tiifname {{ \"lo\", \"{bridge}\", \"{overlay}\" }} counter drop\n\
             \t\tiifname @bridges counter drop\n\
             \t\t{other_vni} return\n\
             \t\tip saddr != @peers counter drop\n\
             \t}}\n\
             \tchain inner {{\n\
             \t\tmeta nfproto != ipv4 counter drop\n\
             \t\tip saddr & {mask} != @subnets counter drop\n\
             \t\tip daddr != {subnet} counter drop\n\
             \t}}\n\
             \tchain from_containers {{\n\
             \t\tip daddr 127.0.0.0/8 counter drop\n\
             \t\tip saddr {{ {gateway}, {everybody} }} counter drop\n\
             \t\tip saddr != 0.0.0.0 ip saddr != {subnet} counter drop\n\
             \t\ticmpv6 type {{ nd-router-advert, nd-redirect }} counter drop\n\
             \t\tudp dport {{ 68, 546 }} counter drop\n\
             \t}}\n\
             \tchain fragments {{\n\
             \t\ttype filter hook prerouting priority -450;\n\
             \t\tiifname {ours} ip frag-off & 0x3fff != 0 ip daddr {cluster} \
             fib daddr type != local notrack\n\
             \t}}\n\
             \tchain early {{\n\
             \t\ttype filter hook prerouting priority raw;\n\
             \t\tip saddr {cluster} ip daddr {gateway} iifname != {{ \"lo\", \"{bridge}\", \"{overlay}\" }} counter drop\n\
             \t\tiifname \"{overlay}\" jump inner\n\
             \t\tiifname != @uplinks ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 counter drop\n\
             \t\tiifname @bridges ip daddr 127.0.0.0/8 counter drop\n\
             \t\tiifname @bridges ip saddr {cluster} counter drop\n\
             \t\tiifname @uplinks ip saddr {subnet} counter drop\n\
             \t\tiifname \"{bridge}\" jump from_containers\n\
             \t\t{vxlan} fib daddr type {{ local, broadcast, multicast, anycast }} jump vxlan_in\n\
             \t\t{vxlan} {vni} ip saddr @peers fib daddr type local notrack\n\
             \t}}\n\
             \tchain from_the_way {{\n\
             \t\ttype filter hook prerouting priority 300;\n\
             \t\t{vxlan} {vni} iifname != @uplinks fib daddr type {{ local, broadcast, multicast, anycast }} \
             fib saddr . iif oif missing counter drop\n\
             \t}}\n\
             \tchain early_out {{\n\
             \t\ttype filter hook output priority raw;\n\
             \t\t{vxlan} {vni} ip daddr @peers notrack\n\
             \t}}\n\
             \tchain input {{\n\
             \t\ttype filter hook input priority filter - 10;\n\
             \t\t{vxlan} jump vxlan_in\n\
             \t\tiifname {ours} icmp type redirect counter drop\n\
             \t\tiifname {ours} {errors} jump errors\n\
             {own_flow}\
             \t}}\n\
             \tchain routed {{\n\
             \t\tip saddr {cluster} counter drop\n\
             \t\tct status dnat accept\n\
             \t\tct state established,related accept\n\
             \t\tip saddr @routed_from accept\n\
             \t\toifname \"{overlay}\" iifname @guests accept\n\
             \t\tcounter drop\n\
             \t}}\n\
             \tchain errors {{\n\
             \t\tct state invalid,untracked counter drop\n\
             \t\t{foreign_flow} counter drop\n\
             \t}}\n\
             \tchain vxlan_through {{\n\
             \t\toifname {ours} return\n\
             \t\tiifname @bridges oifname @bridges return\n\
             \t\tiifname != {{ \"{bridge}\", \"{overlay}\" }} iifname != @bridges return\n\
             \t\tip daddr @peers counter drop\n\
             \t\t{vni} counter drop\n\
             \t}}\n\
             \tchain forward {{\n\
             \t\ttype filter hook forward priority filter - 10;\n\
             \t\t{vxlan} jump vxlan_through\n\
             \t\tiifname {ours} oifname != {ours} {errors} jump errors\n\
             \t\tmeta nfproto ipv4 oifname {ours} iifname != {ours} jump routed\n\
             \t}}\n\
             \tchain vxlan_out {{\n\
             \t\toifname {ours} return\n\
             \t\tiifname \"{overlay}\" return\n\
             {own_address}\
             \t\tmeta iif != {NOWHERE} return\n\
             \t\tmeta skuid != 0 counter drop\n\
             \t}}\n\
             \tchain late {{\n\
             \t\ttype filter hook postrouting priority srcnat + 10;\n\
             \t\t{vxlan} jump vxlan_out\n\
             {masqueraded}\
             \t}}\n\
             {translation}\
             {passages}\
             }}\n"
        )
    }

    /// The rules between the ports of our bridge, and from them up to the host.
    ///
    /// A port that was made while no runtime runs is in no set. But a frame from one port goes to
    /// another of the same bridge alone, so the port it goes to tells whose it is. (`meta ibrname`
    /// would, but not every kernel has the module nft_meta_bridge.) Up to the host go the frames of
    /// other bridges as well: a priority that nobody asks for is all that happens to those.
    ///
    /// Of a port without a program of its own, also one that is known, fragments are remembered; but for those to loopback, which
    /// the bridge's program drops unless they have such a mark, by which it takes them for translated.
    ///
    /// What a registered container may not send is dropped before the bridge learns anything from it. It
    /// takes no program to judge that: whose port it is, the port itself says.
    pub(super) fn bridge_table(&self) -> String {
        let Frame {
            subnet,
            bridge_mac,
            filters_vlans,
            ..
        } = &self.frame;
        let gateway = gateway(*subnet);
        let sets = self.sets_of("bridge");
        let mac = DisplayMac(*bridge_mac);
        let claim = class(PRIORITY_ANOTHERS_CLAIM);
        // What becomes of a fragment that leaves its checksum to others no rule can tell (port_guard.rs of
        // mesh-ebpf can), and that it was one is forgotten where the bridge's own traffic is filtered as IP.
        let fragment = class(PRIORITY_UNKNOWN_FRAGMENT);
        // A network of its own, unless the bridge takes its tag off.
        let of_vlan = |verdict| match filters_vlans {
            true => String::new(),
            false => format!("\t\tvlan id != 0 {verdict}\n"),
        };
        let (accept_of_vlan, return_of_vlan) = (of_vlan("accept"), of_vlan("return"));
        // Subnet and broadcast address, of which no packet is.
        let everybody = everybody(*subnet);
        // `meta protocol`, not `ether type`: the kernel takes a frame with a tag of VLAN 0 for one
        // without, and so must the rules.
        format!(
            "table bridge {TABLE} {{\n\
             {sets}\
             \tchain frames {{\n\
             \t\tether saddr {mac} counter drop\n\
             \t\tudp dport {{ 68, 546 }} counter drop\n\
             {accept_of_vlan}\
             \t\tmeta protocol {{ 0x8100, 0x88a8 }} counter drop\n\
             \t\tmeta protocol arp arp saddr ip {{ {gateway}, {everybody} }} counter drop\n\
             \t\tmeta protocol arp arp saddr ip != 0.0.0.0 arp saddr ip != {subnet} counter drop\n\
             \t\tmeta protocol ip ip saddr {{ {gateway}, {everybody} }} counter drop\n\
             \t\tmeta protocol ip ip saddr != 0.0.0.0 ip saddr != {subnet} counter drop\n\
             \t\tmeta protocol ip6 icmpv6 type {{ nd-router-advert, nd-redirect }} counter drop\n\
             \t\tmeta protocol ip icmp type redirect counter drop\n\
             \t}}\n\
             \tchain claims {{\n\
             \t\tether saddr @macs iif . ether saddr != @mac_holders meta priority set {claim}\n\
             {return_of_vlan}\
             \t\tmeta protocol arp arp saddr ip @held iif . arp saddr ip != @holders meta priority set {claim}\n\
             \t\tmeta protocol ip ip saddr @held iif . ip saddr != @holders meta priority set {claim}\n\
             \t}}\n\
             \tchain strict_port {{\n\
             \t\tiif . ether saddr != @mac_holders counter drop\n\
             {return_of_vlan}\
             \t\tmeta protocol arp iif . arp saddr ether != @mac_holders counter drop\n\
             \t\tmeta protocol arp arp saddr ip != 0.0.0.0 iif . arp saddr ip != @holders counter drop\n\
             \t\tmeta protocol ip ip saddr != 0.0.0.0 iif . ip saddr != @holders counter drop\n\
             \t}}\n\
             \tchain early {{\n\
             \t\ttype filter hook prerouting priority -300;\n\
             \t\tiif @strict jump strict_port\n\
             \t\tiif @bare ip daddr != 127.0.0.0/8 ip frag-off & 0x3fff != 0 meta priority set {fragment}\n\
             \t\tiif @ports goto frames\n\
             \t\tip daddr != 127.0.0.0/8 ip frag-off & 0x3fff != 0 meta priority set {fragment}\n\
             \t}}\n\
             \tchain between {{\n\
             \t\ttype filter hook forward priority -300;\n\
             \t\toif != @ports return\n\
             \t\tjump claims\n\
             \t\tmeta priority {{ {claim}, {fragment} }} counter drop\n\
             \t\tiif != @ports jump frames\n\
             \t}}\n\
             \tchain up {{\n\
             \t\ttype filter hook input priority -300;\n\
             \t\tiif @strict jump strict_port\n\
             \t\tjump claims\n\
             \t\tmeta priority @refused counter drop\n\
             \t}}\n\
             }}\n"
        )
    }
}
