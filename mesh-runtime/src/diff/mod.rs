//! From what the kernel is to show, and what it shows, to the changes that make one the other. Pure.

pub(crate) mod change;
mod containers;
mod devices;
mod entries;
#[cfg(test)]
mod model;
pub(crate) mod removal;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use crate::{desired::Desired, observed::Observed, settings::Settings};
use change::Change;

/// The changes that make the kernel show what it is to show, in the order in which they are to be made.
pub(crate) fn diff(settings: &Settings, desired: &Desired, observed: &Observed) -> Vec<Change> {
    let mut changes = Vec::new();
    if !desired.configured {
        return changes;
    }
    if !observed.ip_forward {
        changes.push(Change::EnableForwarding);
    }
    devices::diff(settings, &desired.devices, observed, &mut changes);
    containers::diff(&desired.containers, observed, &mut changes);
    entries::diff(settings, &desired.entries, observed, &mut changes);
    // Stable, so that devices keep the order in which they were planned.
    changes.sort_by_key(Change::stage);
    changes
}

/// The destinations whose entries the kernel does not show as they are to be.
pub(crate) fn missing(
    settings: &Settings,
    desired: &Desired,
    observed: &Observed,
) -> BTreeSet<Ipv4Net> {
    let mut changes = Vec::new();
    entries::diff(settings, &desired.entries, observed, &mut changes);
    let subnet_of = |address| settings.cluster.subnet_of(address);
    let missing = changes.iter().filter_map(|change| match change {
        Change::AddRoute(route) | Change::ReplaceRoute(route) => Some(route.destination),
        Change::SetNeighbour { address, .. } => subnet_of(*address),
        Change::SetForwarding {
            mac: [_, _, a, b, c, d],
            ..
        } => subnet_of([*a, *b, *c, *d].into()),
        _ => None,
    });
    missing.chain(desired.entries.blocked.clone()).collect()
}
