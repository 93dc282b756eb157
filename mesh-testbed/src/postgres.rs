//! A PostgreSQL server of a test's own: made in an empty directory, gone with the value.

use std::{
    fs,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr},
    os::unix::{
        fs::{DirBuilderExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::Signal,
    unistd::{Pid, User},
};

use crate::{
    child_process::children,
    deadline::{Deadline, wait_until},
    error::{Error, Result},
    process::{last_lines, output},
    reaper::Registration,
};

mod installation;
mod remains;

#[cfg(test)]
mod tests;

use installation::Installation;

/// The superuser that the server is made with, and whom [`Postgres::url`] names.
const SUPERUSER: &str = "quilt";

/// Where ports begin. Below the range from which the kernel takes the ports of clients: one of
/// those could otherwise have ours while the server is down.
const FIRST_PORT: u16 = 15432;

/// Making a cluster, starting, recovering from a crash and stopping are each far quicker than
/// this on any machine that is not out of order.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a server is made.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    durable: bool,
    connections: u16,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            durable: false,
            connections: 100,
        }
    }
}

impl PostgresOptions {
    /// 100 connections, and no fsync: what was committed survives [`Postgres::kill`], because the
    /// kernel has it, but would not survive a power cut.
    pub fn new() -> Self {
        Self::default()
    }

    /// Commits wait for the disk, as in production: for benchmarks.
    #[must_use]
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// How many connections the server takes (`max_connections`).
    #[must_use]
    pub fn connections(mut self, connections: u16) -> Self {
        self.connections = connections;
        self
    }

    fn settings(&self, address: SocketAddr) -> Vec<String> {
        let durable = if self.durable { "on" } else { "off" };
        vec![
            format!("listen_addresses={}", address.ip()),
            format!("port={}", address.port()),
            format!("max_connections={}", self.connections),
            format!("fsync={durable}"),
            format!("full_page_writes={durable}"),
            "unix_socket_directories=".into(),
            // In the data directory instead of /dev/shm, where a killed server would leave it.
            "dynamic_shared_memory_type=mmap".into(),
            "shared_buffers=16MB".into(),
        ]
    }
}

/// A running PostgreSQL server, of Debian's package or whichever is installed, on loopback.
///
/// It runs as the user `postgres` or `nobody` where the test runs as root, because PostgreSQL
/// refuses root; else as the test's user. Every server has an address of its own in 127.0.0.0/8
/// and a random password. Dropping it stops it and removes its files, and so does the end of the
/// test's process, whatever ends it.
#[derive(Debug)]
pub struct Postgres {
    installation: Installation,
    options: PostgresOptions,
    dir: PathBuf,
    address: SocketAddr,
    password: String,
    user: Option<User>,
    server: Mutex<Option<Child>>,
    databases: AtomicU32,
    registration: Registration,
}

impl Postgres {
    /// Makes a server and waits until it serves.
    ///
    /// # Errors
    ///
    /// [`Error::PostgresMissing`], which says what to install; what initdb or the server said.
    pub async fn new(options: &PostgresOptions) -> Result<Self> {
        let installation = Installation::find()?;
        let registration = Registration::new(crate::testbed::unique_name());
        let dir = std::env::temp_dir().join(format!("{}-postgres", registration.name()));
        registration.postgres_dir(&dir)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|error| Error::system("create", dir.display().to_string(), error))?;
        let postgres = Self {
            installation,
            options: options.clone(),
            address: own_address(),
            password: random_password()?,
            user: unprivileged_user()?,
            dir,
            server: Mutex::default(),
            databases: AtomicU32::default(),
            registration,
        };
        postgres.initialise()?;
        postgres.start().await?;
        Ok(postgres)
    }

    /// The URL of the database `postgres`, for a client: `postgres://user:password@address:port/postgres`.
    pub fn url(&self) -> String {
        self.database_url("postgres")
    }

    /// Makes an empty database and returns its URL.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub fn create_database(&self) -> Result<String> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        self.execute(&self.url(), &format!("CREATE DATABASE {name}"))?;
        Ok(self.database_url(&name))
    }

    /// Runs SQL with psql in the database of this URL, and returns the rows: a line each, values
    /// separated by `|`.
    ///
    /// # Errors
    ///
    /// What psql said.
    pub fn execute(&self, url: &str, sql: &str) -> Result<String> {
        let mut command = Command::new(self.installation.program("psql"));
        command
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
            .args(["--set", "ON_ERROR_STOP=1", "--command", sql, url])
            .env("PGCONNECT_TIMEOUT", "10");
        output(command)
    }

    /// What the database of this URL holds by now, as SQL (pg_dump).
    ///
    /// # Errors
    ///
    /// What pg_dump said.
    pub fn dump(&self, url: &str) -> Result<String> {
        let mut command = Command::new(self.installation.program("pg_dump"));
        command.arg(url).env("PGCONNECT_TIMEOUT", "10");
        output(command)
    }

    /// Puts another database in the place of the one of this URL, in one moment: an empty one, or what
    /// [`dump`](Self::dump) returned. Its clients are cut off, and find the other one when they come back.
    ///
    /// # Errors
    ///
    /// What psql said.
    pub fn replace_database(&self, url: &str, dump: Option<&str>) -> Result<()> {
        let name = url.rsplit('/').next().unwrap_or(url);
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let (other, before) = (format!("other_{number}"), format!("before_{number}"));
        self.execute(&self.url(), &format!("CREATE DATABASE {other}"))?;
        if let Some(dump) = dump {
            let file = self.dir.join(format!("{other}.sql"));
            fs::write(&file, dump)
                .map_err(|error| Error::system("write", file.display().to_string(), error))?;
            let mut command = Command::new(self.installation.program("psql"));
            command
                .args(["--no-psqlrc", "--quiet", "--single-transaction"])
                .args(["--set", "ON_ERROR_STOP=1", "--file"])
                .arg(&file)
                .arg(self.database_url(&other))
                .env("PGCONNECT_TIMEOUT", "10");
            output(command)?;
        }
        let closed = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
        self.execute(&self.url(), &closed)?;
        // One transaction, as psql runs what one --command holds.
        let replaced = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'; \
             ALTER DATABASE {name} RENAME TO {before}; ALTER DATABASE {other} RENAME TO {name}"
        );
        self.execute(&self.url(), &replaced).map(drop)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id of the server, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server().as_ref().map(Child::id)
    }

    /// Its log, over all its starts.
    pub fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    /// Starts the server on its data and waits until it serves; after [`kill`](Self::kill) it
    /// first recovers.
    ///
    /// # Errors
    ///
    /// A server that runs already, or does not come up, with its last log lines.
    pub async fn start(&self) -> Result<()> {
        let pid = self.spawn()?;
        let deadline = Deadline::after(PATIENCE);
        loop {
            if is_ready(&self.data(), pid) {
                return Ok(());
            }
            if let Some(status) = self.exit_status()? {
                return Err(self.failed("start", &format!("ended with {status}")));
            }
            if deadline.pause().await.is_err() {
                return Err(deadline.missed("the start of PostgreSQL", self.last_words()));
            }
        }
    }

    /// Stops the server as an operator does: clients are cut off, what they committed is written,
    /// the port is closed when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] when it does not stop.
    pub async fn stop(&self) -> Result<()> {
        // "Fast shutdown" (PostgreSQL's documentation, "Shutting Down the Server").
        self.signal(Signal::SIGINT)?;
        self.wait_exit().await
    }

    /// [`stop`](Self::stop) and [`start`](Self::start), at the same address.
    ///
    /// # Errors
    ///
    /// As those two.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// SIGKILL for the server and every process of it, in the middle of whatever they do.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] when one of them does not go.
    pub async fn kill(&self) -> Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        // Stopped first, so that it cannot fork while its children are looked up.
        self.signal(Signal::SIGSTOP)?;
        let children = children(pid)?;
        self.signal(Signal::SIGKILL)?;
        for child in &children {
            child.kill();
        }
        self.wait_exit().await?;
        wait_until(
            "the end of PostgreSQL's processes",
            PATIENCE,
            async || match children.iter().find(|child| child.is_there()) {
                None => Ok(()),
                Some(child) => Err(format!("process {} is still there", child.pid)),
            },
        )
        .await?;
        remains::remove_shared_memory(&self.data())
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn database_url(&self, name: &str) -> String {
        let (password, address) = (&self.password, self.address);
        format!("postgres://{SUPERUSER}:{password}@{address}/{name}")
    }

    /// Has it speak TLS with whoever asks for that, with this certificate and its private key, both in PEM.
    ///
    /// # Errors
    ///
    /// What psql said, or the kernel.
    pub fn speak_tls(&self, certificate: &str, key: &str) -> Result<()> {
        let failed = |error| Error::system("prepare", self.dir.display().to_string(), error);
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            fs::write(&path, text).map_err(failed)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
            if let Some(user) = &self.user {
                chown(&path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(failed)?;
            }
        }
        self.execute(&self.url(), "ALTER SYSTEM SET ssl = on")?;
        self.execute(&self.url(), "SELECT pg_reload_conf()")
            .map(drop)
    }

    fn initialise(&self) -> Result<()> {
        let failed = |error| Error::system("prepare", self.dir.display().to_string(), error);
        let password = self.dir.join("password");
        fs::write(&password, &self.password).map_err(failed)?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        if let Some(user) = &self.user {
            for path in [&self.dir, &password] {
                chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(failed)?;
            }
        }
        let mut command = self.command("initdb");
        command
            .args(["--auth", "scram-sha-256", "--username", SUPERUSER])
            .args(["--encoding", "UTF8", "--locale", "C", "--no-sync"])
            .arg("--pwfile")
            .arg(password)
            .arg("--pgdata")
            .arg(self.data());
        output(command).map(drop)
    }

    fn spawn(&self) -> Result<u32> {
        let mut server = self.server();
        if let Some(child) = server.as_mut()
            && matches!(child.try_wait(), Ok(None))
        {
            return Err(self.failed("start", "runs already"));
        }
        let failed = |error| Error::system("start", "PostgreSQL", error);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(failed)?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        for setting in self.options.settings(self.address) {
            command.args(["-c".into(), setting]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // Ctrl-C in the terminal is for the test, which then ends us.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pid = child.id();
        *server = Some(child);
        self.registration.postgres(pid)?;
        Ok(pid)
    }

    /// A program of the installation, as the user that the server runs as.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.installation.program(program));
        command.current_dir(&self.dir).env("LC_ALL", "C");
        // The caller's PGDATA, PGPORT and so on are not meant for this server.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        let Some(pid) = self.pid() else { return Ok(()) };
        // Not waited for yet, so the process id is still this child's.
        nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), signal)
            .map_err(|error| Error::system("signal", "PostgreSQL", error))
    }

    fn exit_status(&self) -> Result<Option<ExitStatus>> {
        match self.server().as_mut().map(Child::try_wait).transpose() {
            Ok(status) => Ok(status.flatten()),
            Err(error) => Err(Error::system("wait for", "PostgreSQL", error)),
        }
    }

    async fn wait_exit(&self) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        while self.pid().is_some() && self.exit_status()?.is_none() {
            if deadline.pause().await.is_err() {
                return Err(deadline.missed("the end of PostgreSQL", self.last_words()));
            }
        }
        *self.server() = None;
        Ok(())
    }

    fn failed(&self, action: &'static str, what: &str) -> Error {
        let problem = io::Error::other(format!("it {what}\n{}", self.last_words()));
        Error::system(action, format!("PostgreSQL at {}", self.address), problem)
    }

    fn last_words(&self) -> String {
        format!("its log:\n{}", last_lines(&self.log(), 15))
    }

    fn server(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // "Immediate shutdown": it ends its children and gives its shared memory back.
        let _ = self.signal(Signal::SIGQUIT);
        if let Some(child) = self.server().as_mut() {
            let deadline = Deadline::after(Duration::from_secs(10));
            while matches!(child.try_wait(), Ok(None)) {
                if deadline.remaining().is_zero() {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = remains::remove_shared_memory(&self.data());
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether the server with this process id takes connections: it says so in the eighth line of
/// its lock file, which is where pg_ctl looks as well (src/include/utils/pidfile.h).
fn is_ready(data: &Path, pid: u32) -> bool {
    let lock = fs::read_to_string(data.join(remains::LOCK_FILE)).unwrap_or_default();
    let mut lines = lock.lines();
    lines.next().is_some_and(|first| first == pid.to_string())
        && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}

/// An address in 127.0.0.0/8 and a port that no other server on this machine has: the address
/// is this process, the port counts its servers.
fn own_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 1000;
    // Process ids have 22 bits (PID_MAX_LIMIT); the highest bit keeps clear of 127.0.0.1.
    let host = 0x7f80_0000 | (std::process::id() & 0x003f_ffff);
    SocketAddr::from((Ipv4Addr::from_bits(host), FIRST_PORT + number))
}

/// The user to run as where the caller is root; `None` where the caller is somebody else.
fn unprivileged_user() -> Result<Option<User>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        let user = User::from_name(name)
            .map_err(|error| Error::system("look up", format!("user {name}"), error))?;
        if user.is_some() {
            return Ok(user);
        }
    }
    Err(Error::Invalid {
        value: "user root".into(),
        rule: "PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody"
            .into(),
    })
}

/// 128 random bits as hexadecimal digits, which need no escaping in a URL.
fn random_password() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|error| Error::system("read", "/dev/urandom", error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
