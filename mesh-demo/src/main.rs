//! Containers on several hosts reach each other through eBPF: makes the hosts out of network
//! namespaces, runs the real daemons on them, sends traffic, loses a host and gets it back.

mod checks;
mod kept;
mod maps;
mod progress;
mod report;
mod scenario;
mod tables;

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;

use crate::{progress::Progress, report::Report};

/// Show containers on several hosts reaching each other through the eBPF path
///
/// Hosts are network namespaces on this machine, each with a real runtime and agent; one
/// control plane serves them all. Progress goes to stderr, results to stdout. The exit code
/// is 0 only if all of it held. Needs root, and the daemons' binaries beside this one or in
/// the directory that QUILT_MESH_BIN_DIR names: `cargo xtask demo` builds and runs all of it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Options {
    /// How many hosts, from 2 to 50
    #[arg(long, env = "QUILT_MESH_NODES", default_value_t = 3, value_name = "N",
          value_parser = clap::value_parser!(u8).range(2..=50))]
    nodes: u8,

    /// Leave the cluster running, and print how to enter it and how to remove it
    #[arg(long, env = "QUILT_MESH_KEEP")]
    keep: bool,

    /// Print the results as one JSON document
    #[arg(long, env = "QUILT_MESH_JSON")]
    json: bool,

    /// Remove the clusters that earlier runs with --keep left, and do nothing else
    #[arg(long, env = "QUILT_MESH_CLEANUP")]
    cleanup: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if options.cleanup {
        return kept::remove_all(options.json).map(|()| ExitCode::SUCCESS);
    }
    tokio::runtime::Runtime::new()
        .context("cannot start the asynchronous runtime")?
        .block_on(demonstrate(&options))
}

async fn demonstrate(options: &Options) -> anyhow::Result<ExitCode> {
    let progress = Progress::start();
    let mut report = Report::default();
    let outcome = scenario::run(options.nodes, options.keep, &progress, &mut report).await;
    if let Err(error) = outcome {
        report.error = Some(format!("{error:#}"));
    }
    report.seconds = progress.elapsed().as_secs_f64();
    report.checks = checks::of(&report, usize::from(options.nodes));
    report.ok = report.error.is_none() && report.checks.iter().all(|check| check.ok);

    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!(
            "{}",
            tables::render(&report, std::io::stdout().is_terminal())
        ),
    }
    Ok(match report.ok {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
