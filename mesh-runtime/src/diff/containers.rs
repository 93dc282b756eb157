//! What the host and the bridge remember of containers.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::{Plan, change::Change};
use crate::{
    desired::endpoints::{endpoints, macs},
    ebpf::Mac,
    observed::{Forwarding, LinkKind, NeighbourState, Observed},
    settings::Settings,
    wanted::Wanted,
};

pub(super) fn plan_containers(
    settings: &Settings,
    wanted: &Wanted,
    observed: &Observed,
    subnet: Ipv4Net,
    plan: &mut Plan,
) {
    let Some(bridge) = observed.link_named(&settings.bridge) else {
        return;
    };
    plan.changes.extend(
        misremembered(wanted, observed, bridge.index, subnet)
            .map(|address| Change::ForgetContainer { address }),
    );
    pin(wanted, observed, bridge.index, plan);
    plan.changes.extend(
        published(wanted, observed, bridge.index, subnet)
            .into_iter()
            .map(|port| Change::GiveBack { port }),
    );
}

/// Ports of published containers that do not get their own frames back yet. One that is published no more
/// keeps it: somebody else may have set it.
fn published(wanted: &Wanted, observed: &Observed, bridge: u32, subnet: Ipv4Net) -> BTreeSet<u32> {
    if wanted.published.is_empty() {
        return BTreeSet::new();
    }
    let endpoints = endpoints(observed, bridge, subnet, &wanted.endpoints);
    let paths = wanted
        .published
        .iter()
        .filter_map(|(address, _)| endpoints.get(address));
    let ports: BTreeSet<u32> = observed
        .ports_of(bridge)
        .filter(|port| !port.hairpin)
        .map(|port| port.index)
        .collect();
    paths
        .map(|path| path.link)
        .filter(|port| ports.contains(port))
        .collect()
}

/// Addresses of which the host remembers another MAC address than that of the container which is
/// known to hold it, so that it has to ask anew: the address has moved, or was announced by somebody
/// else while nobody guarded.
fn misremembered(
    wanted: &Wanted,
    observed: &Observed,
    bridge: u32,
    subnet: Ipv4Net,
) -> impl Iterator<Item = Ipv4Addr> {
    let held = endpoints(observed, bridge, subnet, &wanted.endpoints);
    let learnt = observed
        .neighbours
        .iter()
        .filter(move |it| it.link == bridge && it.state == NeighbourState::Learnt);
    let wrong = learnt.filter(move |it| {
        let holder = held.get(&it.address).filter(|path| path.held);
        holder.is_some_and(|path| it.mac.is_some_and(|mac| mac != path.mac))
    });
    wrong.map(|it| it.address)
}

/// Plans that the bridge looks for a container's MAC address behind its own port alone. Otherwise it
/// learns it wherever a frame says so, and sends there what is the container's: also behind a port
/// that nobody guards yet. The kernel forgets an entry with its port.
fn pin(wanted: &Wanted, observed: &Observed, bridge: u32, plan: &mut Plan) {
    let ports: BTreeSet<u32> = observed
        .ports_of(bridge)
        .filter(|port| port.kind == LinkKind::Veth)
        .map(|port| port.index)
        .collect();
    let pinned: BTreeSet<(Mac, u32)> = observed
        .forwarding
        .iter()
        .filter(|entry| entry.bridge == Some(bridge) && entry.pinned)
        .map(|entry| (entry.mac, entry.link))
        .collect();
    // What this host itself is known by is no container's, whatever one gives its interface.
    let hosts: BTreeSet<Mac> = observed
        .links
        .values()
        .filter_map(|link| link.mac)
        .collect();
    let mut macs = macs(observed, bridge, &wanted.endpoints);
    macs.retain(|mac, _| !hosts.contains(mac));
    for (&mac, &port) in &macs {
        if ports.contains(&port) && !pinned.contains(&(mac, port)) {
            // It replaces one that is elsewhere.
            plan.changes.push(Change::PinContainer { mac, port });
        }
    }
    let stale = |entry: &&Forwarding| {
        entry.bridge == Some(bridge)
            && entry.sticky
            && ports.contains(&entry.link)
            && !macs.contains_key(&entry.mac)
    };
    let stale: BTreeSet<(Mac, u32)> = observed
        .forwarding
        .iter()
        .filter(stale)
        .map(|entry| (entry.mac, entry.link))
        .collect();
    plan.changes.extend(
        stale
            .into_iter()
            .map(|(mac, port)| Change::UnpinContainer { mac, port }),
    );
}
