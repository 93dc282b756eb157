//! `cargo xtask bench`

use std::process::{Command, ExitCode};

use crate::build_cni;
use crate::cargo;
use crate::docker;
use crate::foreground::{self, Reach};
use crate::setup::{self, Tool, require_root};
use crate::test::engines;

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
    if asked_for("dataplane") || asked_for("engines") {
        setup::ensure(&[Tool::Iptables])?;
    }
    if asked_for("engines") {
        setup::ensure(&[Tool::Busybox, Tool::Bootstrap])?;
        docker::ensure()?;
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
    // As it is installed: how long a plugin takes to start counts.
    if asked_for("cni") {
        bench.env("QUILT_MESH_PLUGIN", build_cni::build(&checkout)?.cni);
    }
    // It is not made anew while somebody measures in it.
    let mut held = None;
    if asked_for("engines") {
        bench.env("QUILT_MESH_PLUGIN", build_cni::build(&checkout)?.netavark);
        let podman = engines::ensure_podman(&checkout)?;
        bench.env(engines::CHOSEN, podman.suite);
        held = Some(podman);
    }
    let ended = foreground::run(&mut bench, Reach::Program, None)?;
    drop(held);
    Ok(ended.code())
}
