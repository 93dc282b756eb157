//! From wanted and observed state to the changes that make one the other. Pure.

pub(crate) mod change;
mod containers;
mod devices;
mod entries;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub(crate) use devices::{gateway_in, is_own_bridge_mac, subnet_of_mac};
pub(crate) use entries::describe;
use ipnet::Ipv4Net;

use crate::{
    desired::underlay::{Underlay, underlay},
    observed::Observed,
    problem::Problem,
    settings::Settings,
    wanted::Wanted,
};
use change::Change;

/// What is to be done, and what cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In the order in which they are to be made.
    pub(crate) changes: Vec<Change>,
    /// What is in the way.
    pub(crate) problems: Vec<Problem>,
    /// Destinations that a foreign route keeps from being taken: they get no entry at all.
    pub(crate) blocked: BTreeSet<Ipv4Net>,
    /// The host's side, if it is known.
    pub(crate) underlay: Option<Underlay>,
}

/// Computes what turns the observed state into the wanted one.
///
/// Nothing is wanted, and nothing removed, before the node has a subnet. Only what this
/// project makes is ever changed or removed: its two devices by name and kind, neighbours
/// and forwarding entries on its VXLAN device, and routes with its protocol number inside
/// the cluster's network.
pub(crate) fn plan(settings: &Settings, wanted: &Wanted, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let Some(subnet) = wanted.subnet else {
        return plan;
    };
    match underlay(settings, wanted, observed) {
        Ok(underlay) => plan.underlay = Some(underlay),
        Err(problem) => plan.problems.push(problem),
    }
    if !observed.ip_forward {
        plan.changes.push(Change::EnableForwarding);
    }
    let stale_addresses = devices::plan_bridge(settings, wanted, observed, subnet, &mut plan);
    let mut overlay = devices::plan_overlay(settings, observed, subnet, &mut plan);
    if stale_addresses.is_none() {
        // Without the bridge's address our routes have no source, and the kernel refuses them.
        overlay = devices::OverlayState::Absent;
    }
    entries::plan_entries(
        &entries::Context {
            settings,
            wanted,
            observed,
            subnet,
            overlay,
            stale_addresses: stale_addresses.unwrap_or_default(),
        },
        &mut plan,
    );
    // Stable, so that devices keep the order in which they were planned.
    plan.changes.sort_by_key(Change::stage);
    plan
}
