//! Real processes on a host: started inside its namespace, logged to a file, and never left
//! behind.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};

use crate::{
    deadline::Deadline,
    doors::{Doors, enter_mounts},
    error::{Error, Result},
    netns::NetNs,
};

/// How a daemon is started beyond what the testbed passes by itself.
#[derive(Debug, Clone, Default)]
pub struct DaemonOptions {
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    binary: Option<PathBuf>,
    privileges: Option<Privileges>,
    plain: bool,
}

/// What a daemon may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// All of root's capabilities.
    Root,
    /// User 0 without a single capability, and no way to get one.
    None,
}

impl DaemonOptions {
    /// Nothing but what the testbed passes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a command line argument. An option given here after the testbed's own one
    /// wins if the daemon lets options override each other.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Appends command line arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// As before there were credentials: an agent calls the control plane over plain HTTP and does not join, and a
    /// control plane lets in whoever comes so (`--insecure`). Otherwise agents join by a token that the testbed has made
    /// for them, and all of it is over TLS.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    /// What an environment variable was set to last.
    pub(crate) fn variable(&self, variable: &str) -> Option<&OsStr> {
        let mut set = self.environment.iter().rev();
        let found = set.find(|(name, _)| name == variable);
        found.map(|(_, value)| value.as_os_str())
    }

    /// What was given last for an option of the command line.
    pub(crate) fn value_of(&self, option: &str) -> Option<&OsStr> {
        let values = self.args.iter().zip(self.args.iter().skip(1));
        let mut values = values.filter(|(name, _)| *name == option);
        values.next_back().map(|(_, value)| value.as_os_str())
    }

    /// Starts this file instead of the daemon's binary, e.g. one of another release.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Overrides what the daemon may do: root for the runtime, nothing for the others.
    #[must_use]
    pub fn privileges(mut self, privileges: Privileges) -> Self {
        self.privileges = Some(privileges);
        self
    }
}

/// What the testbed knows about a daemon before it is started.
pub(crate) struct Launch<'a> {
    pub(crate) name: &'static str,
    pub(crate) place: &'a str,
    pub(crate) namespace: &'a NetNs,
    /// The mount namespace that it begins in; `None`: ours.
    pub(crate) mounts: Option<&'a Arc<fs::File>>,
    /// The mount and process namespaces that it is in; `None`: ours.
    pub(crate) inside: Option<&'a Doors>,
    pub(crate) args: Vec<OsString>,
    pub(crate) log: PathBuf,
    pub(crate) privileges: Privileges,
    pub(crate) options: &'a DaemonOptions,
}

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    place: String,
    enter: String,
    log: PathBuf,
    child: Child,
    kept: crate::reaper::Registration,
}

impl Process {
    pub(crate) fn start(launch: Launch<'_>) -> Result<Self> {
        let binary = match &launch.options.binary {
            Some(path) => path.clone(),
            None => crate::binaries::find(launch.name)?,
        };
        let failed = |error| {
            Error::system(
                "start",
                format!("{} on {}", binary.display(), launch.place),
                error,
            )
        };
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&launch.log)
            .map_err(failed)?;
        let mut command = launch.namespace.command(&binary);
        // The caller's settings are not meant for the daemons under test.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"QUILT_MESH_") {
                command.env_remove(name);
            }
        }
        command
            .args(&launch.args)
            .args(&launch.options.args)
            .envs(
                launch
                    .options
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            // Escape codes in a file help nobody.
            .env("NO_COLOR", "1")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        let privileges = launch.options.privileges.unwrap_or(launch.privileges);
        // SAFETY: setsid and prctl are async-signal-safe and touch no memory of the parent.
        unsafe {
            command.pre_exec(move || {
                // Ctrl-C in the terminal is for us; we stop the daemons in order.
                nix::unistd::setsid()?;
                match privileges {
                    Privileges::Root => Ok(()),
                    Privileges::None => drop_capabilities_at_exec(),
                }
            });
        }
        if let Some(mounts) = launch.mounts {
            enter_mounts(&mut command, mounts);
        }
        let child = match launch.inside {
            Some(doors) => doors.spawn(&mut command),
            None => command.spawn(),
        };
        let child = child.map_err(failed)?;
        let mut process = Self {
            name: launch.name,
            place: launch.place.into(),
            enter: launch.namespace.enter_command(),
            log: launch.log,
            child,
            kept: launch.namespace.registration().clone(),
        };
        match process.kept.process(process.pid()) {
            // It may have ended already, which is for whoever waits for it to report.
            Err(_) if process.exit_status()?.is_some() => Ok(process),
            Err(error) => Err(error),
            Ok(()) => Ok(process),
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with everything it printed, over all its starts.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal; one that has ended already is left alone.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        // Not yet waited for, so the process id is still this child's.
        nix::sys::signal::kill(Pid::from_raw(self.pid().cast_signed()), signal).map_err(|error| {
            Error::system("signal", format!("{} on {}", self.name, self.place), error)
        })
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(|error| {
            Error::system(
                "wait for",
                format!("{} on {}", self.name, self.place),
                error,
            )
        })
    }

    /// Waits for it to end.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with its last log lines when it does not.
    pub async fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Deadline::after(within);
        loop {
            if let Some(status) = self.exit_status()? {
                return Ok(status);
            }
            if deadline.pause().await.is_err() {
                let what = format!("the end of {} on {}", self.name, self.place);
                return Err(deadline.missed(what, self.describe()));
            }
        }
    }

    /// Resident memory in bytes (VmRSS of proc_pid_status(5)).
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let subject = || format!("memory of {} on {}", self.name, self.place);
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .map_err(|error| Error::system("read", subject(), error))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .ok_or_else(|| Error::system("read", subject(), io::ErrorKind::InvalidData))
    }

    /// State, last log lines and how to enter its namespace: for error messages.
    pub(crate) fn describe(&mut self) -> String {
        let state = match self.exit_status() {
            Ok(None) => format!("runs as process {}", self.pid()),
            Ok(Some(status)) => match status.signal() {
                Some(signal) => format!("was killed by signal {signal}"),
                None => format!("ended with {status}"),
            },
            Err(error) => error.to_string(),
        };
        format!(
            "{} on {} {state}\n  look inside: {}\n  log {}:\n{}",
            self.name,
            self.place,
            self.enter,
            self.log.display(),
            last_lines(&self.log, 15)
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.kept.is_kept() {
            return;
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last `count` lines of a log, indented.
pub(crate) fn last_lines(log: &Path, count: usize) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(count);
    lines[start..]
        .iter()
        .map(|line| format!("    {line}\n"))
        .collect()
}

/// Empties the bounding set: a process of user 0 then has no capability after exec
/// (capabilities(7), "Capabilities and execution of programs by root").
fn drop_capabilities_at_exec() -> io::Result<()> {
    for capability in 0..=libc::c_ulong::from(u8::MAX) {
        // SAFETY: PR_CAPBSET_DROP takes one number and no pointer.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // The first number past the kernel's last capability.
            return match error.raw_os_error() {
                Some(libc::EINVAL) => Ok(()),
                _ => Err(error),
            };
        }
    }
    Ok(())
}

/// Runs a program to its end and returns its standard output.
pub(crate) fn output(mut command: std::process::Command) -> Result<String> {
    let line = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::system("run", format!("`{line}`"), error))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error::Command {
            command: line,
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}
