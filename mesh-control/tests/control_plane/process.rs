//! The real `quilt-mesh-control` as a child process that never outlives its test.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mesh_testbed::copy_program;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};
use tempfile::TempDir;

/// How long a process may take to start, to refuse, or to stop. Only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a database, and the options to start control planes on it.
pub(crate) struct Setup {
    // Shared with the control planes started in it, which may outlive this.
    folder: Arc<TempDir>,
    db_path: Option<PathBuf>,
    options: Vec<String>,
    environment: Vec<(String, String)>,
    user: Option<u32>,
    program: PathBuf,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let db_path = Some(folder.path().join("control.db"));
        Self {
            folder,
            db_path,
            options: Vec::new(),
            environment: Vec::new(),
            user: None,
            program: env!("CARGO_BIN_EXE_quilt-mesh-control").into(),
        }
    }

    pub(crate) fn with(mut self, option: &str, value: &str) -> Self {
        self.set(option, value);
        self
    }

    /// Sets an option for the control planes started from now on.
    pub(crate) fn set(&mut self, option: &str, value: &str) {
        if let Some(at) = self.options.iter().position(|known| known == option) {
            self.options.drain(at..at + 2);
        }
        self.options.extend([option.to_owned(), value.to_owned()]);
    }

    pub(crate) fn with_environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn with_db_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.db_path = Some(path.into());
        self
    }

    /// Starts control planes on a PostgreSQL database.
    pub(crate) fn on(self, database_url: &str) -> Self {
        let folder = self.folder().to_str().unwrap().to_owned();
        self.with_default_db_path()
            .with_environment("QUILT_MESH_DATABASE_URL", database_url)
            .with_environment("QUILT_MESH_STATE_DIR", &folder)
    }

    /// Leaves --db-path away.
    pub(crate) fn with_default_db_path(mut self) -> Self {
        self.db_path = None;
        self
    }

    /// Starts the control plane as another user (needs root).
    pub(crate) fn run_by(mut self, user: u32) -> Self {
        // The build folder may be closed to that user.
        let program = self.folder.path().join("quilt-mesh-control");
        copy_program(&self.program, &program).unwrap();
        self.program = program;
        self.user = Some(user);
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn db_path(&self) -> &Path {
        self.db_path.as_deref().unwrap()
    }

    /// The database, opened past the control plane.
    pub(crate) async fn database(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(self.db_path())
            .create_if_missing(true);
        options.connect().await.unwrap()
    }

    fn spawn(&self) -> Running {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUILT_MESH_")) {
            command.env_remove(name);
        }
        command
            // Many run on this machine at a time, beside its own.
            .env("QUILT_MESH_METRICS_ADDR", "off")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let bind_given = self
            .options
            .iter()
            .any(|option| option == "--bind" || option == "--listen")
            || self
                .environment
                .iter()
                .any(|(name, _)| name == "QUILT_MESH_BIND");
        if !bind_given {
            command.args(["--bind", "127.0.0.1:0"]);
        }
        if let Some(db_path) = &self.db_path {
            command.arg("--db-path").arg(db_path);
        }
        command.args(&self.options);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        // SAFETY: prctl is async-signal-safe, and the closure does nothing else: no allocation, no lock.
        unsafe {
            command.pre_exec(|| {
                // The test process may be killed as well; the child must not stay.
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into)
            });
        }
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = channel();
        let said = Arc::<Mutex<Vec<String>>>::default();
        let all = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Kept by the test's output when it fails.
                eprintln!("control plane: {line}");
                all.lock().unwrap().push(line.clone());
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        Running { child, log, said }
    }

    /// Starts a control plane and waits until it serves.
    pub(crate) fn start(&self) -> ControlPlane {
        self.serving(self.spawn())
    }

    /// Starts all of them at once, and waits until each serves.
    pub(crate) fn start_all(setups: &[Self]) -> Vec<ControlPlane> {
        let running: Vec<Running> = setups.iter().map(Self::spawn).collect();
        let all = setups.iter().zip(running);
        all.map(|(setup, running)| setup.serving(running)).collect()
    }

    /// Starts a control plane and waits until it serves, or has ended: what it said then.
    pub(crate) fn start_or_refused(&self) -> Result<ControlPlane, String> {
        self.settled(self.spawn())
    }

    fn serving(&self, running: Running) -> ControlPlane {
        self.settled(running)
            .unwrap_or_else(|said| panic!("the control plane ended: {said}"))
    }

    fn settled(&self, mut running: Running) -> Result<ControlPlane, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match running
                .log
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) if line.contains("listening") => {
                    let address = line
                        .split_whitespace()
                        .find_map(|word| word.strip_prefix("address="))
                        .and_then(|address| address.parse().ok())
                        .unwrap_or_else(|| panic!("no address in {line:?}"));
                    return Ok(ControlPlane {
                        running,
                        address,
                        _folder: Arc::clone(&self.folder),
                    });
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("the control plane did not start in time"),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = running.child.wait();
                    let said = running.said.lock().unwrap().join("\n");
                    return Err(format!("{status:?}: {said}"));
                }
            }
        }
    }

    /// Starts a control plane that must not come up, and returns what it says.
    pub(crate) fn start_refused(&self) -> String {
        let mut running = self.spawn();
        let status = running.wait();
        let said: Vec<String> = running.log.iter().collect();
        let said = said.join("\n");
        assert!(
            status.code().is_some_and(|code| code != 0),
            "{status:?}: {said}"
        );
        assert!(!said.contains("panicked"), "{said}");
        said
    }
}

struct Running {
    child: Child,
    log: Receiver<String>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Running {
    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the control plane did not end in time"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that has already been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A control plane that serves.
pub(crate) struct ControlPlane {
    running: Running,
    address: SocketAddr,
    _folder: Arc<TempDir>,
}

impl ControlPlane {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged until now.
    pub(crate) fn log(&self) -> Vec<String> {
        self.running.said.lock().unwrap().clone()
    }

    /// Waits until it has logged a line with this in it: it may answer first. All such lines.
    pub(crate) async fn until_logged(&self, words: &str) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let mut lines = self.log();
            lines.retain(|line| line.contains(words));
            if !lines.is_empty() {
                return lines;
            }
            assert!(Instant::now() < until, "it does not say {words:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its resident memory (proc_pid_smaps_rollup(5)).
    pub(crate) fn resident_bytes(&self) -> u64 {
        let smaps = std::fs::read_to_string(self.proc("smaps_rollup")).unwrap();
        let kibibytes = smaps
            .lines()
            .find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"));
        kibibytes.unwrap().parse::<u64>().unwrap() * 1024
    }

    /// How many files and connections it has open.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).unwrap().count()
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.running.child.id())
    }

    /// What it has logged since it listens, or since this was asked before.
    pub(crate) fn logged(&self) -> Vec<String> {
        self.running.log.try_iter().collect()
    }

    /// SIGTERM; returns how it ended.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.running.wait()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.running.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    /// SIGKILL, in the middle of whatever it does.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.running.wait().signal(), Some(Signal::SIGKILL as i32));
    }
}
