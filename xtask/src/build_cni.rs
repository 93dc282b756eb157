//! `cargo xtask build-cni`

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use mesh_ebpf_build::Checkout;

use crate::cargo;
use crate::foreground::{self, Reach};
use crate::setup::{self, Tool};

/// Build the plugins for CNI and netavark so that they run on any Linux of this architecture, and print where they are
///
/// Static binaries, without debug information: engines run them in whatever file system they have. With rustup they are built
/// for musl, whose part of the toolchain this adds; otherwise for the C library of this machine, linked statically.
#[derive(clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_: &Options) -> anyhow::Result<ExitCode> {
    setup::ensure(&[Tool::CCompiler])?;
    let plugins = build(&cargo::checkout()?)?;
    println!("{}", plugins.cni.display());
    println!("{}", plugins.netavark.display());
    Ok(ExitCode::SUCCESS)
}

/// The plugins' binaries.
pub(crate) struct Plugins {
    pub(crate) cni: PathBuf,
    pub(crate) netavark: PathBuf,
}

/// Builds them.
pub(crate) fn build(checkout: &Checkout) -> anyhow::Result<Plugins> {
    let musl = format!("{ARCH}-unknown-linux-musl");
    let add = ["target", "add", &musl];
    if setup::find("rustup", std::env::var_os("PATH").as_deref()).is_some() && !has(&musl)? {
        let mut rustup = Command::new("rustup");
        rustup
            .args(add)
            .current_dir(&checkout.root)
            .stdout(std::io::stderr());
        // What it could not fetch is said by it, and there is another way.
        foreground::run(&mut rustup, Reach::Group, None)?.unless_interrupted()?;
    }
    let (target, flags) = match has(&musl)? {
        true => (musl, None),
        false => (
            format!("{ARCH}-unknown-linux-gnu"),
            Some("-C target-feature=+crt-static"),
        ),
    };
    let arguments = [
        "build",
        "--locked",
        "--release",
        "--package",
        "mesh-cni",
        "--package",
        "mesh-netavark",
        "--bins",
        "--target",
        &target,
        "--config",
        "profile.release.strip=true",
    ];
    let mut build = cargo::command(checkout, &arguments);
    if let Some(flags) = flags {
        build.env("RUSTFLAGS", flags);
    }
    cargo::finish(build.stdout(std::io::stderr()))?;
    let binaries = checkout.target_dir.join(target).join("release");
    Ok(Plugins {
        cni: binaries.join("quilt-cni"),
        netavark: binaries.join("quilt-netavark"),
    })
}

/// Whether the compiler has the standard library of a target.
fn has(target: &str) -> anyhow::Result<bool> {
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .stderr(Stdio::null())
        .output()
        .context("cannot run rustc")?;
    let folder = String::from_utf8_lossy(&asked.stdout);
    Ok(asked.status.success() && Path::new(folder.trim()).is_dir())
}
