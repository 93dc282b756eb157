//! `cargo xtask`: everything a developer of Quilt Mesh runs, one file for each command.

mod bench;
mod build_cni;
mod build_ebpf;
mod cargo;
mod ci;
mod debian;
mod demo;
mod docker;
mod foreground;
mod fresh;
mod kernel;
mod mutants;
mod setup;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, demo, test and bench Quilt Mesh
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    max_term_width = 100
)]
struct CommandLine {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    Setup(setup::Options),
    BuildCni(build_cni::Options),
    BuildEbpf(build_ebpf::Options),
    Demo(demo::Options),
    Test(test::Options),
    Bench(bench::Options),
    Ci(ci::Options),
    Fresh(fresh::Options),
    Mutants(mutants::Options),
}

fn main() -> ExitCode {
    let task = CommandLine::parse().command;
    let outcome = foreground::adopt_orphans().and_then(|()| perform(&task));
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        error
            .downcast_ref::<foreground::Interrupted>()
            .map_or(ExitCode::FAILURE, |by| by.code())
    })
}

fn perform(task: &Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup(options) => setup::run(options),
        Task::BuildCni(options) => build_cni::run(options),
        Task::BuildEbpf(options) => build_ebpf::run(options),
        Task::Demo(options) => demo::run(options),
        Task::Test(options) => test::run(options),
        Task::Bench(options) => bench::run(options),
        Task::Ci(options) => ci::run(options),
        Task::Fresh(options) => fresh::run(options),
        Task::Mutants(options) => mutants::run(options),
    }
}
