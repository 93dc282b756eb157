//! The real control plane, which runs in this process, and nodes of it.

use std::{
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    thread::JoinHandle,
    time::Duration,
};

use clap::Parser as _;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::{
    fake_control_plane::server,
    fake_runtime::FakeRuntime,
    process::{Agent, BINARY},
    wait::holds,
};

/// A port that nobody is given who asks for any: a connection to it was closed on its side a moment ago (TIME_WAIT), which
/// keeps no daemon from it that names it.
fn reserved_port(address: IpAddr) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect((address, port)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    drop(accepted);
    drop(client);
    port
}

/// The daemon on a database in a directory.
pub(crate) struct Control {
    pub(crate) port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// On loopback, on a free port or on the one it had. A node is down after a second.
    pub(crate) fn start(directory: &Path, port: Option<u16>) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), directory, port, "1s")
    }

    /// On loopback, and as it is without being told otherwise: who has no credentials is let in as long as nobody has.
    pub(crate) fn start_secured(directory: &Path, port: Option<u16>) -> Self {
        Self::start_secured_with(directory, port, &[])
    }

    /// The same, with further options.
    pub(crate) fn start_secured_with(
        directory: &Path,
        port: Option<u16>,
        further: &[&str],
    ) -> Self {
        let address = Ipv4Addr::LOCALHOST.into();
        let port = port.unwrap_or_else(|| reserved_port(address));
        let file = directory.join("mesh.db");
        let database = ["--db-path", file.to_str().unwrap()];
        Self::start_with(address, port, database, directory, "1s", further)
    }

    /// In the network namespace of this thread.
    pub(crate) fn start_at(
        address: IpAddr,
        directory: &Path,
        port: Option<u16>,
        node_timeout: &str,
    ) -> Self {
        let port = port.unwrap_or_else(|| reserved_port(address));
        let file = directory.join("mesh.db");
        Self::start_on(
            address,
            port,
            ["--db-path", file.to_str().unwrap()],
            directory,
            node_timeout,
        )
    }

    /// One of several on a PostgreSQL database, on loopback.
    pub(crate) fn start_replica(database: &str, directory: &Path, node_timeout: &str) -> Self {
        let address = Ipv4Addr::LOCALHOST.into();
        let port = reserved_port(address);
        let database = ["--database-url", database];
        Self::start_on(address, port, database, directory, node_timeout)
    }

    fn start_on(
        address: IpAddr,
        port: u16,
        database: [&str; 2],
        directory: &Path,
        node_timeout: &str,
    ) -> Self {
        let open = ["--insecure"];
        Self::start_with(address, port, database, directory, node_timeout, &open)
    }

    fn start_with(
        address: IpAddr,
        port: u16,
        database: [&str; 2],
        directory: &Path,
        node_timeout: &str,
        further: &[&str],
    ) -> Self {
        let bind = format!("{address}:{port}");
        let mut line = vec!["quilt-mesh-control", "--bind", &bind];
        line.extend(database);
        line.extend(["--state-dir", directory.to_str().unwrap()]);
        line.extend(["--node-timeout", node_timeout]);
        line.extend(further);
        let options = mesh_control::options::Options::parse_from(line);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = server();
            runtime.block_on(async {
                tokio::select! {
                    ended = mesh_control::daemon::run(options) => panic!("it ended: {ended:?}"),
                    _ = stopped => {}
                }
            });
            // As abrupt as SIGKILL: nothing is said to anybody.
            runtime.shutdown_timeout(Duration::from_secs(5));
        });
        let control = Self {
            port,
            stop: Some(stop),
            thread: Some(thread),
        };
        let listens = || TcpStream::connect((address, port)).is_ok();
        assert!(holds(listens), "the control plane listens");
        control
    }

    /// As abrupt as SIGKILL would.
    pub(crate) fn kill(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Fails only if it ended by itself, which the join tells.
            let _ended = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A node: a runtime, and an agent beside it that nothing but news can make quick.
pub(crate) struct Node {
    pub(crate) runtime: FakeRuntime,
    state: TempDir,
    pub(crate) address: String,
}

impl Node {
    pub(crate) fn new(last: u8) -> Self {
        Self {
            runtime: FakeRuntime::start(),
            state: tempfile::tempdir().unwrap(),
            address: format!("192.0.2.{last}"),
        }
    }

    /// Has it elsewhere when its agent starts next.
    pub(crate) fn move_to(&mut self, last: u8) {
        self.address = format!("192.0.2.{last}");
    }

    /// Where its agent keeps what it is.
    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    pub(crate) fn agent(&self, control: &Control, arguments: &[&str]) -> Agent {
        let url = format!("http://127.0.0.1:{}", control.port);
        let command = std::process::Command::new(BINARY);
        let mut command = Agent::options_at(command, &url, &self.runtime, self.state.path());
        command
            .args(["--host-ip", &self.address, "--hostname", &self.address])
            .args(["--sync-interval", "50s"])
            .args(arguments);
        Agent::spawn(command)
    }
}
