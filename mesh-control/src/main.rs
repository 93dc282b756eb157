//! `quilt-mesh-control`: the control plane as a process. `--help` is the reference of its options.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use mesh_control::daemon;
use mesh_control::options::Options;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&options.log_level))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let done = match options.command.clone() {
        None => daemon::run(options).await,
        Some(command) => command.run(&options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line with all its causes, and no backtrace whatever RUST_BACKTRACE says: what went
            // wrong lies outside this program. Not through the log, whose level may hide it.
            eprintln!("quilt-mesh-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}
