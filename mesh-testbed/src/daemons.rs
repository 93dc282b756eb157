//! The daemons of a host: starting, signalling, waiting for them.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    control_plane::lock,
    deadline::Deadline,
    doors::Doors,
    error::{Error, Result},
    grpc,
    host::{Host, RUNTIME_PORT},
    process::{DaemonOptions, Launch, Privileges, Process},
};

/// By which an agent is given a token to join by: not by option, which earlier releases do not know.
const TOKEN: &str = "QUILT_MESH_JOIN";

/// The daemons of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemon {
    /// `quilt-runtime`.
    Runtime,
    /// `quilt-mesh-agent`.
    Agent,
}

impl Daemon {
    /// The binary's file name.
    pub fn binary(self) -> &'static str {
        match self {
            Self::Runtime => "quilt-runtime",
            Self::Agent => "quilt-mesh-agent",
        }
    }
}

/// Where the binary is that the testbed starts for this daemon.
///
/// # Errors
///
/// [`Error::BinaryMissing`] with the places that were searched.
pub fn binary(daemon: Daemon) -> Result<PathBuf> {
    crate::binaries::find(daemon.binary())
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    process: Mutex<Option<Process>>,
    last_options: Mutex<DaemonOptions>,
}

impl Slot {
    /// Takes note of its process' end, so that nothing of it is left.
    pub(crate) fn look_after(&self) {
        if let Some(process) = lock(&self.process).as_mut() {
            // Whoever uses the daemon next is told what is wrong.
            let _ = process.exit_status();
        }
    }
}

impl Host {
    /// Starts the runtime. See [`spawn`](Self::spawn).
    ///
    /// # Errors
    ///
    /// A missing binary, or [`Error::Deadline`] with its last log lines.
    pub async fn start_runtime(&self, options: &DaemonOptions) -> Result<()> {
        self.spawn(Daemon::Runtime, options)?;
        self.wait_serving(Duration::from_secs(20)).await
    }

    /// Starts the agent and waits until it has joined: the runtime must be running.
    ///
    /// # Errors
    ///
    /// A missing binary, or [`Error::Deadline`] with its last log lines.
    pub async fn start_agent(&self, options: &DaemonOptions) -> Result<()> {
        self.spawn(Daemon::Agent, options)?;
        self.wait_joined(Duration::from_secs(20)).await
    }

    /// Starts a daemon without waiting for anything.
    ///
    /// # Errors
    ///
    /// A missing binary, or one that is running already.
    pub fn spawn(&self, daemon: Daemon, options: &DaemonOptions) -> Result<()> {
        let slot = self.slot(daemon);
        let mut process = lock(&slot.process);
        if let Some(process) = process.as_mut()
            && process.exit_status()?.is_none()
        {
            return Err(self.state(daemon, "is running already"));
        }
        *lock(&slot.last_options) = options.clone();
        // Not by option: earlier releases, which are upgraded from, know none.
        let mut options = options
            .clone()
            .env("QUILT_MESH_SOCKET", self.runtime_socket())
            .env("QUILT_MESH_AGENT_SOCKET", self.agent_socket());
        if daemon == Daemon::Agent && self.has_to_join(&options) {
            let token = self.control.told(&["token", "create"])?;
            options = options.env(TOKEN, token.trim());
        }
        let options = &options;
        let doors = match daemon {
            Daemon::Runtime => lock(&self.runtime_doors).upgrade(),
            Daemon::Agent => None,
        };
        *process = Some(Process::start(Launch {
            name: daemon.binary(),
            place: self.name(),
            namespace: self.netns(),
            mounts: None,
            inside: doors.as_deref(),
            args: self.arguments(daemon, options.is_plain()),
            log: self.log(daemon),
            privileges: match daemon {
                Daemon::Runtime => Privileges::Root,
                Daemon::Agent => Privileges::None,
            },
            options,
        })?);
        Ok(())
    }

    /// Whether its agent is to be given a token. None is made while nobody serves who could make it.
    fn has_to_join(&self, options: &DaemonOptions) -> bool {
        let given = options.value_of("--state-dir");
        let state_dir = given.map_or_else(|| self.state_dir(), PathBuf::from);
        let has_joined = state_dir.join("node.pem").exists();
        !options.is_plain()
            && options.variable(TOKEN).is_none()
            && !has_joined
            && self.control.can_be_told()
    }

    fn arguments(&self, daemon: Daemon, plain: bool) -> Vec<OsString> {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, RUNTIME_PORT));
        let options: Vec<(&str, OsString)> = match daemon {
            Daemon::Runtime => vec![
                ("--grpc-addr", loopback.to_string().into()),
                ("--bpffs", self.bpffs_dir().into()),
                ("--state-dir", self.runtime_state_dir().into()),
                ("--log-level", "info".into()),
            ],
            Daemon::Agent => vec![
                ("--control-plane", self.control.url_of(plain).into()),
                ("--quilt-runtime", format!("http://{loopback}").into()),
                ("--host-ip", self.address().to_string().into()),
                ("--hostname", self.name().to_owned().into()),
                ("--state-dir", self.state_dir().into()),
                ("--log-level", "info".into()),
            ],
        };
        options
            .into_iter()
            .flat_map(|(option, value)| [option.into(), value])
            .collect()
    }

    /// Sends a daemon a signal without waiting for what follows.
    ///
    /// # Errors
    ///
    /// The kernel's answer, or when it was never started.
    pub fn kill(&self, daemon: Daemon, signal: Signal) -> Result<()> {
        match lock(&self.slot(daemon).process).as_mut() {
            Some(process) => process.signal(signal),
            None => Err(self.state(daemon, "is not running")),
        }
    }

    /// Sends a daemon a signal that ends it and waits for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with its last log lines when it goes on.
    pub async fn stop(
        &self,
        daemon: Daemon,
        signal: Signal,
        within: Duration,
    ) -> Result<ExitStatus> {
        let taken = lock(&self.slot(daemon).process).take();
        let mut process = taken.ok_or_else(|| self.state(daemon, "is not running"))?;
        process.signal(signal)?;
        process.wait_exit(within).await
    }

    /// Kills a daemon by SIGKILL and starts it with the options of its last start, without
    /// waiting for it to be ready.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    pub fn restart(&self, daemon: Daemon) -> Result<()> {
        let slot = self.slot(daemon);
        drop(lock(&slot.process).take());
        let options = lock(&slot.last_options).clone();
        self.spawn(daemon, &options)
    }

    /// Has the runtime run in the namespaces behind the doors from now on, as long as they are there.
    pub(crate) async fn move_runtime(&self, doors: &Arc<Doors>) -> Result<()> {
        *lock(&self.runtime_doors) = Arc::downgrade(doors);
        doors.let_in(&self.runtime);
        let running = self.is_running(Daemon::Runtime);
        if running {
            let within = Duration::from_secs(20);
            self.stop(Daemon::Runtime, Signal::SIGTERM, within).await?;
        }
        let options = lock(&self.slot(Daemon::Runtime).last_options).clone();
        self.start_runtime(&options).await
    }

    /// Kills both daemons by SIGKILL, as a power cut does.
    pub fn kill_all(&self) {
        drop(lock(&self.agent.process).take());
        drop(lock(&self.runtime.process).take());
    }

    /// Whether a daemon runs.
    pub fn is_running(&self, daemon: Daemon) -> bool {
        lock(&self.slot(daemon).process)
            .as_mut()
            .is_some_and(|process| matches!(process.exit_status(), Ok(None)))
    }

    /// How a daemon ended, or `None` while it runs or if it was never started.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn exit_status(&self, daemon: Daemon) -> Result<Option<ExitStatus>> {
        match lock(&self.slot(daemon).process).as_mut() {
            Some(process) => process.exit_status(),
            None => Ok(None),
        }
    }

    /// A daemon's process id.
    pub fn pid(&self, daemon: Daemon) -> Option<u32> {
        lock(&self.slot(daemon).process).as_ref().map(Process::pid)
    }

    /// A daemon's resident memory in bytes.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resident_bytes(&self, daemon: Daemon) -> Result<u64> {
        match lock(&self.slot(daemon).process).as_ref() {
            Some(process) => process.resident_bytes(),
            None => Err(self.state(daemon, "is not running")),
        }
    }

    /// Waits until the daemons that were started are ready: the runtime serves, the agent
    /// has joined.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with the last log lines and how to look inside.
    pub async fn wait_ready(&self, within: Duration) -> Result<()> {
        let deadline = Deadline::after(within);
        self.wait_serving(within).await?;
        match self.pid(Daemon::Agent) {
            Some(_) => self.wait_joined(deadline.remaining()).await,
            None => Ok(()),
        }
    }

    /// Waits until the runtime's health service answers SERVING.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`], at once when the runtime has ended.
    pub async fn wait_serving(&self, within: Duration) -> Result<()> {
        self.wait_for(Daemon::Runtime, "a serving runtime", within, async || {
            self.check_serving().await
        })
        .await
    }

    /// Asks the runtime's health service once, over a new connection.
    ///
    /// # Errors
    ///
    /// What stands in the way of SERVING.
    pub async fn check_serving(&self) -> Result<(), String> {
        let channel = self
            .runtime_channel()
            .await
            .map_err(|error| error.to_string())?;
        grpc::check_serving(channel).await
    }

    /// Waits until the agent has given the runtime its subnet and its peers.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`], at once when the agent has ended.
    pub async fn wait_joined(&self, within: Duration) -> Result<()> {
        self.wait_for(Daemon::Agent, "a joined agent", within, async || {
            let status = self.status().await.map_err(|error| error.to_string())?;
            match !status.subnet.is_empty() && status.generation > 0 {
                true => Ok(()),
                false => Err(format!(
                    "the runtime shows subnet {:?} and generation {}",
                    status.subnet, status.generation
                )),
            }
        })
        .await
    }

    /// Waits until the runtime shows exactly `peers` peers, all with their kernel path.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with the peers seen last.
    pub async fn wait_peers(&self, peers: usize, within: Duration) -> Result<()> {
        let what = format!("{peers} peers on the runtime");
        self.wait_for(Daemon::Agent, &what, within, async || {
            let list = self.peers().await.map_err(|error| error.to_string())?.peers;
            match list.len() == peers && list.iter().all(|peer| peer.kernel_path_ready) {
                true => Ok(()),
                false => Err(format!("its peers are {list:?}")),
            }
        })
        .await
    }

    async fn wait_for(
        &self,
        daemon: Daemon,
        what: &str,
        within: Duration,
        mut look: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<()> {
        let deadline = Deadline::after(within);
        loop {
            let ended = self.exit_status(daemon)?.is_some();
            let seen = match look().await {
                Ok(()) => return Ok(()),
                Err(seen) => seen,
            };
            if ended || deadline.pause().await.is_err() {
                let what = format!("{what} on {}", self.name());
                let state = format!("{seen}\n{}", self.describe());
                return Err(deadline.missed(what, state));
            }
        }
    }

    /// State and last log lines of both daemons, and how to look inside.
    pub fn describe(&self) -> String {
        [Daemon::Runtime, Daemon::Agent]
            .map(|daemon| match lock(&self.slot(daemon).process).as_mut() {
                Some(process) => process.describe(),
                None => format!("{} on {} is not running\n", daemon.binary(), self.name()),
            })
            .concat()
    }

    fn slot(&self, daemon: Daemon) -> &Slot {
        match daemon {
            Daemon::Runtime => &self.runtime,
            Daemon::Agent => &self.agent,
        }
    }

    fn state(&self, daemon: Daemon, problem: &'static str) -> Error {
        Error::DaemonState {
            daemon: daemon.binary(),
            place: self.name().to_owned(),
            problem,
        }
    }
}
