//! What the host and the bridge remember of containers.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::change::Change;
use crate::{
    desired::containers::Containers,
    ebpf::Mac,
    observed::{Forwarding, LinkKind, NeighbourState, Observed},
};

/// What makes host and bridge remember what is known of containers.
pub(super) fn diff(desired: &Containers, observed: &Observed, changes: &mut Vec<Change>) {
    let Some(bridge) = desired.bridge else {
        return;
    };
    changes.extend(
        misremembered(desired, observed, bridge).map(|address| Change::ForgetContainer { address }),
    );
    pins(desired, observed, bridge, changes);
    // A port that is published no more keeps it: somebody else may have set it.
    let ports = observed.ports_of(bridge).filter(|port| !port.hairpin);
    changes.extend(
        ports
            .filter(|port| desired.hairpins.contains(&port.index))
            .map(|port| Change::GiveBack { port: port.index }),
    );
}

/// Addresses of which the host remembers another MAC address than that of the container which is
/// known to hold it, so that it has to ask anew: the address has moved, or was announced by somebody
/// else while nobody guarded.
fn misremembered(
    desired: &Containers,
    observed: &Observed,
    bridge: u32,
) -> impl Iterator<Item = Ipv4Addr> {
    let learnt = observed
        .neighbours
        .iter()
        .filter(move |it| it.link == bridge && it.state == NeighbourState::Learnt);
    let wrong = learnt.filter(|it| {
        let holder = desired.endpoints.get(&it.address).filter(|path| path.held);
        holder.is_some_and(|path| it.mac.is_some_and(|mac| mac != path.mac))
    });
    wrong.map(|it| it.address)
}

/// The bridge's forwarding entries. The kernel forgets one with its port.
fn pins(desired: &Containers, observed: &Observed, bridge: u32, changes: &mut Vec<Change>) {
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
    for (&mac, &port) in &desired.pins {
        if ports.contains(&port) && !pinned.contains(&(mac, port)) {
            // It replaces one that is elsewhere.
            changes.push(Change::PinContainer { mac, port });
        }
    }
    let stale = |entry: &&Forwarding| {
        entry.bridge == Some(bridge)
            && entry.sticky
            && ports.contains(&entry.link)
            && !desired.pins.contains_key(&entry.mac)
    };
    let stale: BTreeSet<(Mac, u32)> = observed
        .forwarding
        .iter()
        .filter(stale)
        .map(|entry| (entry.mac, entry.link))
        .collect();
    changes.extend(
        stale
            .into_iter()
            .map(|(mac, port)| Change::UnpinContainer { mac, port }),
    );
}
