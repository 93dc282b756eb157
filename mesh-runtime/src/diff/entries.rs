//! Routes, neighbours and forwarding entries over the VXLAN device.

use std::collections::BTreeMap;

use super::change::Change;
use crate::{
    desired::entries::{Entries, OverlayRoute},
    observed::{Forwarding, NeighbourState, Observed, OverlayEntries, Route},
    settings::Settings,
};

/// What makes the entries as they are to be.
pub(super) fn diff(
    settings: &Settings,
    desired: &Entries,
    observed: &Observed,
    changes: &mut Vec<Change>,
) {
    routes(settings, desired, observed, changes);
    // Without a device there is nothing to lean on; a new one has no entries yet.
    if let Some(staying) = desired.overlay() {
        neighbours(desired, observed, staying, changes);
        forwarding(desired, observed, staying, changes);
    }
}

fn routes(settings: &Settings, desired: &Entries, observed: &Observed, changes: &mut Vec<Change>) {
    let unwanted = observed.routes.iter().filter(|route| {
        route.is_ours()
            && settings.cluster.cidr.contains(&route.destination)
            && !desired.routes.contains_key(&route.destination)
    });
    remove(unwanted, changes);
    for (&destination, goal) in &desired.routes {
        let here = observed.routes.to(destination).iter();
        let ours: Vec<&Route> = here.filter(|route| route.is_ours()).collect();
        route(desired, goal, &ours, changes);
    }
}

/// The one route to a destination, given all of ours.
fn route(desired: &Entries, goal: &OverlayRoute, here: &[&Route], changes: &mut Vec<Change>) {
    let (preferred, surplus): (Vec<&Route>, Vec<&Route>) =
        here.iter().partition(|route| route.metric == 0);
    remove(surplus.into_iter(), changes);
    let Some(staying) = desired.overlay() else {
        return;
    };
    if let (Some(index), [only]) = (staying, &preferred[..])
        && **only == goal.on(index)
    {
        return;
    }
    // Deleting the device takes its routes along, so there is nothing left to replace.
    let left: Vec<&Route> = preferred
        .into_iter()
        .filter(|route| !desired.goes_with_device(route))
        .collect();
    match &left[..] {
        [] => changes.push(Change::AddRoute(*goal)),
        [_] => changes.push(Change::ReplaceRoute(*goal)),
        _ => {
            remove(left.into_iter(), changes);
            changes.push(Change::AddRoute(*goal));
        }
    }
}

fn remove<'a>(routes: impl Iterator<Item = &'a Route>, changes: &mut Vec<Change>) {
    changes.extend(routes.map(|route| Change::RemoveRoute {
        destination: route.destination,
        metric: route.metric,
    }));
}

fn neighbours(
    desired: &Entries,
    observed: &Observed,
    overlay: Option<u32>,
    changes: &mut Vec<Change>,
) {
    let nothing = BTreeMap::new();
    let there = overlay.map_or(&nothing, |_| &observed.overlay.neighbours);
    for (&address, &mac) in &desired.neighbours {
        let in_place = there.get(&address).is_some_and(|neighbour| {
            neighbour.state == NeighbourState::Permanent && neighbour.mac == Some(mac)
        });
        if !in_place {
            changes.push(Change::SetNeighbour { address, mac });
        }
    }
    for (&address, neighbour) in there {
        if !desired.neighbours.contains_key(&address) && neighbour.state != NeighbourState::Unusable
        {
            changes.push(Change::RemoveNeighbour { address });
        }
    }
}

fn forwarding(
    desired: &Entries,
    observed: &Observed,
    overlay: Option<u32>,
    changes: &mut Vec<Change>,
) {
    let nothing = OverlayEntries::default();
    let there = overlay.map_or(&nothing, |_| &*observed.overlay);
    let unwanted = there.forwarding.values();
    changes.extend(
        unwanted
            .filter(|entry| !desired.forwarding.contains_key(&entry.mac))
            .map(|entry| Change::RemoveForwarding {
                mac: entry.mac,
                remote: entry.remote,
            }),
    );
    for (&mac, &remote) in &desired.forwarding {
        let in_place = |entry: &Forwarding| entry.permanent && entry.remote == Some(remote);
        // Setting an entry replaces the one with the same address.
        if !there.of(mac).any(in_place) {
            changes.push(Change::SetForwarding { mac, remote });
        }
    }
}
