//! `quilt-mesh-agent`: the unprivileged part of a Quilt Mesh node.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use mesh_agent::{agent, options::Options};
use mesh_metrics::Opened;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let _log = options.init_logging()?;
    // One thread is enough for tasks that mostly sleep, and keeps the agent small.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of the agent's tasks")?;
    let ended = runtime.block_on(run(options));
    // A question to a resolver that does not answer cannot be taken back, and is not waited for.
    runtime.shutdown_background();
    ended
}

/// Where metrics are served on loopback unless told otherwise.
const METRICS_PORT: u16 = 9472;

async fn run(options: Options) -> anyhow::Result<()> {
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
    Ok(agent.await?)
}
