//! `quilt-mesh-control`: the control plane as a process. `--help` is the reference of its options.

use std::process::ExitCode;

use clap::Parser as _;
use mesh_control::daemon;
use mesh_control::options::Options;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::new(&options.log_level);
    let log = match mesh_log::start(options.log.log_format, filter) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("quilt-mesh-control: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = match options.command.clone() {
        None => daemon::run(options).await,
        Some(command) => command.run(&options).await,
    };
    // What is held back is told before anything is said past the log.
    drop(log);
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
