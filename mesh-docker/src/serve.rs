//! Serving Docker's calls, on a socket that systemd or this process has made.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt as _, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use mesh_client::DEFAULT_SOCKET;
use nix::sys::stat::{Mode, umask};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

use crate::{
    calls::{Plugin, router},
    record::Records,
    runtime::Runtime,
    unfinished,
};

/// Where Docker looks for plugins on this host, with the driver's name.
pub(crate) const SOCKET: &str = "/run/docker/plugins/quilt.sock";

/// Where it is kept what was given to Docker.
pub(crate) const STATE: &str = "/var/lib/quilt-docker";

/// How long calls that are under way may take once it is to end.
const FAREWELL: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Socket on which Docker calls; its name is the driver's. One that systemd passes stands above it
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,

    /// The runtime's socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    runtime: PathBuf,

    /// Directory in which it is kept what was given to Docker
    #[arg(long, value_name = "DIRECTORY", default_value = STATE)]
    state_dir: PathBuf,

    /// How often it is looked for addresses that Docker has forgotten to give back
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600), hide = true)]
    look_every: u64,

    #[command(flatten)]
    log: mesh_log::LogOptions,
}

/// Serves until a signal says to end.
pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Nothing that is made here is for others.
    umask(Mode::from_bits_truncate(0o077));
    // Before there are threads: it changes the environment.
    let passed = ListenFd::from_env().take_unix_listener(0);
    let passed = passed.context("what systemd passes is no Unix socket that listens")?;
    let _log = mesh_log::start(options.log.log_format, filter).context("no log")?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no event loop")?
        .block_on(serve(options, passed))
}

async fn serve(
    options: Options,
    passed: Option<std::os::unix::net::UnixListener>,
) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("no SIGTERM is heard")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("no SIGINT is heard")?;
    let records = Records::open(&options.state_dir)?;
    let (listener, _own) = match passed {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            (UnixListener::from_std(listener)?, None)
        }
        None => {
            let (own, listener) = Socket::bind(&options.socket)?;
            (listener, Some(own))
        }
    };
    let plugin = Arc::new(Plugin::new(records, Runtime::behind(options.runtime)));
    tracing::info!(name: "serving-docker-calls", socket = %options.socket.display(), "serving Docker's calls");
    let over = tokio_util::sync::CancellationToken::new();
    let ended = over.clone();
    let serving = axum::serve(listener, router(plugin.clone()))
        .with_graceful_shutdown(async move { ended.cancelled().await });
    let mut serving = tokio::spawn(serving.into_future());
    let finishing = unfinished::keep_finishing(&plugin.records, &plugin.runtime, &plugin.news);
    tokio::select! {
        served = &mut serving => {
            served.context("serving ended")??;
            bail!("nothing more comes from the socket");
        }
        () = finishing => {}
        () = plugin.keep_looking(Duration::from_secs(options.look_every)) => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    over.cancel();
    // Docker keeps connections open on which nothing comes.
    let _ = tokio::time::timeout(FAREWELL, serving).await;
    tracing::info!(name: "ended", "ended");
    Ok(())
}

/// A socket that this process has made, and removes.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // One that cannot be removed is replaced by the next start.
        let _ = fs::remove_file(&self.0);
    }
}

impl Socket {
    /// Makes it. One that a process left is replaced, one that somebody serves is not.
    fn bind(path: &Path) -> anyhow::Result<(Self, UnixListener)> {
        let shown = path.display();
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("--socket {shown}: cannot make its directory"))?;
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("--socket {shown}")),
            Ok(it) if !it.file_type().is_socket() => {
                bail!("--socket {shown} exists and is no socket: remove it, or choose another path")
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                bail!("another process serves on the socket {shown}: stop it (ss -lxp)")
            }
            Ok(_) => fs::remove_file(path)
                .with_context(|| format!("cannot remove the leftover socket {shown}"))?,
        }
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot serve on the socket {shown}"))?;
        Ok((Self(path.to_owned()), listener))
    }
}
