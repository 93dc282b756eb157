//! `quilt-mesh-agent`: the unprivileged part of a Quilt Mesh node.

use anyhow::Context as _;
use clap::Parser as _;
use mesh_agent::{agent, options::Options};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    options.init_logging()?;
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

async fn run(options: Options) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;

    let settings = options.settings()?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        hostname = settings.node.hostname,
        host_ip = %settings.host_address,
        runtime = %settings.dataplane.runtime.place,
        "agent started"
    );
    let agent = agent::run(settings, stop.clone());
    tokio::pin!(agent);
    tokio::select! {
        ended = &mut agent => return Ok(ended?),
        _ = terminate.recv() => info!("SIGTERM: stopping"),
        _ = interrupt.recv() => info!("SIGINT: stopping"),
    }
    stop.cancel();
    Ok(agent.await?)
}
