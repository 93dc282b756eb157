//! A real PgBouncer between the control plane and PostgreSQL.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mesh_testbed::Postgres;
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use tempfile::TempDir;

/// Above the ports of the servers of this process, each of which may have one.
const ABOVE: u16 = 2000;

/// One that never outlives its test.
pub(crate) struct Pooler {
    running: Child,
    address: SocketAddr,
    server: SocketAddr,
    _folder: TempDir,
}

impl Pooler {
    /// Starts one for all databases of a server, in a mode of PgBouncer's (`pool_mode`), and waits until it serves.
    pub(crate) async fn start(postgres: &Postgres, mode: &str) -> Self {
        let server = postgres.address();
        let address = SocketAddr::new(server.ip(), server.port() + ABOVE);
        let url = postgres.url();
        let login = url.strip_prefix("postgres://").unwrap();
        let (user, rest) = login.split_once(':').unwrap();
        let (password, _) = rest.split_once('@').unwrap();
        let folder = TempDir::new().unwrap();
        // It does not run as root, and reads its settings as who it runs as.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let settings = folder.path().join("pgbouncer.ini");
        // sqlx says extra_float_digits when it connects.
        let text = format!(
            "[databases]\n* = host={} port={} user={user} password={password}\n\
             [pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\nignore_startup_parameters = extra_float_digits\n",
            server.ip(),
            server.port(),
            address.ip(),
            address.port(),
        );
        std::fs::write(&settings, text).unwrap();
        let mut command = Command::new(program());
        command.arg(&settings).stdin(Stdio::null());
        if geteuid().is_root() {
            let user = User::from_name("nobody").unwrap().unwrap();
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        // SAFETY: prctl is async-signal-safe, and the closure does nothing else: no allocation, no lock.
        unsafe {
            command
                .pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
        }
        let mut running = command.spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert!(
                running.try_wait().unwrap().is_none() && Instant::now() < until,
                "PgBouncer does not serve"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self {
            running,
            address,
            server,
            _folder: folder,
        }
    }

    /// The URL by which a database of the server is reached through it.
    pub(crate) fn url(&self, url: &str) -> String {
        url.replace(&self.server.to_string(), &self.address.to_string())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // Both fail only for a child that has already been waited for.
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}

/// Debian installs it where a user's `PATH` does not lead.
fn program() -> &'static str {
    let found = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
        .into_iter()
        .find(|path| std::fs::exists(path).unwrap());
    found.expect("PgBouncer is missing; `cargo xtask setup` installs it (package pgbouncer)")
}
