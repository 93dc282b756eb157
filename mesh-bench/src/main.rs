//! Benchmarks of Quilt Mesh: they print figures beside their goals and assert nothing about
//! time, because a machine's speed is no property of the code.

mod cni;
mod containers;
mod control;
mod dataplane;
mod engines;
mod figure;
mod idle;
mod leases;
mod machine;
mod node;
mod page;
mod repair;
mod route_calls;
mod rules;
mod scrape;
mod start;
mod sync;
mod usage;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::{
    cni::CniOptions, control::ControlOptions, dataplane::DataplaneOptions, engines::EnginesOptions,
    figure::Figure,
};

/// Measure Quilt Mesh on this machine
///
/// Hosts are network namespaces, daemons are the real release binaries, found beside this one
/// or in the directory that QUILT_MESH_BIN_DIR names. Needs root, but for `control`. `cargo xtask bench` builds
/// and runs all of it. The exit code tells whether measuring worked, not how fast it was.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Options {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Debug, clap::Subcommand)]
enum Subject {
    /// The node's daemons: route calls, peer syncs, start, idle processor time and memory, repair
    Runtime(RuntimeOptions),
    /// The data plane beside plain routing and the kernel's VXLAN: packets per second,
    /// request/response times, TCP throughput, and what each eBPF program costs
    Dataplane(DataplaneOptions),
    /// The control plane with up to 10,000 simulated agents: idle, one join, all joining at once
    Control(ControlOptions),
    /// The CNI plugin: how long ADD and DEL take on a node with many containers
    Cni(CniOptions),
    /// Metrics: how long a scrape takes with the most peers, and what the daemons take while nobody scrapes them
    Metrics(MetricsOptions),
    /// Docker and Podman: how long they take to start a container in our network, beside one of their own
    Engines(EnginesOptions),
}

#[derive(Debug, clap::Args)]
struct MetricsOptions {
    /// Print the figures as one JSON document
    #[arg(long, env = "QUILT_MESH_JSON")]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct RuntimeOptions {
    /// Print the figures as one JSON document
    #[arg(long, env = "QUILT_MESH_JSON")]
    json: bool,

    /// How often what needs a fresh node is repeated; the median counts
    #[arg(long, env = "QUILT_MESH_RUNS", default_value_t = 5, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,

    /// How many InjectRoute calls are timed
    #[arg(long, env = "QUILT_MESH_CALLS", default_value_t = 1016, value_name = "N",
          value_parser = clap::value_parser!(u16).range(500..))]
    calls: u16,

    /// How often each kind of damage to the kernel's state is done and repaired
    #[arg(long, env = "QUILT_MESH_REPAIRS", default_value_t = 20, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    repairs: u16,
}

fn main() -> anyhow::Result<ExitCode> {
    let subject = Options::parse().subject;
    let tokio = tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
    match subject {
        Subject::Runtime(options) => {
            tokio.block_on(report(options.json, measure_runtime(&options)))?;
        }
        Subject::Metrics(options) => {
            tokio.block_on(report(options.json, measure_metrics()))?;
        }
        Subject::Cni(options) => tokio.block_on(report(options.json, cni::measure(&options)))?,
        Subject::Engines(options) => {
            tokio.block_on(report(options.json, engines::measure(&options)))?;
        }
        Subject::Dataplane(options) => tokio.block_on(dataplane::run(&options))?,
        Subject::Control(options) => tokio.block_on(control::run(&options))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn report(
    json: bool,
    measure: impl Future<Output = anyhow::Result<Vec<Figure>>>,
) -> anyhow::Result<()> {
    let circumstances = circumstances()?;
    let figures = measure.await?;
    match json {
        true => println!(
            "{}",
            serde_json::to_string_pretty(&figure::document(&figures, &circumstances))?
        ),
        false => println!("{}\n {circumstances}", figure::table(&figures)),
    }
    Ok(())
}

/// What else decides about the figures: somebody else's work on the same machine does.
fn circumstances() -> anyhow::Result<String> {
    let loads = std::fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let load = loads.split_whitespace().next().unwrap_or("unknown");
    let cpus = std::thread::available_parallelism().context("cannot count the CPUs")?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read the kernel's release")?;
    let kernel = kernel.trim();
    Ok(format!(
        "{cpus} CPUs, load average {load} before the start, kernel {kernel}"
    ))
}

async fn measure_metrics() -> anyhow::Result<Vec<Figure>> {
    eprintln!("scrapes with {} peers", node::PEERS);
    let mut figures = scrape::measure().await?;
    eprintln!("idle with {} peers, unscraped", node::PEERS);
    figures.extend(idle::measure().await?);
    Ok(figures)
}

async fn measure_runtime(options: &RuntimeOptions) -> anyhow::Result<Vec<Figure>> {
    eprintln!("{} InjectRoute calls", options.calls);
    let mut figures = route_calls::measure(options.calls).await?;
    eprintln!("SyncPeers on {} fresh nodes", options.runs);
    figures.extend(sync::measure(options.runs).await?);
    eprintln!("{} times the rules of a large cluster", options.runs);
    figures.push(rules::measure(options.runs).await?);
    eprintln!("{} starts", options.runs);
    figures.extend(start::measure(options.runs).await?);
    eprintln!("leases, by one caller and by many");
    figures.extend(leases::measure(options.calls).await?);
    eprintln!("idle with {} peers", node::PEERS);
    figures.extend(idle::measure().await?);
    eprintln!("containers that come and go, {} times", options.runs);
    figures.extend(containers::measure(options.runs).await?);
    eprintln!("{} repairs of each kind", options.repairs);
    figures.extend(repair::measure(options.repairs).await?);
    Ok(figures)
}
