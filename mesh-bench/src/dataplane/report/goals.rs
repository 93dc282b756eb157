//! What the data plane is to reach.

use serde::Serialize;

use super::Report;
use crate::dataplane::{
    measure::{MTU, Measure},
    statistics::Spread,
    topology::Topology,
};

/// A limit of a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Limit {
    fn allows(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(limit) => write!(f, "≥ {limit:.2}"),
            Self::AtMost(limit) => write!(f, "≤ {limit:.2}"),
        }
    }
}

/// A goal and what was measured of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) limit: Limit,
    pub(crate) measured: f64,
    /// How far the rounds lie apart; absent where there are no rounds.
    pub(crate) spread: Option<Spread>,
    pub(crate) met: bool,
}

impl Goal {
    fn new(what: &'static str, limit: Limit, measured: f64, spread: Option<Spread>) -> Self {
        Self {
            what,
            limit,
            measured,
            spread,
            met: limit.allows(measured),
        }
    }

    /// What was measured, rounded no further than the verdict bears.
    pub(crate) fn shown(&self) -> String {
        let short = format!("{:.2}", self.measured);
        match short.parse() {
            Ok(rounded) if self.limit.allows(rounded) == self.met => short,
            _ => format!("{:.4}", self.measured),
        }
    }
}

/// The goals that this run has figures for.
pub(crate) fn goals(report: &Report) -> Vec<Goal> {
    let rate = Measure::PacketRate { pairs: 1 };
    let bulk = Measure::Bulk { pairs: 1, mtu: MTU };
    let ours = Topology::QuiltMesh;
    let ours_with_rules = Topology::QuiltMeshWithRules;
    let ratios = [
        (
            "64-byte packets/s to kernel VXLAN",
            rate,
            (ours, Topology::KernelVxlan),
            Limit::AtLeast(1.8),
        ),
        (
            "64-byte packets/s to kernel VXLAN, both with rules",
            rate,
            (ours_with_rules, Topology::KernelVxlanWithRules),
            Limit::AtLeast(2.8),
        ),
        (
            "64-byte packets/s to the bare underlay",
            rate,
            (ours, Topology::BareUnderlay),
            Limit::AtLeast(0.75),
        ),
        (
            "64-byte packets/s to bare redirects",
            rate,
            (ours, Topology::BareRedirects),
            Limit::AtLeast(0.92),
        ),
        (
            "request/response p50 to bare redirects",
            Measure::ResponseP50 { one_cpu: true },
            (ours, Topology::BareRedirects),
            Limit::AtMost(1.08),
        ),
        (
            "request/response p50 to kernel VXLAN",
            Measure::ResponseP50 { one_cpu: true },
            (ours, Topology::KernelVxlan),
            Limit::AtMost(0.70),
        ),
        (
            "TCP bulk to kernel VXLAN",
            bulk,
            (ours, Topology::KernelVxlan),
            Limit::AtLeast(1.0),
        ),
        (
            "64-byte packets/s to the earlier build",
            rate,
            (ours, Topology::QuiltMeshBefore),
            Limit::AtLeast(0.97),
        ),
        (
            "request/response p50 to the earlier build",
            Measure::ResponseP50 { one_cpu: true },
            (ours, Topology::QuiltMeshBefore),
            Limit::AtMost(1.03),
        ),
    ];
    let ratios = ratios
        .into_iter()
        .filter_map(|(what, measure, (topology, reference), limit)| {
            let series = report
                .series
                .iter()
                .find(|series| series.measure == measure)?;
            let spread = series.ratio(topology, reference)?;
            Some(Goal::new(what, limit, spread.median, Some(spread)))
        });
    let growth = report
        .programs
        .iter()
        .find(|cost| {
            cost.program == mesh_layout::program_names::ENCAPSULATE && !cost.all_peers_active
        })
        .and_then(crate::dataplane::programs::ProgramCost::growth)
        .map(|growth| {
            let what = "encapsulate, ns per packet, 65,536 peers to 254";
            Goal::new(what, Limit::AtMost(1.1), growth, None)
        });
    ratios.chain(growth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_is_just_missed_is_not_shown_as_reached() {
        let shown = |measured| Goal::new("", Limit::AtLeast(0.75), measured, None).shown();
        assert_eq!(shown(0.7490), "0.7490");
        assert_eq!(shown(0.7449), "0.74");
        assert_eq!(shown(0.7501), "0.75");
        let at_most = Goal::new("", Limit::AtMost(1.1), 1.1004, None);
        assert_eq!((at_most.shown(), at_most.met), ("1.1004".to_owned(), false));
    }
}
