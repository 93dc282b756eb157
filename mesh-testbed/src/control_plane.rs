//! The cluster's control plane: a process in a namespace of its own on the underlay.

use std::{
    ffi::OsString,
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_rest::{
    client::{CallError, Client},
    node::NodeEntry,
    status::Status,
};
use nix::sys::signal::Signal;

mod caller;

use crate::{
    deadline::{Deadline, wait_until},
    error::{Error, Result},
    netns::NetNs,
    process::{DaemonOptions, Launch, Privileges, Process, output},
};

const BINARY: &str = "quilt-mesh-control";
const PORT: u16 = 8080;

/// The control plane. It is not running until [`start`](Self::start).
#[derive(Debug)]
pub struct ControlPlane {
    namespace: NetNs,
    address: Ipv4Addr,
    dir: PathBuf,
    process: Mutex<Option<Process>>,
    last_options: Mutex<DaemonOptions>,
    /// The token of an operator who may change things, once one was made.
    operator: Mutex<Option<String>>,
}

impl ControlPlane {
    pub(crate) fn new(namespace: NetNs, address: Ipv4Addr, dir: PathBuf) -> Self {
        Self {
            namespace,
            address,
            dir,
            process: Mutex::default(),
            last_options: Mutex::default(),
            operator: Mutex::default(),
        }
    }

    /// Its namespace.
    pub fn netns(&self) -> &NetNs {
        &self.namespace
    }

    /// Its address on the underlay.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The URL of its REST API.
    pub fn url(&self) -> String {
        self.url_of(self.is_plain())
    }

    pub(crate) fn url_of(&self, plain: bool) -> String {
        let scheme = match plain {
            true => "http",
            false => "https",
        };
        format!("{scheme}://{}:{PORT}", self.address)
    }

    fn is_plain(&self) -> bool {
        lock(&self.last_options).is_plain()
    }

    /// Its database file.
    pub fn database(&self) -> PathBuf {
        self.dir.join("mesh.db")
    }

    /// The file with its certificate authority: certificate and key, for whoever serves or backs it up.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("authority.key.pem")
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.dir.join("control.log")
    }

    /// Starts it on its database, which outlives it, and waits until it answers.
    ///
    /// # Errors
    ///
    /// A missing binary, or [`Error::Deadline`] with its last log lines.
    pub async fn start(&self, options: &DaemonOptions) -> Result<()> {
        self.spawn(options)?;
        self.wait_ready(Duration::from_secs(15)).await
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    ///
    /// A missing binary, or one that is running already.
    pub fn spawn(&self, options: &DaemonOptions) -> Result<()> {
        let mut slot = self.process();
        if let Some(process) = slot.as_mut()
            && process.exit_status()?.is_none()
        {
            return Err(self.state("is running already"));
        }
        *lock(&self.last_options) = options.clone();
        // Its database may be another by now, in which that operator is not.
        *lock(&self.operator) = None;
        let args: Vec<OsString> = vec![
            "--bind".into(),
            format!("0.0.0.0:{PORT}").into(),
            "--db-path".into(),
            self.database().into(),
        ];
        // By its variable, which earlier versions do not know.
        let insecure = options.is_plain().to_string();
        let options = &options.clone().env("QUILT_MESH_INSECURE", insecure);
        *slot = Some(Process::start(Launch {
            name: BINARY,
            place: self.namespace.name(),
            namespace: &self.namespace,
            mounts: None,
            inside: None,
            args,
            log: self.log(),
            privileges: Privileges::None,
            options,
        })?);
        Ok(())
    }

    /// What its command line says, told to do something where it serves, such as `["token", "create"]`.
    ///
    /// # Errors
    ///
    /// What it says when it refuses.
    pub fn told(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(crate::binaries::find(BINARY)?);
        command.args(words).arg("--state-dir").arg(&self.dir);
        output(command)
    }

    /// Whether it serves its command line.
    pub(crate) fn can_be_told(&self) -> bool {
        UnixStream::connect(self.dir.join("admin.sock")).is_ok()
    }

    /// Waits until it answers `GET /health`.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with its last log lines, also when it ended.
    pub async fn wait_ready(&self, within: Duration) -> Result<()> {
        let deadline = Deadline::after(within);
        loop {
            let health = self.call_as(None, async |client| client.health().await);
            let seen = match health.await {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            };
            let ended = match self.process().as_mut() {
                Some(process) => process.exit_status()?.is_some(),
                None => return Err(self.state("is not running")),
            };
            if ended || deadline.pause().await.is_err() {
                let state = self
                    .process()
                    .as_mut()
                    .map(Process::describe)
                    .unwrap_or_default();
                return Err(deadline.missed("a healthy control plane", format!("{seen}; {state}")));
            }
        }
    }

    /// Sends it a signal without waiting for what follows.
    ///
    /// # Errors
    ///
    /// The kernel's answer, or when it was never started.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        match self.process().as_mut() {
            Some(process) => process.signal(signal),
            None => Err(self.state("is not running")),
        }
    }

    /// Sends it a signal that ends it and waits for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] when it goes on.
    pub async fn stop(&self, signal: Signal, within: Duration) -> Result<ExitStatus> {
        let taken = self.process().take();
        let mut process = taken.ok_or_else(|| self.state("is not running"))?;
        process.signal(signal)?;
        process.wait_exit(within).await
    }

    /// Kills it by SIGKILL and starts it again with the same options.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn restart(&self) -> Result<()> {
        drop(self.process().take());
        let options = lock(&self.last_options).clone();
        self.start(&options).await
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::pid)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resident_bytes(&self) -> Result<u64> {
        match self.process().as_ref() {
            Some(process) => process.resident_bytes(),
            None => Err(self.state("is not running")),
        }
    }

    /// Every node it knows.
    ///
    /// # Errors
    ///
    /// [`Error::Rest`] for anything but a list of nodes.
    pub async fn nodes(&self) -> Result<Vec<NodeEntry<'static>>> {
        let list = self.call(async |client| client.nodes(None).await);
        Ok(list.await?.nodes)
    }

    /// Waits until a node of this name has this status.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with the nodes seen last.
    pub async fn wait_status(
        &self,
        hostname: &str,
        status: Status,
        within: Duration,
    ) -> Result<NodeEntry<'static>> {
        let what = format!("{hostname} being {}", status.as_str());
        wait_until(&what, within, async || {
            let nodes = self.nodes().await.map_err(|error| error.to_string())?;
            nodes
                .iter()
                .find(|node| node.hostname == hostname && node.status() == Some(status))
                .cloned()
                .ok_or_else(|| format!("the nodes are {nodes:?}"))
        })
        .await
    }

    /// Makes a call from its own namespace: as an operator who may change things, or over plain HTTP where it was
    /// [started so](DaemonOptions::plain).
    ///
    /// # Errors
    ///
    /// [`Error::Rest`] with what became of the call.
    pub async fn call<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(Client) -> Result<T, CallError> + Send + 'static,
    {
        let operator = match self.is_plain() {
            true => None,
            false => Some(self.operator()?),
        };
        self.call_as(operator, call).await
    }

    /// Makes a call from its own namespace as somebody who has no credentials.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub async fn call_without_credentials<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(Client) -> Result<T, CallError> + Send + 'static,
    {
        self.call_as(None, call).await
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        lock(&self.process)
    }

    fn state(&self, problem: &'static str) -> Error {
        Error::DaemonState {
            daemon: BINARY,
            place: self.namespace.name().into(),
            problem,
        }
    }

    /// The directory of its database and log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
