//! What the loop tells of itself when it is measured. It reads the maps and goes by what is known of the rest: a scrape
//! has the kernel read no more than it is read anyway.

use std::collections::BTreeMap;

use mesh_metrics::catalog::common::ProblemCount;

use super::Reconciler;
use crate::{metrics::Measured, problem::Problem};

impl Reconciler {
    /// All that a scrape shows.
    pub(super) fn measured(&self) -> Measured {
        let overlay = self.observed.link_named(&self.settings.overlay);
        Measured {
            list: self.list_peers(),
            fast_path: self.fast_path_view(),
            endpoints: self.endpoint_views().len(),
            addresses: self.registered.ipam().map(mesh_ipam::Ipam::usage),
            overlay_mtu: overlay.map_or(0, |link| link.mtu),
            last_sync: self.account.last_sync,
            problems: self.problem_counts(),
            tally: self.account.tally().clone(),
        }
    }

    /// How many problems there are, by code.
    fn problem_counts(&self) -> Vec<ProblemCount> {
        let mut counts: BTreeMap<&str, ProblemCount> = BTreeMap::new();
        for kind in self.standing.problems().map(|problem| problem.kind) {
            let count = counts.entry(kind.code).or_insert(ProblemCount {
                code: kind.code,
                severity: kind.severity.as_str(),
                count: 0,
            });
            count.count += 1;
        }
        counts.into_values().collect()
    }

    /// Why the runtime cannot do its work, if it cannot: it does not know what the kernel has.
    pub(super) fn health(&self) -> Result<(), String> {
        let unread = self
            .problems
            .iter()
            .find(|it| matches!(it, Problem::Observe(_)));
        unread.map_or(Ok(()), |problem| Err(problem.to_string()))
    }
}
