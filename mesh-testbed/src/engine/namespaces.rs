//! Namespaces of an engine's own, so that it ends as one process does.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    child_process::{ChildProcess, children},
    deadline::Deadline,
    entrance::Entrance,
    error::Result,
    host::Host,
    process::{DaemonOptions, Launch, Privileges, Process},
    reaper::Registration,
};

/// Where the engine finds its directory: its `/run` hides the place where that really is.
pub(crate) const INSIDE: &str = "/mnt";

const READY: &str = "ready";

/// What engines, runc and plugins write goes to file systems that nobody else sees: state to
/// /run, images and addresses to /var/lib, locks to /dev/shm. The first process of a process
/// namespace takes all others with it when it is killed.
const SCRIPT: &str = r#"set -e
mount --bind "$1" /mnt
for dir in /run /var/lib /var/tmp /dev/shm; do
    [ -d "$dir" ] || continue
    mount -t tmpfs -o mode=755 quilt-mesh-testbed "$dir"
done
: >/mnt/ready
exec sleep infinity
"#;

/// A mount namespace and a process namespace on a host. Dropping it ends everything inside.
#[derive(Debug)]
pub(crate) struct Namespaces {
    host: Entrance,
    /// `unshare`, whose only child is the first process inside.
    outer: Option<Process>,
    init: ChildProcess,
    registration: Registration,
}

impl Namespaces {
    /// `dir` becomes [`INSIDE`].
    pub(crate) async fn create(host: &Host, dir: &Path, within: Duration) -> Result<Self> {
        // --kill-child: the first process inside dies with unshare.
        let options = ["--mount", "--pid", "--mount-proc", "--fork", "--kill-child"];
        let script = ["/bin/sh", "-c", SCRIPT, "quilt-mesh-testbed-engine"];
        let mut args: Vec<OsString> = options.into_iter().chain(script).map(Into::into).collect();
        args.push(dir.into());
        let mut outer = Process::start(Launch {
            name: "unshare",
            place: host.name(),
            namespace: host.netns(),
            args,
            log: dir.join("namespaces.log"),
            privileges: Privileges::Root,
            options: &DaemonOptions::new().binary("/usr/bin/unshare"),
        })?;
        let deadline = Deadline::after(within);
        while !dir.join(READY).exists() {
            if outer.exit_status()?.is_some() || deadline.pause().await.is_err() {
                return Err(deadline.missed("namespaces for an engine", outer.describe()));
            }
        }
        let Some(init) = children(outer.pid())?.pop() else {
            return Err(deadline.missed("namespaces for an engine", outer.describe()));
        };
        Ok(Self {
            host: host.netns().entrance(),
            outer: Some(outer),
            init,
            registration: host.netns().registration().clone(),
        })
    }

    /// A command that runs inside, and is killed when it has not ended in time.
    pub(crate) fn command(&self, program: &str, within: Duration) -> Command {
        let mut command = self.host.command("nsenter");
        command
            .arg(format!("--target={}", self.init.pid))
            .args(["--mount", "--pid", "--wd=/", "timeout", "--kill-after=5"])
            .args([&within.as_secs().to_string(), program]);
        command
    }

    /// A path inside, as it is seen from outside.
    pub(crate) fn seen_from_outside(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.init.pid);
        Path::new(&root).join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if self.registration.is_kept() {
            return;
        }
        drop(self.outer.take());
        // It is gone once all the others inside are (pid_namespaces(7)).
        let deadline = Deadline::after(Duration::from_secs(10));
        while self.init.is_there() && !deadline.remaining().is_zero() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
