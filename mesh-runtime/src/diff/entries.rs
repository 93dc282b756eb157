//! Routes, neighbours and forwarding entries over the VXLAN device.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use mesh_layout::overlay_mac;

use super::{
    Plan,
    change::{Change, OverlayRoute},
    containers::plan_containers,
    devices::OverlayState,
};
use crate::{
    ebpf::Mac,
    observed::{Forwarding, Neighbour, NeighbourState, Observed, Route},
    problem::Problem,
    settings::Settings,
    wanted::{Wanted, subnet::gateway},
};

/// `RTPROT_KERNEL`: routes the kernel makes for the addresses of interfaces.
const PROTOCOL_KERNEL: u8 = 2;

pub(super) struct Context<'a> {
    pub(super) settings: &'a Settings,
    pub(super) wanted: &'a Wanted,
    pub(super) observed: &'a Observed,
    pub(super) subnet: Ipv4Net,
    pub(super) overlay: OverlayState,
    /// Addresses the plan removes, with their interface.
    pub(super) stale_addresses: Vec<(u32, Ipv4Net)>,
}

pub(super) fn plan_entries(context: &Context<'_>, plan: &mut Plan) {
    plan_containers(
        context.settings,
        context.wanted,
        context.observed,
        context.subnet,
        plan,
    );
    let wanted = context.wanted.destinations();
    plan_routes(context, &wanted, plan);
    if context.overlay == OverlayState::Absent {
        return;
    }
    let accepted: BTreeSet<Ipv4Net> = wanted.difference(&plan.blocked).copied().collect();
    plan_neighbours(context, &accepted, plan);
    plan_forwarding(context, &accepted, plan);
}

fn plan_routes(context: &Context<'_>, wanted: &BTreeSet<Ipv4Net>, plan: &mut Plan) {
    let mut routes: BTreeMap<Ipv4Net, Vec<&Route>> = BTreeMap::new();
    for route in &context.observed.routes {
        if context.settings.cluster.cidr.contains(&route.destination) {
            routes.entry(route.destination).or_default().push(route);
        }
    }
    for (destination, routes) in &routes {
        if !wanted.contains(destination) {
            remove(routes.iter().copied().filter(|route| route.is_ours()), plan);
        }
    }
    for &destination in wanted {
        let here = routes.get(&destination).map_or(&[][..], Vec::as_slice);
        plan_route(context, destination, here, plan);
    }
}

/// Plans the one route to a wanted destination, given all there are.
fn plan_route(context: &Context<'_>, destination: Ipv4Net, here: &[&Route], plan: &mut Plan) {
    let goal = OverlayRoute {
        destination,
        source: gateway(context.subnet),
    };
    let (ours, others): (Vec<&Route>, Vec<&Route>) =
        here.iter().copied().partition(|route| route.is_ours());
    let (preferred, surplus): (Vec<&Route>, Vec<&Route>) =
        ours.into_iter().partition(|route| route.metric == 0);
    remove(surplus.into_iter(), plan);
    let in_place = matches!(&preferred[..], [only] if is_goal(only, &goal, context.overlay));
    if let Some(foreign) = others.iter().find(|route| !vanishes(context, route)) {
        plan.problems.push(Problem::ForeignRoute {
            destination,
            description: describe(foreign, context.observed),
        });
        // A route of ours that carries traffic stays: the other one came later.
        if !in_place {
            remove(preferred.into_iter(), plan);
            plan.blocked.insert(destination);
        }
        return;
    }
    if in_place || context.overlay == OverlayState::Absent {
        return;
    }
    // Deleting the device takes its routes along, so there is nothing left to replace.
    let left: Vec<&Route> = match context.overlay {
        OverlayState::Present(_) => preferred,
        _ => preferred
            .into_iter()
            .filter(|route| !goes_with_device(context, route))
            .collect(),
    };
    match &left[..] {
        [] => plan.changes.push(Change::AddRoute(goal)),
        [_] => plan.changes.push(Change::ReplaceRoute(goal)),
        _ => {
            remove(left.into_iter(), plan);
            plan.changes.push(Change::AddRoute(goal));
        }
    }
}

fn is_goal(route: &Route, goal: &OverlayRoute, overlay: OverlayState) -> bool {
    matches!(overlay, OverlayState::Present(index) if *route == goal.on(index))
}

/// Whether a route leads over the device that the plan deletes.
fn goes_with_device(context: &Context<'_>, route: &Route) -> bool {
    let device = context.observed.link_named(&context.settings.overlay);
    route.link.is_some() && route.link == device.map(|link| link.index)
}

/// Whether the plan's other changes make the kernel drop a route: it goes with its device,
/// and with the address it was made for or prefers as its source.
fn vanishes(context: &Context<'_>, route: &Route) -> bool {
    let with_device = context.overlay == OverlayState::New && goes_with_device(context, route);
    let with_address = context.stale_addresses.iter().any(|&(link, address)| {
        let made_for_it = route.protocol == PROTOCOL_KERNEL
            && route.link == Some(link)
            && route.destination == address.trunc();
        made_for_it || route.source == Some(address.addr())
    });
    with_device || with_address
}

fn remove<'a>(routes: impl Iterator<Item = &'a Route>, plan: &mut Plan) {
    plan.changes.extend(routes.map(|route| Change::RemoveRoute {
        destination: route.destination,
        metric: route.metric,
    }));
}

fn plan_neighbours(context: &Context<'_>, accepted: &BTreeSet<Ipv4Net>, plan: &mut Plan) {
    let observed: BTreeMap<Ipv4Addr, &Neighbour> = match context.overlay {
        OverlayState::Present(index) => context
            .observed
            .neighbours
            .iter()
            .filter(|neighbour| neighbour.link == index)
            .map(|neighbour| (neighbour.address, neighbour))
            .collect(),
        _ => BTreeMap::new(),
    };
    let wanted: BTreeMap<Ipv4Addr, Mac> = accepted
        .iter()
        .map(|subnet| (subnet.network(), overlay_mac(subnet.network().octets())))
        .collect();
    for (&address, &mac) in &wanted {
        let in_place = observed.get(&address).is_some_and(|neighbour| {
            neighbour.state == NeighbourState::Permanent && neighbour.mac == Some(mac)
        });
        if !in_place {
            plan.changes.push(Change::SetNeighbour { address, mac });
        }
    }
    for (&address, neighbour) in &observed {
        if !wanted.contains_key(&address) && neighbour.state != NeighbourState::Unusable {
            plan.changes.push(Change::RemoveNeighbour { address });
        }
    }
}

fn plan_forwarding(context: &Context<'_>, accepted: &BTreeSet<Ipv4Net>, plan: &mut Plan) {
    let wanted: BTreeMap<Mac, Ipv4Addr> = context
        .wanted
        .peers
        .iter()
        .filter(|(subnet, _)| accepted.contains(subnet))
        .map(|(subnet, peer)| (overlay_mac(subnet.network().octets()), peer.address))
        .collect();
    let mut in_place: BTreeSet<Mac> = BTreeSet::new();
    if let OverlayState::Present(index) = context.overlay {
        let held = |entry: &&Forwarding| entry.link == index && entry.bridge.is_none();
        for entry in context.observed.forwarding.iter().filter(held) {
            match wanted.get(&entry.mac) {
                Some(&remote) if entry.permanent && entry.remote == Some(remote) => {
                    in_place.insert(entry.mac);
                }
                // Setting an entry replaces the one with the same address.
                Some(_) => {}
                None => plan.changes.push(Change::RemoveForwarding {
                    mac: entry.mac,
                    remote: entry.remote,
                }),
            }
        }
    }
    for (&mac, &remote) in &wanted {
        if !in_place.contains(&mac) {
            plan.changes.push(Change::SetForwarding { mac, remote });
        }
    }
}

/// A route in the words of `ip route`.
pub(crate) fn describe(route: &Route, observed: &Observed) -> String {
    let mut words = vec![route.destination.to_string()];
    if let Some(gateway) = route.gateway {
        words.push(format!("via {gateway}"));
    }
    if let Some(link) = route.link {
        words.push(format!("dev {}", observed.name_of(link)));
    }
    words.push(format!("proto {}", route.protocol));
    if route.metric != 0 {
        words.push(format!("metric {}", route.metric));
    }
    words.join(" ")
}
