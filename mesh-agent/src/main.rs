//! `quilt-mesh-agent`: the unprivileged part of a Quilt Mesh node.

use std::{io, os::unix::process::CommandExt as _, process::Command, sync::Arc};

use anyhow::Context as _;
use clap::Parser as _;
use mesh_agent::{
    agent::{self, Ended},
    options::Options,
};
use mesh_metrics::Opened;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let log = options.init_logging()?;
    // One thread is enough for tasks that mostly sleep, and keeps the agent small.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of the agent's tasks")?;
    let ended = runtime.block_on(run(options));
    // A question to a resolver that does not answer cannot be taken back, and is not waited for.
    runtime.shutdown_background();
    match ended? {
        Ended::Stopped => Ok(()),
        Ended::Anew => {
            info!(name: "starting-anew", "starting anew");
            // What is held back is told before this program is another.
            drop(log);
            Err(anew().into())
        }
    }
}

/// Where metrics are served on loopback unless told otherwise.
const METRICS_PORT: u16 = 9472;

async fn run(options: Options) -> anyhow::Result<Ended> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;

    let door = options.metrics.door(METRICS_PORT)?;
    let settings = options.settings()?;
    info!(name: "agent-started",
        version = env!("CARGO_PKG_VERSION"),
        hostname = settings.node.hostname,
        host_ip = %settings.host_address,
        runtime = %settings.dataplane.runtime.place,
        "agent started"
    );
    let mut beside = JoinSet::new();
    if let Some(door) = door {
        match door.open().await? {
            Opened::At(door, listener) => {
                let source = Arc::new(settings.measured.clone());
                beside.spawn(mesh_metrics::serve(door, listener, source, stop.clone()));
            }
            Opened::Taken(problem) => settings.problems.raise_problem(problem),
        }
    }
    let agent = agent::run(settings, stop.clone());
    tokio::pin!(agent);
    tokio::select! {
        ended = &mut agent => return Ok(ended?),
        _ = terminate.recv() => info!(name: "sigterm-stopping", "SIGTERM: stopping"),
        _ = interrupt.recv() => info!(name: "sigint-stopping", "SIGINT: stopping"),
    }
    stop.cancel();
    agent.await?;
    // Told to end meanwhile, it does.
    Ok(Ended::Stopped)
}

/// Starts this program anew, in the place of this one and with what it was given: everything is read again. Returns only
/// why that cannot be.
fn anew() -> io::Error {
    // By its name, for whoever looks for it by that; after an upgrade the file that this one is of may have none any more.
    let named = std::env::current_exe().ok().filter(|path| path.exists());
    let program = named.unwrap_or_else(|| "/proc/self/exe".into());
    Command::new(program)
        .args(std::env::args_os().skip(1))
        .exec()
}
