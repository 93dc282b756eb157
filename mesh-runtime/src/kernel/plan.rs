//! From wanted and observed state to the changes that make one the other. Pure.

mod containers;
mod devices;
mod entries;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub(crate) use devices::{gateway_in, is_own_bridge_mac, subnet_of_mac};
pub(crate) use entries::describe;
use ipnet::Ipv4Net;

use super::{
    change::Change,
    observed::Observed,
    underlay::{Underlay, underlay},
};
use crate::{
    options::{FastPathMode, RuntimeOptions},
    problem::Problem,
    subnet::Cluster,
    wanted::Wanted,
};

/// Names and networks that hold for the life of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) cluster: Cluster,
    /// Name of the bridge.
    pub(crate) bridge: String,
    /// Name of the VXLAN device.
    pub(crate) overlay: String,
    /// Whether eBPF programs may carry traffic; they guard in any case.
    pub(crate) forwarding: bool,
    /// Networks beyond the underlay whose packets may be routed into containers.
    pub(crate) routed_from: BTreeSet<Ipv4Net>,
    /// Whether containers go out under the address of their host.
    pub(crate) masquerade: bool,
}

impl From<&RuntimeOptions> for Settings {
    fn from(options: &RuntimeOptions) -> Self {
        Self {
            cluster: Cluster::from(options),
            bridge: options.bridge.clone(),
            overlay: options.overlay_interface.clone(),
            forwarding: options.fast_path != FastPathMode::Off,
            routed_from: options.routed_from.iter().copied().collect(),
            masquerade: options.masquerade,
        }
    }
}

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
