//! The driver as a process of a host.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use mesh_testbed::{Entrance, Host, Signal, wait_until};
use nix::{sys::signal::kill, unistd::Pid};

use crate::{docker::Docker, mesh::SOON};

/// The driver's program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_quilt-docker");

/// A driver with files below its host's directory. Dropping it kills it.
pub(crate) struct Driver {
    namespace: Entrance,
    dir: PathBuf,
    runtime: PathBuf,
    state: PathBuf,
    process: Option<Child>,
}

impl Driver {
    /// Serving, in front of the host's runtime.
    pub(crate) async fn on(host: &Host) -> Self {
        Self::before(host, &host.runtime_socket()).await
    }

    /// Serving, in front of this socket.
    pub(crate) async fn before(host: &Host, runtime: &Path) -> Self {
        let mut driver = Self::of(host, runtime);
        driver.start().await;
        driver
    }

    /// One that is not started yet.
    pub(crate) fn of(host: &Host, runtime: &Path) -> Self {
        let dir = host.dir().join("docker");
        fs::create_dir_all(&dir).unwrap();
        Self {
            namespace: host.netns().entrance(),
            state: dir.join("state"),
            dir,
            runtime: runtime.to_owned(),
            process: None,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("quilt.sock")
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("driver.log")).unwrap_or_default()
    }

    pub(crate) fn log_file(&self) -> fs::File {
        let mut options = fs::File::options();
        let options = options.create(true).append(true);
        options.open(self.dir.join("driver.log")).unwrap()
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// Docker, which calls it.
    pub(crate) fn docker(&self) -> Docker {
        Docker::calling(self.socket())
    }

    /// How it is started.
    pub(crate) fn command(&self) -> Command {
        let log = self.log_file();
        let mut command = self.namespace.command(PROGRAM);
        command
            .arg("serve")
            .arg("--socket")
            .arg(self.socket())
            .arg("--runtime")
            .arg(&self.runtime)
            .arg("--state-dir")
            .arg(&self.state)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    /// Starts it, and waits until it serves.
    pub(crate) async fn start(&mut self) {
        let command = self.command();
        self.start_by(command).await;
    }

    pub(crate) async fn start_by(&mut self, mut command: Command) {
        assert!(self.process.is_none());
        self.process = Some(command.spawn().unwrap());
        let docker = self.docker();
        let served = wait_until("a driver that serves", SOON, async || {
            let answer = docker.post("Plugin.Activate", b"").await;
            answer.map(drop).map_err(|error| error.to_string())
        })
        .await;
        served.unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It is not waited for yet: the id is its own.
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
    }

    /// Sees it end by a signal.
    pub(crate) async fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.end_by_itself().await
    }

    /// Sees it end that was told to.
    pub(crate) async fn end_by_itself(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || process.wait());
        let ended = tokio::time::timeout(SOON, ended).await;
        ended.unwrap().unwrap().unwrap()
    }

    pub(crate) async fn kill(&mut self) {
        let ended = self.end(Signal::SIGKILL).await;
        assert_eq!(ended.signal(), Some(9), "{}", self.log());
    }

    /// Has another process of the same driver go on.
    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        self.start().await;
    }

    /// Sees that it is the process that it was.
    pub(crate) fn assert_runs(&mut self) {
        let ended = self.process.as_mut().unwrap().try_wait().unwrap();
        assert_eq!(ended, None, "{}", self.log());
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
