//! `meshctl token`: what lets hosts join.

use mesh_admin::{choice::DoorOptions, tokens::Token};

use crate::{control_door, place::Place};

/// What to do, and by which way.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    door: DoorOptions,
    #[command(subcommand)]
    token: Token,
}

/// Asks the control plane for it.
pub(crate) async fn run(place: &Place, options: Options) -> anyhow::Result<()> {
    let door = control_door::open(place, &options.door).await?;
    options.token.run(&door).await
}
