//! Where this checkout is, and cargo as xtask calls it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use mesh_ebpf_build::Checkout;

use crate::foreground::{self, Reach};

/// The checkout that this program was built from, and the target directory that it lies in.
pub(crate) fn checkout() -> anyhow::Result<Checkout> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    Ok(Checkout::containing(
        Path::new(env!("CARGO_MANIFEST_DIR")),
        &program,
    )?)
}

/// `cargo …` in the root of the checkout, with the target directory that this program lies in.
pub(crate) fn command(checkout: &Checkout, arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let mut command = Command::new(cargo);
    command
        .args(arguments)
        .current_dir(&checkout.root)
        .env("CARGO_TARGET_DIR", &checkout.target_dir);
    for (name, _) in std::env::vars_os() {
        // `cargo run` describes the package xtask to us; to a build it would be the wrong one.
        if name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        }) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs [`command`] to its end, its progress on the terminal.
pub(crate) fn run(checkout: &Checkout, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = command(checkout, arguments);
    // Standard output is for this program's results.
    finish(command.stdout(std::io::stderr()))
}

/// Runs a [`command`] that somebody changed to its end.
pub(crate) fn finish(command: &mut Command) -> anyhow::Result<()> {
    let ended = foreground::run(command, Reach::Group, None)?.unless_interrupted()?;
    if !ended.success() {
        let arguments: Vec<_> = command
            .get_args()
            .map(|argument| argument.to_string_lossy())
            .collect();
        bail!(
            "`cargo {}` {ended}; its messages are above",
            arguments.join(" ")
        );
    }
    Ok(())
}

/// Builds what the demo runs and nothing else, and returns the folder that holds it.
///
/// Without optimisation, which is two thirds of the time until a newcomer sees the first packet. What carries packets
/// is the eBPF object, and that is optimised in every profile.
pub(crate) fn build_demo(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    let packages = ["mesh-demo", "mesh-control", "mesh-agent", "mesh-runtime"];
    let mut arguments = vec!["build", "--locked", "--bins"];
    arguments.extend(packages.iter().flat_map(|package| ["--package", package]));
    run(checkout, &arguments)?;
    Ok(checkout.target_dir.join("debug"))
}

/// Builds all release binaries and returns the folder that holds them.
///
/// All, because cargo compiles dependencies with the features that the chosen packages ask for: with one choice for
/// the benchmarks and another for the faults, each would compile half of them again.
pub(crate) fn build_release(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    run(
        checkout,
        &["build", "--release", "--locked", "--workspace", "--bins"],
    )?;
    Ok(checkout.target_dir.join("release"))
}

/// Builds what faults are done to and what emulated machines run, with the programs that do so, and returns the folder
/// that holds them.
///
/// As a release is built, without the checks that tests are compiled with, but with less effort (`profile.ci` in
/// Cargo.toml): half the time of a release, where no figure is published. Always the same packages, for the reason that
/// [`build_release`] gives.
pub(crate) fn build_ci(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    let packages = [
        "mesh-runtime",
        "mesh-agent",
        "mesh-cni",
        "mesh-control",
        "mesh-ctl",
        "mesh-faults",
        "mesh-vm",
    ];
    let mut arguments = vec!["build", "--profile", "ci", "--locked", "--bins"];
    arguments.extend(packages.iter().flat_map(|package| ["--package", package]));
    run(checkout, &arguments)?;
    Ok(checkout.target_dir.join("ci"))
}
