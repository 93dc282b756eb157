//! From a look at the packet filter to a message.

use mesh_proto::mesh::{CheckFirewallResponse, CheckedSet, ForeignChain};

use crate::{
    apply::firewall::look::{ACCEPT, BaseChain, DROP, Family},
    reconcile::firewall_check::FirewallCheck,
};

/// What was found, as a message.
pub(super) fn write(check: FirewallCheck) -> CheckFirewallResponse {
    let FirewallCheck {
        wanted_rules,
        rules,
        sets,
        untouched,
        standing,
        foreign,
        legacy,
    } = check;
    CheckFirewallResponse {
        wanted: wanted_rules.is_some(),
        wanted_rules: count(wanted_rules.unwrap_or_default()),
        rules: count(rules),
        sets: sets
            .into_iter()
            .map(|set| CheckedSet {
                name: set.name.to_owned(),
                wanted: count(set.wanted),
                missing: count(set.missing),
                foreign: count(set.foreign),
            })
            .collect(),
        untouched,
        refused: standing.refused.unwrap_or_default(),
        narrowed: standing.narrowed.unwrap_or_default(),
        repairs: standing.repairs,
        guards: standing.guards,
        unguarded: standing.unguarded.unwrap_or_default(),
        foreign_chains: foreign.into_iter().map(chain).collect(),
        legacy_tables: legacy,
    }
}

fn chain(chain: BaseChain) -> ForeignChain {
    ForeignChain {
        hook: hook(chain.family, chain.hook).to_owned(),
        name: chain.name,
        priority: chain.priority,
        policy: match chain.policy {
            Some(DROP) => "drop".to_owned(),
            Some(ACCEPT) => "accept".to_owned(),
            _ => String::new(),
        },
        has_rules: chain.has_rules,
        interface: chain.interface,
    }
}

/// Numbers of hooks: `NF_INET_*` (linux/netfilter.h), `NF_BR_*` (linux/netfilter_bridge.h), `NF_NETDEV_*`.
fn hook(family: Family, number: u32) -> &'static str {
    match (family, number) {
        (Family::Netdev, 0) => "ingress",
        (Family::Netdev, 1) => "egress",
        (_, 0) => "prerouting",
        (_, 1) => "input",
        (_, 2) => "forward",
        (_, 3) => "output",
        (_, 4) => "postrouting",
        (Family::Ip, 5) => "ingress",
        _ => "unknown",
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
