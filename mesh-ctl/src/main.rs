//! `meshctl`: what a person does on a node of the mesh, and sees of it.

mod addresses;
mod attach;
mod bugreport;
mod capture;
mod check;
mod control_door;
mod doctor;
mod drain;
mod endpoints;
mod explain;
mod findings;
mod firewall;
mod generated;
mod leave;
mod moment;
mod monitor;
mod node;
mod nodes;
mod options;
mod output;
mod peer_named;
mod peers;
mod ping;
mod place;
mod port;
mod routes;
mod status;
mod token;
mod top;
mod trace;

use std::process::ExitCode;

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
    /// How it is cannot be told: 2.
    Unknown,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        Self::from(match verdict {
            Verdict::Fine => 0,
            Verdict::Wrong => 1,
            Verdict::Unknown => CANNOT_TELL,
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
        let place = &options.place;
        let client = async || Client::connect(&place.socket).await;
        match options.command {
            Command::Status(options) => return status::run(place, &options).await,
            Command::Doctor(options) => return doctor::run(place, &options).await,
            Command::Peers(options) => return peers::run(place, &options).await,
            Command::Endpoints(options) => return endpoints::run(place, &options).await,
            Command::Routes(options) => return routes::run(place, &options).await,
            Command::Firewall(options) => return firewall::run(place, &options).await,
            Command::Nodes(options) => return nodes::run(place, &options).await,
            Command::Node(options) => node::run(place, options).await?,
            Command::Drain(options) => drain::run(place, &options).await?,
            Command::Leave(options) => leave::run(place, &options).await?,
            Command::Token(options) => token::run(place, options).await?,
            Command::Trace(trace) => return trace::trace(&place.socket, trace).await,
            // It has a connection of its own.
            Command::Ping(ping) => return ping::ping(&place.socket, ping).await,
            Command::Check(options) => return check::run(place, &options).await,
            Command::Explain(options) => explain::run(&options)?,
            Command::Top(options) => top::run(place, &options).await?,
            Command::Bugreport(options) => bugreport::run(place, &options).await?,
            Command::Completions(options) => generated::completions(&options)?,
            Command::Man(options) => generated::man(&options)?,
            Command::Monitor(monitor) => monitor::monitor(&place.socket, monitor).await?,
            Command::Capture(capture) => capture::capture(&mut client().await?, capture).await?,
            Command::Attach(attach) => attach::attach(&mut client().await?, attach).await?,
            Command::Detach(detach) => client().await?.detach(detach.whose.owner()).await?,
            Command::Addresses(list) => addresses::list(&mut client().await?, list).await?,
            Command::Release(release) => client().await?.release(release.whose.owner()).await?,
        }
        Ok(Verdict::Fine)
    })
}
