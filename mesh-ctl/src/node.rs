//! `meshctl node`: what nodes are known by, and those that shall be nodes no more.

use mesh_admin::{choice::DoorOptions, nodes::Node};

use crate::{control_door, place::Place};

/// What to do, and by which way.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    door: DoorOptions,
    #[command(subcommand)]
    node: Node,
}

/// Asks the control plane for it.
pub(crate) async fn run(place: &Place, options: Options) -> anyhow::Result<()> {
    let door = control_door::open(place, &options.door).await?;
    options.node.run(&door, "meshctl").await
}
