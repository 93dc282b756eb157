//! The real `quilt-mesh-control`, release build, as a child process; and what it costs.

use std::{
    env, fs,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use mesh_testbed::Postgres;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::usage::Usage;

const BINARY: &str = "quilt-mesh-control";

/// What the control plane keeps its nodes and leases in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    Sqlite,
    Postgres,
}

impl Store {
    pub(crate) const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        })
    }
}

/// Lets this process, and what it starts, open as many files as it may; returns how many.
pub(crate) fn raise_open_files() -> anyhow::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// A running control plane on an empty store. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pid: u32,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
    /// How it was started, but for the address.
    started: Arguments,
}

/// How a control plane is started.
#[derive(Debug, Clone)]
struct Arguments {
    database: Option<String>,
    options: Vec<String>,
}

impl Server {
    /// Starts it with these options, on an SQLite file or a new database of the server.
    pub(crate) async fn start(
        postgres: Option<&Postgres>,
        options: &[&str],
    ) -> anyhow::Result<Self> {
        let database = postgres.map(Postgres::create_database).transpose()?;
        Self::start_at("127.0.0.1:0", database.as_deref(), options).await
    }

    /// Starts it at an address, on an SQLite file or the database that this URL names.
    pub(crate) async fn start_at(
        bind: &str,
        database: Option<&str>,
        options: &[&str],
    ) -> anyhow::Result<Self> {
        let folder = env::temp_dir().join(format!("quilt-mesh-bench-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let started = Arguments {
            database: database.map(str::to_owned),
            options: options.iter().map(|it| (*it).to_owned()).collect(),
        };
        match started.spawn(&folder, bind).await {
            Ok((child, pid, address)) => Ok(Self {
                child,
                pid,
                address,
                folder,
                started,
            }),
            Err(error) => {
                let _ = fs::remove_dir_all(folder);
                Err(error)
            }
        }
    }

    /// Kills it, as a host that loses its power does.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .context("cannot end the control plane")
    }

    /// Starts it again after [`Self::kill`], where it was and with what it had.
    pub(crate) async fn start_again(&mut self) -> anyhow::Result<()> {
        let bind = self.address.to_string();
        (self.child, self.pid, _) = self.started.spawn(&self.folder, &bind).await?;
        Ok(())
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.pid).context("the control plane does not tell")
    }

    /// Where whoever is root asks it.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// Ends it and removes its files.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.kill().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Arguments {
    /// Starts one, and waits until it listens: its process, the process's id, and where it listens.
    async fn spawn(&self, folder: &Path, bind: &str) -> anyhow::Result<(Child, u32, SocketAddr)> {
        let mut command = std::process::Command::new(binary()?);
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"QUILT_MESH_") {
                command.env_remove(name);
            }
        }
        // Several may run on this machine, and none is scraped.
        command.env("QUILT_MESH_METRICS_ADDR", "off");
        match &self.database {
            None => command.arg("--db-path").arg(folder.join("control.db")),
            Some(url) => command.args(["--database-url", url]),
        };
        command
            .args(["--bind", bind])
            .arg("--state-dir")
            .arg(folder)
            .args(&self.options)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = ends_with_us(command)
            .spawn()
            .context("cannot start the control plane")?;
        let pid = child.id().context("the control plane ended at once")?;
        let stderr = child
            .stderr
            .take()
            .context("the control plane has no log")?;
        let mut log = BufReader::new(stderr).lines();
        let listening = async {
            let mut said = String::new();
            while let Some(line) = log.next_line().await? {
                let address = line
                    .split_whitespace()
                    .find_map(|word| word.strip_prefix("address="));
                if let Some(address) = address.filter(|_| line.contains("listening")) {
                    return Ok(address.parse()?);
                }
                said.push_str(&line);
                said.push('\n');
            }
            bail!("the control plane ended:\n{said}");
        };
        let address = timeout(Duration::from_secs(60), listening)
            .await
            .context("the control plane did not start")??;
        // Read on, so that it never waits for its log.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Ok((child, pid, address))
    }
}

/// Has a process that is yet to be started end when its handle is dropped, and when this process ends, however it does.
pub(crate) fn ends_with_us(mut command: std::process::Command) -> Command {
    // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command
}

/// In the directory that QUILT_MESH_BIN_DIR names, else beside this program.
fn binary() -> anyhow::Result<PathBuf> {
    let folder = match env::var_os(mesh_testbed::BIN_DIR_VARIABLE).filter(|it| !it.is_empty()) {
        Some(folder) => folder.into(),
        None => {
            let this = env::current_exe().context("cannot find this program")?;
            this.parent().map(PathBuf::from).unwrap_or_default()
        }
    };
    let path = folder.join(BINARY);
    if !path.is_file() {
        bail!(
            "no {}: build it with `cargo build --release -p mesh-control`",
            path.display()
        );
    }
    Ok(path)
}
