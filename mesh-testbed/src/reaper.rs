//! Cleaning up after a process that cannot do it itself any more.
//!
//! `Drop` removes what a testbed made, also on panic. For SIGKILL, Ctrl-C and abort there
//! is one `sh` per process, in its own session, that knows of everything made and waits
//! for the pipe from us to close. What it is told outlives us in [`keep`](Registration::keep)
//! as a file in the same format, so that removing a kept cluster is the same script.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::error::{Error, Result};

/// Where testbeds keep their directories, one per testbed.
pub const ROOT: &str = "/run/quilt-mesh-testbed";

const SCRIPT: &str = include_str!("reaper.sh");
const RECORD: &str = "kept";

/// Where the objects of one testbed are registered for certain removal.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    testbed: String,
    kept: Arc<AtomicBool>,
}

struct Reaper {
    pipe: ChildStdin,
    /// What was registered, by testbed: the record of a kept cluster.
    lines: BTreeMap<String, Vec<String>>,
}

fn reaper() -> Result<&'static Mutex<Reaper>> {
    static REAPER: OnceLock<Mutex<Reaper>> = OnceLock::new();
    static START: Mutex<()> = Mutex::new(());
    let _one_start = START.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reaper) = REAPER.get() {
        return Ok(reaper);
    }
    let mut child = spawn(Stdio::piped())?;
    let pipe = child
        .stdin
        .take()
        .ok_or_else(|| Error::system("open", "the reaper's pipe", io::ErrorKind::BrokenPipe))?;
    Ok(REAPER.get_or_init(|| {
        Mutex::new(Reaper {
            pipe,
            lines: BTreeMap::new(),
        })
    }))
}

fn spawn(stdin: Stdio) -> Result<std::process::Child> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SCRIPT, "quilt-mesh-testbed-reaper"])
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(stdin)
        // Whoever captures our output must not wait for the reaper.
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
    }
    command
        .spawn()
        .map_err(|error| Error::system("start", "the reaper (/bin/sh)", error))
}

impl Registration {
    /// A registration under the testbed's name, which is unique on this machine.
    pub(crate) fn new(testbed: impl Into<String>) -> Self {
        Self {
            testbed: testbed.into(),
            kept: Arc::default(),
        }
    }

    /// Whether [`keep`](Self::keep) was called: then nothing may be removed.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Registers a namespace under /run/netns. Call before making it.
    pub(crate) fn netns(&self, name: &str) -> Result<()> {
        self.add(&format!("netns {name}"))
    }

    /// Registers a mount point. Call before mounting.
    pub(crate) fn mount(&self, path: &Path) -> Result<()> {
        self.add(&format!("mount {}", path.display()))
    }

    /// Registers a directory below [`ROOT`]. Call before making it.
    pub(crate) fn dir(&self, path: &Path) -> Result<()> {
        self.add(&format!("dir {}", path.display()))
    }

    /// Registers a control group, in every hierarchy: its name is that of a namespace. Call
    /// before putting a process there.
    pub(crate) fn control_group(&self, name: &str) -> Result<()> {
        self.add(&format!("cgroup {name}"))
    }

    /// The name under which it was made.
    pub(crate) fn name(&self) -> &str {
        &self.testbed
    }

    /// Registers the directory of a PostgreSQL server, whose name ends in `-postgres`. Call
    /// before making it.
    pub(crate) fn postgres_dir(&self, path: &Path) -> Result<()> {
        // Lines are split at white space.
        if path
            .to_str()
            .is_none_or(|it| it.contains(char::is_whitespace))
        {
            return Err(Error::Invalid {
                value: path.display().to_string(),
                rule: "TMPDIR must be a path without white space".into(),
            });
        }
        self.add(&format!("postgres-dir {}", path.display()))
    }

    /// Registers a PostgreSQL server: it is to be stopped rather than killed, so that it ends its
    /// children and removes its shared memory.
    pub(crate) fn postgres(&self, pid: u32) -> Result<()> {
        let started = start_time(pid).map_err(|error| {
            Error::system("read the start time of", format!("process {pid}"), error)
        })?;
        self.add(&format!("postgres {pid} {started}"))
    }

    /// Registers a child process.
    pub(crate) fn process(&self, pid: u32) -> Result<()> {
        let started = start_time(pid).map_err(|error| {
            Error::system("read the start time of", format!("process {pid}"), error)
        })?;
        self.add(&format!("pid {pid} {started}"))
    }

    fn add(&self, entry: &str) -> Result<()> {
        let mut reaper = reaper()?.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{} {entry}\n", self.testbed);
        reaper
            .pipe
            .write_all(line.as_bytes())
            .map_err(|error| Error::system("tell", format!("the reaper of {entry}"), error))?;
        reaper
            .lines
            .entry(self.testbed.clone())
            .or_default()
            .push(line);
        Ok(())
    }

    /// Leaves everything in place and writes down what there is to remove later.
    pub(crate) fn keep(&self, dir: &Path) -> Result<PathBuf> {
        let mut reaper = reaper()?.lock().unwrap_or_else(PoisonError::into_inner);
        let record = dir.join(RECORD);
        let lines = reaper.lines.get(&self.testbed).map(|lines| lines.concat());
        fs::write(&record, lines.unwrap_or_default())
            .map_err(|error| Error::system("write", record.display().to_string(), error))?;
        let line = format!("keep {}\n", self.testbed);
        reaper
            .pipe
            .write_all(line.as_bytes())
            .map_err(|error| Error::system("tell", "the reaper what to keep", error))?;
        self.kept.store(true, Ordering::Relaxed);
        Ok(record)
    }
}

/// The names of the testbeds that were kept with [`Testbed::keep`](crate::Testbed::keep).
pub fn kept_testbeds() -> Vec<String> {
    let Ok(entries) = fs::read_dir(ROOT) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join(RECORD).is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Removes a kept testbed: its processes, namespaces, mounts and directories.
///
/// # Errors
///
/// When the testbed has no record, the record names something outside the testbed, or the
/// script that removes things cannot be run.
pub fn remove_kept_testbed(name: &str) -> Result<()> {
    let path = Path::new(ROOT).join(name).join(RECORD);
    let kept = |reason: String| Error::Kept {
        path: path.clone(),
        reason,
    };
    let record = fs::read_to_string(&path).map_err(|error| kept(error.to_string()))?;
    if let Some(line) = record.lines().find(|line| !belongs_to(name, line)) {
        return Err(kept(format!(
            "line {line:?} names something of another owner"
        )));
    }
    let file = fs::File::open(&path).map_err(|error| kept(error.to_string()))?;
    let status = spawn(Stdio::from(file))?
        .wait()
        .map_err(|error| Error::system("wait for", "the reaper", error))?;
    match status.success() && !path.exists() {
        true => Ok(()),
        false => Err(kept(format!("the reaper left something behind ({status})"))),
    }
}

/// Whether a line of a record is one that the testbed of this name can have written.
fn belongs_to(testbed: &str, line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let dir = format!("{ROOT}/{testbed}");
    let inside =
        |path: &str| (path == dir || path.starts_with(&format!("{dir}/"))) && !path.contains("/..");
    match words[..] {
        [owner, "netns" | "cgroup", name] => {
            owner == testbed && name.starts_with(&format!("{testbed}-")) && !name.contains('/')
        }
        [owner, "mount" | "dir", path] => owner == testbed && inside(path),
        [owner, "pid", pid, started] => {
            owner == testbed && pid.parse::<u32>().is_ok() && started.parse::<u64>().is_ok()
        }
        _ => false,
    }
}

/// When a process was started, in clock ticks since boot: with the process id it names one
/// process for good. Field 22 of proc_pid_stat(5).
pub(crate) fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name in field 2 may hold spaces and parentheses.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/PID/stat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_may_only_name_what_its_testbed_owns() {
        for line in [
            "qm-1-0 netns qm-1-0-host1",
            "qm-1-0 mount /run/quilt-mesh-testbed/qm-1-0/host1/bpf",
            "qm-1-0 dir /run/quilt-mesh-testbed/qm-1-0",
            "qm-1-0 pid 17 2333",
            "qm-1-0 cgroup qm-1-0-host1",
        ] {
            assert!(belongs_to("qm-1-0", line), "{line}");
        }
        for line in [
            "qm-1-0 netns other",
            "qm-1-0 netns qm-1-0-/../x",
            "qm-1-0 dir /run/quilt-mesh-testbed/qm-1-00",
            "qm-1-0 dir /run/quilt-mesh-testbed/qm-1-0/../../../etc",
            "qm-1-0 mount /",
            "qm-1-0 pid 1",
            "qm-1-0 cgroup system.slice",
            "qm-1-0 cgroup qm-1-0-/../system.slice",
            "qm-2-0 dir /run/quilt-mesh-testbed/qm-1-0",
            "",
        ] {
            assert!(!belongs_to("qm-1-0", line), "{line}");
        }
    }

    #[test]
    fn the_start_time_of_a_process_does_not_change() {
        let pid = std::process::id();
        assert_eq!(start_time(pid).unwrap(), start_time(pid).unwrap());
    }
}
