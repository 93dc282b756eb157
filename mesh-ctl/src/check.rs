//! `meshctl check`: whether nodes reach each other, by every path.

mod everywhere;
mod local;
mod pairs;
mod report;
mod way;

use mesh_admin::choice::DoorOptions;

use crate::{Verdict, place::Place};

/// Whether this node reaches its peers by every path, and with --all every node every other.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Seconds that each answer is waited for, at most 10.
    #[arg(long, short = 'W', value_name = "SECONDS", default_value_t = 1, conflicts_with = "all", value_parser = clap::value_parser!(u32).range(1..=10))]
    timeout: u32,
    /// Have the control plane tell every node to ask its peers, and tell what came of it.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    control: DoorOptions,
    /// With --all, show what passes as well.
    #[arg(long, requires = "all")]
    verbose: bool,
    /// Print a document for a machine.
    #[arg(long)]
    json: bool,
}

/// Asks, and prints what came of it.
pub(crate) async fn run(place: &Place, options: &Options) -> anyhow::Result<Verdict> {
    match options.all {
        true => everywhere::run(place, options).await,
        false => local::run(place, options).await,
    }
}
