//! Every known way an overlay breaks, done to a real mesh under traffic.
//!
//! [`faults`] holds the faults, a file for each family; [`run`] does them to a [`mesh`] while
//! [`traffic`] flows, and [`judge`] compares what was seen with what is promised.

mod fault;
mod faults;
mod judge;
mod mesh;
mod options;
mod pace;
mod report;
mod run;
mod scene;
mod soak;
mod state;
mod suite;
mod traffic;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::options::{CommandLine, Suite};

fn main() -> anyhow::Result<ExitCode> {
    let suite = CommandLine::parse().suite;
    let tokio = tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
    match suite {
        Suite::Faults(options) => tokio.block_on(suite::run(&options)),
        Suite::Soak(options) => tokio.block_on(soak::run(&options)),
    }
}
