//! `quilt-mesh-control`: the control plane as a process. `--help` is the reference of its options.

use std::io::IsTerminal as _;

use clap::Parser as _;
use mesh_control::daemon;
use mesh_control::options::Options;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&options.log_level))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    daemon::run(options).await
}
