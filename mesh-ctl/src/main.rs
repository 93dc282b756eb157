//! `meshctl`: what a person does on a node of the mesh.

mod addresses;
mod attach;
mod options;
mod port;

use std::{
    fmt::Display,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use mesh_client::Client;

use options::{Command, Options};

fn main() -> ExitCode {
    let options = Options::parse();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meshctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the Tokio runtime")?;
    runtime.block_on(async {
        let mut client = Client::connect(&options.socket).await?;
        match options.command {
            Command::Attach(attach) => attach::attach(&mut client, attach).await,
            Command::Detach(detach) => Ok(client.detach(detach.whose.owner()).await?),
            Command::Addresses(list) => addresses::list(&mut client, list).await,
            Command::Release(release) => Ok(client.release(release.whose.owner()).await?),
        }
    })
}

/// Prints a line. Whoever closes our output has read enough.
fn say(line: impl Display) -> anyhow::Result<()> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
