//! The rules that see whether somebody else's drop what is forwarded from and to containers.
//!
//! An `accept` in our tables does not overrule a drop in another, and what another's rules mean is not for us to
//! read. So the first packets of connections are counted before the others' chains, and behind them.

use super::{Frame, element::NOWHERE, translation::MASQUERADED};
use crate::wanted::subnet::gateway;

/// A way over this host that others filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Passage {
    /// VXLAN from other nodes to this host, which hands it to the VXLAN device.
    Underlay,
    /// From other nodes to containers, before it is known where a packet goes.
    Arrival,
    /// From other nodes to containers.
    FromNodes,
    /// From containers to other nodes.
    ToNodes,
    /// Between containers of this node, where the host filters what its bridges carry.
    Between,
    /// From containers to whatever is not of the mesh.
    Out,
    /// From elsewhere to published ports.
    In,
}

impl Passage {
    pub(crate) const ALL: [Self; 7] = [
        Self::Underlay,
        Self::Arrival,
        Self::FromNodes,
        Self::ToNodes,
        Self::Between,
        Self::Out,
        Self::In,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Underlay => "underlay",
            Self::Arrival => "arrival",
            Self::FromNodes => "from_nodes",
            Self::ToNodes => "to_nodes",
            Self::Between => "between",
            Self::Out => "out",
            Self::In => "in",
        }
    }

    /// Name of the counter before others' rules.
    pub(crate) fn entered(self) -> String {
        format!("entered_{}", self.name())
    }

    /// Name of the counter behind them.
    pub(crate) fn passed(self) -> String {
        format!("passed_{}", self.name())
    }
}

impl Frame {
    /// The counters that have names.
    pub(super) fn counters(&self) -> String {
        let both = |passage: Passage| [passage.entered(), passage.passed()];
        let of_passages = Passage::ALL.into_iter().flat_map(both);
        std::iter::once(MASQUERADED.to_owned())
            .chain(of_passages)
            .map(|name| format!("\tcounter {name} {{ }}\n"))
            .collect()
    }

    /// The chains that count. Behind our own chain of the same hook, whose drops are none of others.
    pub(super) fn passages(&self) -> String {
        let Self {
            bridge,
            overlay,
            subnet,
            settings,
            ..
        } = self;
        let mask = subnet.netmask();
        let gateway = gateway(*subnet);
        let ours = format!("{{ \"{bridge}\", \"{overlay}\" }}");
        let rule =
            |matches: &str, counter: String| format!("\t\t{matches} counter name \"{counter}\"\n");
        // A bridge that filters tells no interface that a packet has come by when it leaves; nor does the host
        // of its own. Who began the connection tells them apart.
        let of_containers = format!(
            "oifname \"{bridge}\" ct original ip saddr {subnet} ct original ip saddr != {gateway}"
        );
        let arrival = format!(
            "iifname \"{overlay}\" ip saddr & {mask} @subnets ip daddr {subnet} ip daddr != {gateway}"
        );
        let vxlan = format!("udp dport {} ip saddr @peers", settings.vxlan_port);
        let from_nodes = format!("iifname \"{overlay}\" oifname \"{bridge}\"");
        let to_nodes = format!("iifname \"{bridge}\" oifname \"{overlay}\"");
        let between = format!("iifname \"{bridge}\" oifname \"{bridge}\" ip saddr {subnet}");
        let out = format!("iifname \"{bridge}\" oifname != {ours}");
        let from_elsewhere =
            format!("meta iif != {NOWHERE} iifname != {ours} oifname \"{bridge}\" ct status dnat");
        let new = |entered: bool| {
            let counter = |passage: Passage| match entered {
                true => passage.entered(),
                false => passage.passed(),
            };
            let between = if entered { &between } else { &of_containers };
            [
                (&from_nodes, Passage::FromNodes),
                (&to_nodes, Passage::ToNodes),
                (between, Passage::Between),
                (&out, Passage::Out),
                (&from_elsewhere, Passage::In),
            ]
            .map(|(matches, passage)| rule(matches, counter(passage)))
            .concat()
        };
        format!(
            "\tchain taken_in {{\n\
             \t\ttype filter hook input priority filter - 9;\n\
             {}\
             \t}}\n\
             \tchain handed_up {{\n\
             \t\ttype filter hook input priority filter + 20;\n\
             {}\
             \t}}\n\
             \tchain arriving {{\n\
             \t\ttype filter hook prerouting priority -445;\n\
             {}\
             \t}}\n\
             \tchain entering {{\n\
             \t\ttype filter hook forward priority filter - 9;\n\
             {}\
             \t\tmeta nfproto != ipv4 return\n\
             \t\tct state != new return\n\
             {}\
             \t}}\n\
             \tchain passing {{\n\
             \t\ttype filter hook postrouting priority srcnat + 20;\n\
             \t\tmeta nfproto != ipv4 return\n\
             \t\tct state != new return\n\
             {}\
             \t}}\n",
            rule(&vxlan, Passage::Underlay.entered()),
            rule(&vxlan, Passage::Underlay.passed()),
            rule(&arrival, Passage::Arrival.entered()),
            rule(&from_nodes, Passage::Arrival.passed()),
            new(true),
            new(false),
        )
    }
}
