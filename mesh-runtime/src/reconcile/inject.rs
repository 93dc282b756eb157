//! `InjectRoute`: the one call whose time counts, because it comes once for every peer.

use futures_util::future::join_all;
use mesh_layout::{VNI, overlay_mac};

use super::Reconciler;
use crate::{
    api::command::Refusal,
    apply::Applier,
    desired::entries::{OverlayRoute, describe},
    diff::change::Change,
    observed::{LinkKind, Route, events::Dirty, read::route_to},
    problem::Problem,
    wanted::{interface, subnet::gateway},
};

impl Reconciler {
    pub(super) async fn inject_route(
        &mut self,
        destination: &str,
        via: &str,
    ) -> Result<(), Refusal> {
        interface::check_via(via, &self.settings.overlay).map_err(Refusal::because)?;
        let own = self.subnet_before("InjectRoute")?;
        let destination = self
            .settings
            .cluster
            .parse_destination(destination, own)
            .map_err(Refusal::because)?;
        let new = self.wanted.injected.insert(destination);
        if new {
            self.state_writer.changed(self.wanted.generation);
        }
        let goal = OverlayRoute {
            destination,
            source: gateway(own),
        };
        let problem = match self.inject_directly(goal).await {
            Ok(true) => None,
            Ok(false) => {
                self.round(Dirty::STATE).await;
                self.route_problem(destination).cloned()
            }
            Err(problem) => Some(problem),
        };
        let Some(problem) = problem else {
            if new && !self.wanted.peers.contains_key(&destination) {
                tracing::info!(%destination, "route injected");
            }
            return Ok(());
        };
        // What passes by itself is tried again; a route of somebody else stays.
        if new && matches!(problem, Problem::ForeignRoute { .. }) {
            self.wanted.injected.remove(&destination);
            self.state_writer.changed(self.wanted.generation);
        }
        Err(Refusal::because(problem))
    }

    /// The short way: add this one route without reading everything. `Ok(false)`: this case
    /// needs a round.
    async fn inject_directly(&mut self, goal: OverlayRoute) -> Result<bool, Problem> {
        if self.outdated.devices || self.desired.underlay.is_none() {
            return Ok(false);
        }
        let overlay = self
            .observed
            .link_named(&self.settings.overlay)
            .filter(|link| link.up)
            .filter(|link| matches!(&link.kind, LinkKind::Vxlan(vxlan) if vxlan.vni == VNI))
            .map(|link| link.index);
        let Some(overlay) = overlay else {
            return Ok(false);
        };
        let there = match self.route_there(&goal).await {
            Ok(there) => there,
            Err(Answer::Foreign(problem)) => return Err(problem),
            Err(Answer::NeedsRound) => return Ok(false),
        };
        let mac = overlay_mac(goal.destination.network().octets());
        let mut changes = vec![Change::SetNeighbour {
            address: goal.gateway(),
            mac,
        }];
        if let Some(peer) = self.wanted.peers.get(&goal.destination) {
            changes.push(Change::SetForwarding {
                mac,
                remote: peer.address,
            });
        }
        if !there {
            // The kernel refuses it if there is another one after all.
            changes.push(Change::AddRoute(goal));
        }
        let applier = Applier::new(&self.netlink, &self.settings, &self.observed);
        let results = join_all(changes.iter().map(|change| applier.apply_entry(change))).await;
        if results.iter().any(Result::is_err) {
            self.outdated = self.outdated.and(Dirty::STATE);
            return Ok(false);
        }
        for change in &changes {
            self.observed.note(overlay, change);
        }
        Ok(true)
    }

    /// Whether our route is in place already.
    ///
    /// As long as the kernel has told of no change since it was read, what was read tells
    /// that there is none, of whatever metric. Otherwise the kernel is asked; a foreign route
    /// that is not its preferred one then waits for the next comparison.
    async fn route_there(&self, goal: &OverlayRoute) -> Result<bool, Answer> {
        let current = !self.outdated.and(self.events.pending()).routes;
        let known = |it: &Route| it.destination == goal.destination;
        if current && !self.observed.routes.iter().any(known) {
            return Ok(false);
        }
        let inside = gateway(goal.destination);
        let route = route_to(&self.netlink, goal.destination, inside)
            .await
            .map_err(|_| Answer::NeedsRound)?;
        let overlay = self.observed.link_named(&self.settings.overlay);
        match route {
            None => Ok(false),
            Some(route) if !route.is_ours() => Err(Answer::Foreign(Problem::ForeignRoute {
                destination: goal.destination,
                description: describe(&route, &self.observed),
            })),
            Some(route) if overlay.is_some_and(|link| route == goal.on(link.index)) => Ok(true),
            Some(_) => Err(Answer::NeedsRound),
        }
    }
}

/// Why a route cannot be added the short way.
enum Answer {
    /// Somebody else has one.
    Foreign(Problem),
    /// Ours is there and wrong, or the kernel did not say.
    NeedsRound,
}
