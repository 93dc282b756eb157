//! The data plane beside its alternatives: the same traffic over each of them, in one run.

mod measure;
mod programs;
mod report;
mod statistics;
mod topology;
mod traffic;

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context as _;

use crate::{machine::Machine, page};

use measure::{MANY, MTU, Schedule};
use report::{Report, Setting};
use topology::{
    Topology,
    bed::{Bed, BridgeNetfilter},
};
use traffic::{claim::Claim, cpus::Cpus};

#[derive(Debug, clap::Args)]
pub(crate) struct DataplaneOptions {
    /// Fewer and shorter rounds: under a minute, and figures to be taken with care
    #[arg(long, env = "QUILT_MESH_QUICK")]
    quick: bool,

    /// Write every sample as one JSON document
    #[arg(long, env = "QUILT_MESH_JSON", value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the ratios as an SVG picture
    #[arg(long, env = "QUILT_MESH_SVG", value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Write the figures into a page of documentation, between its marks if it has them
    #[arg(long, env = "QUILT_MESH_MARKDOWN", value_name = "FILE")]
    markdown: Option<PathBuf>,

    /// Whether bridges hand their packets to iptables, on all hosts alike
    #[arg(
        long,
        env = "QUILT_MESH_BRIDGE_NETFILTER",
        default_value = "on",
        value_name = "STATE"
    )]
    bridge_netfilter: BridgeNetfilter,

    /// How many rounds; the median counts
    #[arg(long, env = "QUILT_MESH_ROUNDS", value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,

    /// Compare with an earlier build instead of with the alternatives: its quilt-runtime
    #[arg(long, env = "QUILT_MESH_BEFORE", value_name = "FILE", conflicts_with_all = ["svg", "markdown"])]
    before: Option<PathBuf>,
}

impl DataplaneOptions {
    fn schedule(&self) -> Schedule {
        let schedule = self.usual_schedule();
        Schedule {
            rounds: self.rounds.map_or(schedule.rounds, usize::from),
            ..schedule
        }
    }

    fn topologies(&self) -> &'static [Topology] {
        match self.before {
            Some(_) => &Topology::BESIDE_BEFORE,
            None => &Topology::ALL,
        }
    }

    fn usual_schedule(&self) -> Schedule {
        match self.quick {
            true => Schedule {
                rounds: 3,
                warm_up_ms: 50,
                measured_ms: 150,
            },
            false => Schedule {
                rounds: 9,
                warm_up_ms: 150,
                measured_ms: 500,
            },
        }
    }
}

/// Measures, prints the figures and writes the files that were asked for.
pub(crate) async fn run(options: &DataplaneOptions) -> anyhow::Result<()> {
    let mut machine = Machine::here()?;
    let cpus = Cpus::available()?;
    let claim = Claim::raise().context("cannot raise the session's priority")?;
    eprintln!("the programs by themselves");
    let programs = programs::measure(&cpus).await?;

    let mut beds = Vec::new();
    for &topology in options.topologies() {
        eprintln!("making: {}", topology.name());
        let before = options.before.as_deref();
        let bed = Bed::build(topology, MANY, MTU, options.bridge_netfilter, before)
            .await
            .with_context(|| format!("cannot make the topology {:?}", topology.name()))?;
        beds.push(bed);
    }
    let series = measure::rounds(&beds, &cpus, options.schedule()).await?;
    drop(beds);
    drop(claim);

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    machine.finished_at = now.context("the clock stands before 1970")?.as_secs();
    let report = Report {
        machine,
        setting: Setting {
            quick: options.quick,
            schedule: options.schedule(),
            bridge_netfilter: options.bridge_netfilter,
        },
        series,
        programs,
    };
    println!("{}", report.text());
    if let Some(path) = &options.json {
        write(path, &serde_json::to_string_pretty(&report.json())?)?;
    }
    if let Some(path) = &options.svg {
        write(path, &report.svg())?;
    }
    if let Some(path) = &options.markdown {
        page::write(path, "dataplane", &report.markdown())?;
    }
    Ok(())
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
