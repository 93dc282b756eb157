//! `meshctl`: what a person does on a node of the mesh.

mod addresses;
mod attach;
mod options;
mod ping;
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

/// What a command came to, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// What was asked for is done, or what was looked at is as it should be: 0.
    Fine,
    /// What was looked at is not as it should be: 1.
    Wrong,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(match verdict {
            Verdict::Fine => 0,
            Verdict::Wrong => 1,
        })
    }
}

/// What was asked for could not be done.
const NOT_DONE: u8 = 1;
/// It cannot be told how things are.
const CANNOT_TELL: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    let failed = match options.command.judges() {
        true => CANNOT_TELL,
        false => NOT_DONE,
    };
    match run(options) {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            eprintln!("meshctl: {error:#}");
            failed.into()
        }
    }
}

fn run(options: Options) -> anyhow::Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the Tokio runtime")?;
    runtime.block_on(async {
        let mut client = Client::connect(&options.socket).await?;
        match options.command {
            Command::Attach(attach) => attach::attach(&mut client, attach).await?,
            Command::Detach(detach) => client.detach(detach.whose.owner()).await?,
            Command::Addresses(list) => addresses::list(&mut client, list).await?,
            Command::Release(release) => client.release(release.whose.owner()).await?,
            // It has a connection of its own.
            Command::Ping(ping) => return ping::ping(&options.socket, ping).await,
        }
        Ok(Verdict::Fine)
    })
}

/// Prints a line. Whoever closes our output has read enough.
fn say(line: impl Display) -> anyhow::Result<()> {
    match writeln!(io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
