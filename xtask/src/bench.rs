//! `cargo xtask bench`

use std::process::{Command, ExitCode};

use crate::build_cni;
use crate::cargo;
use crate::foreground::{self, Reach};
use crate::setup::{self, Tool, require_root};

/// Measure, and print figures
///
/// Builds release binaries and runs mesh-bench with the arguments given here, for example
/// `cargo xtask bench runtime --json` or `cargo xtask bench dataplane --quick`. Needs root, but for `cargo xtask bench control`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to measure, and options for mesh-bench; `cargo xtask bench help` lists them
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let asked_for = |subject: &str| options.arguments.iter().any(|it| it == subject);
    let control = asked_for("control");
    if !control {
        require_root("bench")?;
    }
    setup::ensure(&[Tool::CCompiler])?;
    if !control {
        // A runtime needs the one; what is broken for it to repair, and what is shown, the other.
        setup::ensure(&[Tool::Nftables, Tool::Iproute])?;
    }
    if asked_for("dataplane") {
        setup::ensure(&[Tool::Iptables])?;
    }
    if asked_for("cni") {
        setup::ensure(&[Tool::CniPlugins])?;
    }
    if control {
        setup::ensure(&[Tool::Postgres])?;
    }
    let checkout = cargo::checkout()?;
    let binaries = cargo::build_release(&checkout)?;
    let mut bench = Command::new(binaries.join("mesh-bench"));
    bench
        .args(&options.arguments)
        .env("QUILT_MESH_BIN_DIR", &binaries);
    if asked_for("cni") {
        // As it is installed: how long it takes to start counts.
        bench.env("QUILT_MESH_PLUGIN", build_cni::build(&checkout)?);
    }
    Ok(foreground::run(&mut bench, Reach::Program, None)?.code())
}
