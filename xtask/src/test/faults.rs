//! `cargo xtask test faults` and `cargo xtask test soak`

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use mesh_ebpf_build::Checkout;

use super::Summary;
use crate::cargo;
use crate::foreground::{self, Reach};
use crate::setup::{self, Tool, require_root};

/// Where mesh-faults finds another build of the daemons.
const UPGRADE_FROM: &str = "QUILT_MESH_UPGRADE_FROM_DIR";

/// Suites of mesh-faults.
#[derive(clap::Subcommand, Debug, Clone)]
pub(crate) enum Suite {
    /// Break a mesh in every known way under traffic, and see that it recovers
    ///
    /// Builds release binaries and does every fault by its name: what was lost, how soon it was over, and whether
    /// everything was then as before. `cargo xtask test faults --list` names them, `--help` tells all options. Needs
    /// root.
    #[command(disable_help_flag = true)]
    Faults(Arguments),

    /// Let nodes and containers come and go under traffic, 10 minutes by default
    ///
    /// Builds release binaries; what the daemons hold at the end must be what they held at the beginning.
    /// `cargo xtask test soak --help` tells all options. Needs root.
    #[command(disable_help_flag = true)]
    Soak(Arguments),
}

/// Passed on to mesh-faults.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Options of mesh-faults, for example --list, --only NAME, --ci or --random 50
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(suite: &Suite) -> anyhow::Result<ExitCode> {
    let (name, Arguments { arguments }) = match suite {
        Suite::Faults(arguments) => ("faults", arguments),
        Suite::Soak(arguments) => ("soak", arguments),
    };
    let mut command = prepare(name, cargo::build_release)?;
    command.args(arguments);
    Ok(foreground::run(&mut command, Reach::Program, None)?.code())
}

/// What continuous integration draws at random: always the same, so that a run that fails says
/// something about the change.
const RANDOM: [&str; 4] = ["--random", "100", "--seed", "1"];

/// The faults that continuous integration does; the others are named as left out.
pub(crate) fn collect_ci() -> anyhow::Result<Summary> {
    let mut command = prepare("faults", cargo::build_ci)?;
    command.arg("--ci").args(RANDOM);
    let mut summary = Summary::default();
    summary.results.push(super::execute("faults", command)?);
    Ok(summary)
}

/// Builds, and makes the command without its options.
fn prepare(
    suite: &str,
    build: fn(&Checkout) -> anyhow::Result<PathBuf>,
) -> anyhow::Result<Command> {
    require_root(&format!("test {suite}"))?;
    setup::ensure(&[
        Tool::CCompiler,
        Tool::Bpftool,
        Tool::Nftables,
        Tool::Iproute,
    ])?;
    let checkout = cargo::checkout()?;
    let binaries = build(&checkout)?;
    let mut command = Command::new(binaries.join("mesh-faults"));
    command.arg(suite).env("QUILT_MESH_BIN_DIR", &binaries);
    // Whoever has run the tests has another build of the daemons: an upgrade goes there and back.
    let other = checkout.target_dir.join("debug");
    if std::env::var_os(UPGRADE_FROM).is_none() && other.join("quilt-runtime").is_file() {
        command.env(UPGRADE_FROM, other);
    }
    Ok(command)
}
