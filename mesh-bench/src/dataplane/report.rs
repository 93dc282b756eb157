//! The figures of a run, for people and for programs.

pub(crate) mod goals;
mod json;
mod markdown;
mod plot;
mod table;

use serde::Serialize;

use crate::machine::Machine;

use super::{
    measure::{Schedule, Series},
    programs::ProgramCost,
    statistics::Spread,
    topology::{Topology, bed::BridgeNetfilter},
};

/// Everything a run showed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) setting: Setting,
    pub(crate) series: Vec<Series>,
    pub(crate) programs: Vec<ProgramCost>,
}

/// How the run was done.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    pub(crate) quick: bool,
    pub(crate) schedule: Schedule,
    pub(crate) bridge_netfilter: BridgeNetfilter,
}

/// One line of the figures: a topology in a measure.
struct Line {
    topology: Topology,
    value: Spread,
    /// To the kernel's VXLAN.
    ratio: Spread,
}

fn lines(series: &Series) -> Vec<Line> {
    series
        .samples
        .iter()
        .filter_map(|(topology, _)| {
            Some(Line {
                topology: *topology,
                value: series.spread(*topology)?,
                ratio: series.ratio(*topology, Topology::REFERENCE)?,
            })
        })
        .collect()
}

/// With three digits that say something.
fn number(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
