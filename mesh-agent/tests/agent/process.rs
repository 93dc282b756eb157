//! The agent's binary as a child process.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use mesh_client::{AgentClient, AgentClientError};
use mesh_problems::{Finding, Kind};
use mesh_proto::mesh::AgentStatus;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    fake_control_plane::FakeControlPlane,
    fake_runtime::FakeRuntime,
    wait::{DEADLINE, holds},
};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_quilt-mesh-agent");

/// This node's address in all tests.
pub(crate) const HOST_IP: &str = "192.0.2.1";

pub(crate) struct Agent {
    child: Child,
    /// Where it says how it fares.
    socket: Option<PathBuf>,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    _state: Option<TempDir>,
}

impl Agent {
    /// Starts an agent with a state directory of its own and short intervals; `arguments`
    /// come last and win.
    pub(crate) fn start(
        control: &FakeControlPlane,
        runtime: &FakeRuntime,
        arguments: &[&str],
    ) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut command = Self::command(Path::new(BINARY), control, runtime, state.path());
        command.args(["--host-ip", HOST_IP]).args(arguments);
        let mut agent = Self::spawn(command);
        agent._state = Some(state);
        agent
    }

    /// The command line without --host-ip.
    pub(crate) fn command(
        binary: &Path,
        control: &FakeControlPlane,
        runtime: &FakeRuntime,
        state: &Path,
    ) -> Command {
        Self::options_at(Command::new(binary), &control.url(), runtime, state)
    }

    /// Gives a command that starts the binary, somewhere, its options without --host-ip.
    pub(crate) fn options_at(
        command: Command,
        control: &str,
        runtime: &FakeRuntime,
        state: &Path,
    ) -> Command {
        let mut command = Self::options_without_runtime(command, control, state);
        command.args(["--quilt-runtime", &runtime.url()]);
        command
    }

    /// The same for an agent that finds its runtime.
    pub(crate) fn options_without_runtime(
        mut command: Command,
        control: &str,
        state: &Path,
    ) -> Command {
        command
            .env_clear()
            // Many run on this machine at a time, beside its own.
            .env("QUILT_MESH_METRICS_ADDR", "off")
            .args(["--control-plane", control])
            .args(["--hostname", "node1", "--log-level", "debug"])
            .arg("--state-dir")
            .arg(state)
            .arg("--socket")
            .arg(state.join("agent.sock"))
            .args(["--heartbeat-interval", "100ms", "--sync-interval", "100ms"])
            .args(["--request-timeout", "500ms", "--reinject-interval", "300ms"])
            .args(["--probe-timeout", "50ms", "--probe-attempts", "2"])
            // An option may be repeated: the last one wins.
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Makes the command run without any privilege. Does nothing if it has none anyway.
    pub(crate) fn unprivileged(command: &mut Command) {
        if nix::unistd::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let arguments: Vec<_> = command.get_args().collect();
        let given = arguments.windows(2).rev();
        let socket = given
            .filter(|pair| pair[0] == "--socket")
            .map(|pair| PathBuf::from(pair[1]))
            .next();
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            socket,
            log,
            reader: Some(reader),
            _state: None,
        }
    }

    /// How many TCP connections to a port of 127.0.0.1 it has.
    pub(crate) fn connections_to(&self, port: u16) -> usize {
        let inodes: HashSet<String> = fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .unwrap()
            .filter_map(|entry| {
                let target = fs::read_link(entry.ok()?.path()).ok()?;
                let inode = target
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?;
                Some(inode.to_owned())
            })
            .collect();
        // Columns of /proc/net/tcp: number, local and remote address in hexadecimal, state (01 is established), … the
        // tenth is the inode.
        let remote = format!("0100007F:{port:04X}");
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let ours = table.lines().filter(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            columns.get(2) == Some(&remote.as_str())
                && columns.get(3) == Some(&"01")
                && columns.get(9).is_some_and(|inode| inodes.contains(*inode))
        });
        ours.count()
    }

    /// Waits for `condition`, and fails with the agent's log if it does not come.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        assert!(
            holds(condition),
            "not within {DEADLINE:?}: {what}\n{}",
            self.log().join("\n")
        );
    }

    #[track_caller]
    pub(crate) fn until_logged(&self, text: &str) {
        self.until(&format!("log line {text:?}"), || self.logged(text) > 0);
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// How many log lines contain `text`.
    pub(crate) fn logged(&self, text: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.contains(text)).count()
    }

    /// Asks it how it fares.
    pub(crate) fn asked(&self) -> Result<AgentStatus, AgentClientError> {
        let socket = self.socket.as_deref().unwrap();
        let asking = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        asking
            .unwrap()
            .block_on(async { AgentClient::connect(socket).await?.status().await })
    }

    /// How it fares, once it tells.
    #[track_caller]
    pub(crate) fn status(&self) -> AgentStatus {
        self.until("an answer on its socket", || self.asked().is_ok());
        self.asked().unwrap()
    }

    /// What it finds wrong, by code.
    #[track_caller]
    pub(crate) fn findings(&self) -> BTreeMap<String, Finding> {
        let findings = self.status().findings.into_iter().map(Finding::from);
        findings.map(|it| (it.code.clone(), it)).collect()
    }

    /// Waits until it finds this wrong, and says what is observed.
    #[track_caller]
    pub(crate) fn until_found(&self, kind: &Kind) -> String {
        let what = format!("the finding {}", kind.code);
        self.until(&what, || self.findings().contains_key(kind.code));
        let finding = self.findings().remove(kind.code).unwrap();
        assert_eq!(finding.severity, kind.severity);
        assert!(finding.since > 0 && !finding.observed.is_empty());
        finding.observed
    }

    /// Waits until it does not find this wrong.
    #[track_caller]
    pub(crate) fn until_over(&self, kind: &Kind) {
        let what = format!("the end of {}", kind.code);
        self.until(&what, || !self.findings().contains_key(kind.code));
    }

    /// A field of /proc/PID/status.
    pub(crate) fn status_field(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// Waits for the end; the log is complete then.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        assert!(
            holds_mut(|| self.child.try_wait().unwrap().is_some()),
            "the agent does not end\n{}",
            self.log().join("\n")
        );
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.child.wait().unwrap()
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }
}

fn holds_mut(condition: impl FnMut() -> bool) -> bool {
    let condition = std::cell::RefCell::new(condition);
    holds(|| (condition.borrow_mut())())
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only if the child is gone already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
