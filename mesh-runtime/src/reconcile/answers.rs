//! From the problems of a round to the answer a caller gets.

use ipnet::Ipv4Net;

use super::Reconciler;
use crate::{api::command::Refusal, problem::Problem};

impl Reconciler {
    /// What keeps one of the devices from being as it should.
    pub(super) fn device_problem(&self) -> Option<Refusal> {
        let texts: Vec<String> = self
            .problems
            .iter()
            .filter(|problem| problem.of_device())
            .map(ToString::to_string)
            .collect();
        (!texts.is_empty()).then(|| Refusal::new(texts.join("; ")))
    }

    /// What keeps a route from being in place.
    pub(super) fn route_problem(&self, destination: Ipv4Net) -> Option<&Problem> {
        let of_host = |problem: &&Problem| {
            matches!(
                problem,
                Problem::NoHostAddress { .. } | Problem::HostAddressNotHere(_)
            )
        };
        // A route of ours that was there before a foreign one joined it carries on.
        let carries = !self.desired.entries.blocked.contains(&destination);
        let foreign = |problem: &&Problem| matches!(problem, Problem::ForeignRoute { .. });
        self.peer_problem(destination)
            .filter(|problem| !(carries && foreign(problem)))
            .or_else(|| self.problems.iter().find(|problem| problem.of_device()))
            .or_else(|| {
                // Without an underlay there is no overlay to route over.
                let overlay = self.observed.link_named(&self.settings.overlay);
                let problem = self.problems.iter().find(of_host);
                problem.filter(|_| overlay.is_none())
            })
    }

    /// What keeps a peer from being in place.
    pub(super) fn peer_problem(&self, subnet: Ipv4Net) -> Option<&Problem> {
        self.problems
            .iter()
            .find(|problem| problem.of_destination(subnet))
    }
}
