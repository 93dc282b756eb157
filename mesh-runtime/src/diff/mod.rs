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

use std::{collections::BTreeSet, sync::Arc};

use ipnet::Ipv4Net;

use crate::{
    desired::{Desired, entries::Entries},
    observed::{Observed, OverlayEntries, Routes},
    settings::Settings,
};
use change::Change;

/// Entries, and what the kernel showed of them when nothing was to be changed. As long as all three are the same,
/// nothing is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settled {
    entries: Arc<Entries>,
    routes: Arc<Routes>,
    overlay: Arc<OverlayEntries>,
}

impl Settled {
    fn of(desired: &Desired, observed: &Observed) -> Self {
        Self {
            entries: Arc::clone(&desired.entries),
            routes: Arc::clone(&observed.routes),
            overlay: Arc::clone(&observed.overlay),
        }
    }

    fn holds(&self, desired: &Desired, observed: &Observed) -> bool {
        Arc::ptr_eq(&self.entries, &desired.entries)
            && Arc::ptr_eq(&self.routes, &observed.routes)
            && Arc::ptr_eq(&self.overlay, &observed.overlay)
    }
}

/// The changes that make the kernel show what it is to show, in the order in which they are to be made.
///
/// Entries, of which there may be thousands, are compared if they have changed since they `settled`.
pub(crate) fn diff(
    settings: &Settings,
    desired: &Desired,
    observed: &Observed,
    settled: &mut Settled,
) -> Vec<Change> {
    let mut changes = Vec::new();
    if !desired.configured {
        return changes;
    }
    if !observed.ip_forward {
        changes.push(Change::EnableForwarding);
    }
    devices::diff(settings, &desired.devices, observed, &mut changes);
    containers::diff(&desired.containers, observed, &mut changes);
    if !settled.holds(desired, observed) {
        let before = changes.len();
        entries::diff(settings, &desired.entries, observed, &mut changes);
        if changes.len() == before {
            *settled = Settled::of(desired, observed);
        }
    }
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
