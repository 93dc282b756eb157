//! What the kernel is to show, from settings, wanted and observed state. Pure.
//!
//! It is computed once a round. What is to be changed is a question of [`diff`](crate::diff) to it, and so are
//! status and readiness.

pub(crate) mod arrival;
pub(crate) mod containers;
pub(crate) mod devices;
pub(crate) mod endpoints;
pub(crate) mod entries;
pub(crate) mod fast_path;
pub(crate) mod firewall;
pub(crate) mod holders;
pub(crate) mod sysctl;
#[cfg(test)]
mod tests;
pub(crate) mod underlay;

use std::sync::Arc;

use crate::{
    ebpf::FastPathState, observed::Observed, problem::Problem, settings::Settings, wanted::Wanted,
};
use containers::Containers;
use devices::Devices;
use entries::Entries;
use firewall::Ruleset;
use underlay::{Underlay, underlay};

/// What the kernel is to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desired {
    /// Whether the node has a subnet. Nothing is wanted, and nothing removed, before.
    pub(crate) configured: bool,
    /// The host's side, if it is known.
    pub(crate) underlay: Option<Underlay>,
    /// Bridge and VXLAN device.
    pub(crate) devices: Devices,
    /// What leads to the peers over the VXLAN device.
    pub(crate) entries: Arc<Entries>,
    /// Where this node's containers are.
    pub(crate) containers: Containers,
    /// Maps and attachments of the programs; `None` until subnet, underlay and both devices are there.
    pub(crate) fast_path: Option<FastPathState>,
    /// The packet filter's rules; `None` until there is a bridge.
    pub(crate) firewall: Option<Ruleset>,
    /// What is in the way.
    pub(crate) problems: Vec<Problem>,
}

/// Computes what the kernel is to show.
///
/// Only what this project makes is ever part of it: its two devices by name and kind, neighbours
/// and forwarding entries on its VXLAN device, and routes with its protocol number inside the
/// cluster's network.
///
/// The entries of `before` are taken over where what they lean on is the same.
pub(crate) fn desired(
    settings: &Settings,
    wanted: &Wanted,
    observed: &Observed,
    before: Option<&Arc<Entries>>,
) -> Desired {
    let Some(subnet) = wanted.subnet else {
        return Desired::default();
    };
    let mut problems = Vec::new();
    let underlay = match underlay(settings, wanted, observed) {
        Ok(underlay) => Some(underlay),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    problems.extend(underlay.as_ref().and_then(Underlay::problem));
    problems.extend(foreign_addresses(settings, observed));
    problems.extend(observed.diversion.map(|diversion| Problem::Diverted {
        diversion,
        over: diversion.link.map(|link| observed.name_of(link)),
        cluster: settings.cluster.cidr,
    }));
    let devices = devices::devices(
        settings,
        wanted,
        observed,
        subnet,
        underlay.as_ref(),
        &mut problems,
    );
    let entries = Entries::new(settings, wanted, observed, &devices, before);
    problems.extend_from_slice(entries.problems());
    let containers = Containers::new(settings, wanted, observed, subnet);
    if let Some(bridge) = containers.bridge {
        let contests = holders::contests(observed, bridge, subnet, &wanted.endpoints);
        problems.extend(contests.into_iter().map(Problem::Contested));
    }
    let mut desired = Desired {
        configured: true,
        underlay,
        devices,
        entries,
        containers,
        fast_path: None,
        firewall: None,
        problems,
    };
    desired.fast_path = fast_path::fast_path_state(settings, wanted, observed, &desired);
    desired.firewall = Ruleset::new(settings, wanted, observed, &desired);
    if let Some(underlay) = &desired.underlay {
        let missing = observed.next_hops.unreachable();
        let unreachable = (!missing.is_empty()).then_some(Problem::NoRoute(missing));
        let bare = fast_path::without_ethernet(observed, underlay);
        let carries = settings.forwarding && observed.has_programs;
        let bare = (carries && !bare.is_empty()).then_some(Problem::NotEthernet(bare));
        desired.problems.extend(unreachable);
        desired.problems.extend(bare);
    }
    desired
}

/// Addresses of the cluster's network on interfaces that are none of ours.
fn foreign_addresses<'a>(
    settings: &'a Settings,
    observed: &'a Observed,
) -> impl Iterator<Item = Problem> + 'a {
    let within = observed
        .addresses
        .iter()
        .filter(|held| settings.cluster.cidr.contains(&held.address.addr()));
    within.filter_map(|held| {
        let link = observed.links.get(&held.link)?;
        (!settings.is_own(&link.name)).then(|| Problem::ForeignAddress {
            address: held.address,
            interface: link.name.clone(),
        })
    })
}
