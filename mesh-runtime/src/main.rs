//! The daemon: the runtime behind a gRPC server.

mod daemon;

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use daemon::{options::DaemonOptions, serve};

/// How long the end waits for threads that are at files.
const END_DEADLINE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let options = DaemonOptions::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quilt-runtime: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ports, callers and questions to the kernel take a descriptor each, and the usual soft limit is 1024, kept low only
/// for programs that use `select`.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(name: "limit-open-files-stays", %error, "the limit of open files stays as it was");
    }
}

fn run(options: &DaemonOptions) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&options.log_level)
        .with_context(|| {
            format!(
                "--log-level {:?} is neither a level (error, warn, info, debug, trace) nor a filter \
                 such as mesh_runtime=debug",
                options.log_level
            )
        })?;
    let _log = mesh_log::start(options.log.log_format, filter)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The loop that owns all state has a thread of its own: this one is for calls, and a second would only be
        // woken up along with it.
        .worker_threads(1)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .context("cannot start the Tokio runtime")?;
    if options.cleanup {
        let report = runtime.block_on(mesh_runtime::cleanup(&options.runtime_options()))?;
        // What a killed daemon left; one that lives would have refused the rest.
        mesh_socket::remove_leftover(&options.socket)?;
        return print_report(&report).context("cannot write to standard output");
    }
    let served = runtime.block_on(serve::serve(options));
    // A file system that does not answer keeps a thread, and shall not keep the process.
    runtime.shutdown_timeout(END_DEADLINE);
    served
}

fn print_report(report: &mesh_runtime::CleanupReport) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in &report.removed {
        writeln!(out, "done: {line}")?;
    }
    for line in &report.kept {
        writeln!(out, "kept: {line}")?;
    }
    if report.removed.is_empty() && report.kept.is_empty() {
        writeln!(out, "nothing of Quilt Mesh is in this network namespace")?;
    }
    Ok(())
}
