//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};

use crate::pace::Pace;

/// Break a real mesh under traffic, and see that it recovers
///
/// Hosts are network namespaces on this machine, daemons are the real binaries, found beside
/// this one or in the directory that QUILT_MESH_BIN_DIR names. Needs root. `cargo xtask test
/// faults` and `cargo xtask test soak` build and run all of it.
#[derive(Debug, Parser)]
#[command(name = "mesh-faults", version, max_term_width = 100)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) suite: Suite,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Suite {
    Faults(FaultOptions),
    Soak(SoakOptions),
}

/// Do every fault by its name, and report what was lost and how soon it was over
///
/// Each fault happens while numbered datagrams and TCP connections go between the containers
/// of three hosts. It passes if no more is lost than is promised, traffic flows again in
/// time, and everything is then as before. The exit code is 0 only if all pass.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FaultOptions {
    /// List the faults with their promises, and do none
    #[arg(long, env = "QUILT_MESH_LIST")]
    pub(crate) list: bool,

    /// Only faults whose names are, or begin with, one of these
    #[arg(long, env = "QUILT_MESH_ONLY", value_name = "NAME", num_args = 1.., value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    /// Only what continuous integration runs; the others are named as left out
    #[arg(long, env = "QUILT_MESH_CI", conflicts_with = "only")]
    pub(crate) ci: bool,

    /// How often damage to one host's kernel state is done in a row
    #[arg(long, env = "QUILT_MESH_REPEAT", value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) repeat: u32,

    /// How many faults are drawn at random by the fault "random"
    #[arg(long, env = "QUILT_MESH_RANDOM", value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) random: u32,

    /// What random choices begin with: the same number gives the same faults. Without it one
    /// is chosen and printed
    #[arg(long, env = "QUILT_MESH_SEED", value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// How many seconds a daemon is stopped by SIGSTOP; nodes are down after 2 s here
    #[arg(long, env = "QUILT_MESH_PAUSE", value_name = "SECONDS", default_value_t = 6,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) pause: u64,

    /// How many times slower this machine is: N times as long for everything, an Nth of the
    /// traffic. For emulation; faults whose times matter are left out
    #[arg(long, env = "QUILT_MESH_SLOWER", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) slower: u32,

    /// Directory with another build of the daemons, for the fault "rolling-upgrade"
    #[arg(long, env = "QUILT_MESH_UPGRADE_FROM_DIR", value_name = "DIR")]
    pub(crate) upgrade_from_dir: Option<PathBuf>,

    /// Write the results to this file as JSON
    #[arg(long, env = "QUILT_MESH_JSON", value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write the results to this file as a table in Markdown
    #[arg(long, env = "QUILT_MESH_MARKDOWN", value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
}

/// Let nodes and containers come and go under traffic for a long time
///
/// Memory, file descriptors and map entries must end where they were after the warm-up, and
/// no packet between the nodes that stay may be lost. The exit code is 0 only if all holds.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SoakOptions {
    /// How long
    #[arg(long, env = "QUILT_MESH_MINUTES", value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(crate) minutes: u64,

    /// What random choices begin with. Without it a number is chosen and printed
    #[arg(long, env = "QUILT_MESH_SEED", value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// Write all samples to this file as JSON
    #[arg(long, env = "QUILT_MESH_JSON", value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Draw memory, descriptors and map entries over time into this file
    #[arg(long, env = "QUILT_MESH_SVG", value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

impl SoakOptions {
    /// How long to go on.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(self.minutes * 60)
    }
}

impl FaultOptions {
    /// How much slower than a machine all of it goes.
    pub(crate) fn pace(&self) -> Pace {
        Pace::slower(self.slower)
    }

    /// How long a daemon is stopped.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_secs(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_option_reads_an_environment_variable_of_its_name() {
        let command = CommandLine::command();
        command.clone().debug_assert();
        for suite in command.get_subcommands() {
            for argument in suite.get_arguments() {
                let name = argument.get_id().as_str();
                if name == "help" {
                    continue;
                }
                let expected = format!("QUILT_MESH_{}", name.to_uppercase());
                assert_eq!(
                    argument.get_env().and_then(|it| it.to_str()),
                    Some(expected.as_str())
                );
            }
        }
    }
}
