//! The control plane under simulated agents that speak its real protocol over loopback.

mod agents;
mod beating;
mod connection;
mod emptied;
mod ended;
mod flood;
mod joining;
mod measure;
mod over_tls;
mod report;
mod server;
mod strangers;
mod unknown;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use mesh_testbed::{Postgres, PostgresOptions};

use crate::{machine::Machine, page};
use measure::Measured;
use report::Report;
use server::Store;

/// How many agents a cluster is measured with unless told otherwise.
const AGENTS: [usize; 3] = [100, 1_000, 10_000];

#[derive(Debug, clap::Args)]
pub(crate) struct ControlOptions {
    /// How many agents, one cluster after the other
    #[arg(long, env = "QUILT_MESH_AGENTS", value_delimiter = ',', default_values_t = AGENTS, value_name = "N")]
    agents: Vec<usize>,

    /// Which databases to measure on
    #[arg(long, env = "QUILT_MESH_STORE", value_delimiter = ',', default_values_t = Store::ALL, value_name = "STORE")]
    store: Vec<Store>,

    /// How long each cluster is watched while nothing happens
    #[arg(long, env = "QUILT_MESH_IDLE_SECONDS", default_value_t = 30, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(5..=3600))]
    idle_seconds: u64,

    /// How many joins are watched by all agents
    #[arg(long, env = "QUILT_MESH_JOINS", default_value_t = 20, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=200))]
    joins: u16,

    /// Connections that each agent keeps open: 2 has one for heartbeats beside the one for the change
    /// feed, 1 sends them in turns
    #[arg(long, env = "QUILT_MESH_CONNECTIONS", default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u8).range(1..=2))]
    connections: u8,

    /// Measure something else: what clients that only take (connections whose requests do not end, lists that are not
    /// read) make the control plane of so many nodes hold, and how long a node waits meanwhile
    #[arg(long, env = "QUILT_MESH_STRANGERS", value_name = "NODES",
          conflicts_with_all = ["agents", "json", "svg", "markdown"])]
    strangers: Option<u32>,

    /// Measure something else: the control plane is replaced by an empty one, and so many agents come back
    #[arg(long, env = "QUILT_MESH_EMPTIED", value_name = "AGENTS",
          conflicts_with_all = ["agents", "json", "svg", "markdown", "strangers"])]
    emptied: Option<u32>,

    /// Measure something else: one of two replicas is sent so many heartbeats a second of nodes that there are not, while
    /// others register
    #[arg(long, env = "QUILT_MESH_UNKNOWN", value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=100_000),
          conflicts_with_all = ["agents", "json", "svg", "markdown", "strangers", "emptied"])]
    unknown: Option<u32>,

    /// Measure something else: so many agents plain and as many over TLS: what they cost while nothing happens, side by
    /// side, and how soon they are back when the control plane was killed and starts again
    #[arg(long, env = "QUILT_MESH_TLS", value_name = "AGENTS", value_parser = clap::value_parser!(u32).range(1..=65_535),
          conflicts_with_all = ["agents", "json", "svg", "markdown", "strangers", "emptied", "unknown"])]
    tls: Option<u32>,

    /// What --tls starts beside itself
    #[arg(long, hide = true)]
    companion: bool,

    /// Measure something else: so many hosts a second try to join, good ones and bad, from many addresses: what becomes of
    /// them, and how long a node's heartbeats take meanwhile
    #[arg(long, env = "QUILT_MESH_JOIN_FLOOD", value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=100_000),
          conflicts_with_all = ["agents", "json", "svg", "markdown", "strangers", "emptied", "unknown", "tls"])]
    join_flood: Option<u32>,

    /// Measure something else: so many questions wait, each of another node, and their authority is retired: how soon all of
    /// them have ended
    #[arg(long, env = "QUILT_MESH_ENDED", value_name = "QUESTIONS", value_parser = clap::value_parser!(u32).range(2..=65_000),
          conflicts_with_all = ["agents", "json", "svg", "markdown", "strangers", "emptied", "unknown", "tls", "join_flood"])]
    ended: Option<u32>,

    /// Write the figures as one JSON document
    #[arg(long, env = "QUILT_MESH_JSON", value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the cost per agent as an SVG picture
    #[arg(long, env = "QUILT_MESH_SVG", value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Write the figures into a page of documentation, between its marks if it has them
    #[arg(long, env = "QUILT_MESH_MARKDOWN", value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// What a run is asked to do.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Setting {
    idle_seconds: u64,
    joins: u16,
    connections: u8,
}

impl Setting {
    fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }
}

/// Measures, prints the figures and writes the files that were asked for.
pub(crate) async fn run(options: &ControlOptions) -> anyhow::Result<()> {
    if options.companion {
        server::raise_open_files().context("cannot raise the limit of open files")?;
        return over_tls::companion::run().await;
    }
    let mut machine = Machine::here()?;
    let files = server::raise_open_files().context("cannot raise the limit of open files")?;
    if let Some(nodes) = options.strangers {
        return strangers::run(nodes, files).await;
    }
    if let Some(agents) = options.emptied {
        return emptied::run(agents).await;
    }
    if let Some(per_second) = options.unknown {
        return unknown::run(per_second).await;
    }
    if let Some(per_second) = options.join_flood {
        return flood::run(per_second).await;
    }
    if let Some(questions) = options.ended {
        ensure_open_files(usize::try_from(questions)?, 1, files)?;
        return ended::run(questions).await;
    }
    if let Some(agents) = options.tls {
        let watched = Duration::from_secs(options.idle_seconds);
        ensure_open_files(usize::try_from(agents)?, 1, files)?;
        return over_tls::run(agents, watched).await;
    }
    let setting = Setting {
        idle_seconds: options.idle_seconds,
        joins: options.joins,
        connections: options.connections,
    };
    let most = options.agents.iter().max().copied().unwrap_or(0);
    ensure_open_files(most, options.connections, files)?;
    let mut measured = Vec::new();
    for store in &options.store {
        measured.push(
            measure_store(*store, options, &setting)
                .await
                .with_context(|| format!("on {store}"))?,
        );
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    machine.finished_at = now.context("the clock stands before 1970")?.as_secs();
    let report = Report {
        machine,
        setting,
        measured,
    };
    println!("{}", report.text());
    if let Some(path) = &options.json {
        write(path, &serde_json::to_string_pretty(&report.json())?)?;
    }
    if let Some(path) = &options.svg {
        write(path, &report.svg())?;
    }
    if let Some(path) = &options.markdown {
        page::write(path, "control", &report.markdown())?;
    }
    Ok(())
}

fn ensure_open_files(agents: usize, connections: u8, files: u64) -> anyhow::Result<()> {
    let needed = agents * usize::from(connections) + 500;
    ensure!(
        usize::try_from(files)? >= needed,
        "{agents} agents with {connections} connections each need {needed} open files, and this process may have {files}: \
         raise the hard limit (ulimit -Hn), or ask for fewer agents or --connections"
    );
    Ok(())
}

async fn measure_store(
    store: Store,
    options: &ControlOptions,
    setting: &Setting,
) -> anyhow::Result<Measured> {
    let postgres = match store {
        Store::Sqlite => None,
        Store::Postgres => Some(Postgres::new(&PostgresOptions::new().durable()).await?),
    };
    let mut clusters = Vec::new();
    for &agents in &options.agents {
        eprintln!("{store}: {agents} agents");
        clusters.push(measure::cluster(postgres.as_ref(), agents, setting).await?);
    }
    eprintln!("{store}: 300 hosts for 255 subnets");
    let exhaustion = measure::exhaustion(postgres.as_ref()).await?;
    Ok(Measured {
        store,
        clusters,
        exhaustion,
    })
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
