//! `cargo xtask demo`

use std::num::NonZeroU8;
use std::process::{Command, ExitCode};

use crate::foreground::{self, Ended, Reach};
use crate::setup::{self, Tool};
use crate::{cargo, setup::require_root};

/// Show containers on several hosts reaching each other through the eBPF path
///
/// Makes the hosts out of network namespaces on this machine, runs a control plane, and an agent and a runtime on
/// each host, sends traffic, loses a host and gets it back. Exit code 0 only if all of it held. Needs root; removes
/// everything at the end, also after Ctrl-C.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// How many hosts
    #[arg(long, env = "QUILT_MESH_NODES", default_value = "3")]
    nodes: NonZeroU8,

    /// Leave the cluster running, and print how to enter it and how to remove it
    #[arg(long, env = "QUILT_MESH_KEEP")]
    keep: bool,

    /// Print the results as JSON
    #[arg(long, env = "QUILT_MESH_JSON")]
    json: bool,

    /// Remove what an earlier demo with --keep left, and do nothing else
    #[arg(long, env = "QUILT_MESH_CLEANUP")]
    cleanup: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: NonZeroU8::MIN.saturating_add(2),
            keep: false,
            json: false,
            cleanup: false,
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    Ok(demonstrate(options)?.code())
}

/// Builds, runs, and tells how it ended.
pub(crate) fn demonstrate(options: &Options) -> anyhow::Result<Ended> {
    require_root("demo")?;
    setup::ensure(&[Tool::CCompiler, Tool::Bpftool, Tool::Nftables])?;
    let checkout = cargo::checkout()?;
    let binaries = cargo::build_demo(&checkout)?;
    let mut demo = Command::new(binaries.join("mesh-demo"));
    demo.args(arguments(options))
        .env("QUILT_MESH_BIN_DIR", &binaries);
    foreground::run(&mut demo, Reach::Program, None)
}

fn arguments(options: &Options) -> Vec<String> {
    let mut arguments = vec!["--nodes".to_owned(), options.nodes.to_string()];
    let flags = [
        (options.keep, "--keep"),
        (options.json, "--json"),
        (options.cleanup, "--cleanup"),
    ];
    arguments.extend(
        flags
            .iter()
            .filter(|(on, _)| *on)
            .map(|(_, flag)| (*flag).to_owned()),
    );
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_gets_the_options_it_was_asked_for() {
        assert_eq!(arguments(&Options::default()), ["--nodes", "3"]);
        let all = Options {
            nodes: NonZeroU8::MIN,
            keep: true,
            json: true,
            cleanup: true,
        };
        assert_eq!(
            arguments(&all),
            ["--nodes", "1", "--keep", "--json", "--cleanup"]
        );
    }
}
