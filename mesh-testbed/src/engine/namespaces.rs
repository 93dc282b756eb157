//! Namespaces of an engine's own, so that it ends as one process does.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use crate::{
    binaries,
    child_process::{ChildProcess, children},
    deadline::Deadline,
    doors::Doors,
    entrance::Entrance,
    error::{Error, Result},
    host::Host,
    process::{DaemonOptions, Launch, Privileges, Process},
    reaper::Registration,
};

/// Where the engine finds its directory: its `/run` hides the place where that really is.
pub(crate) const INSIDE: &str = "/mnt";

const READY: &str = "ready";

/// With a root file system of another distribution it is everybody's inside, together with this machine's binaries of ours.
/// What is written to it goes to memory.
///
/// What engines, runc and plugins write goes to file systems that nobody else sees: state to
/// /run, images and addresses to /var/lib, locks to /dev/shm. The host's directory stays where it is, so that a
/// runtime finds its own in here too, and is what a runtime has in /run/quilt-mesh otherwise. The first process of a
/// process namespace takes all others with it when it is killed.
const SCRIPT: &str = r#"set -e
engine=$1 host=$2 root=$3 binaries=$4
shift 4
if [ -n "$root" ]; then
    mount -t tmpfs -o mode=755 quilt-mesh-testbed /mnt
    mkdir /mnt/root /mnt/written /mnt/work
    layers="lowerdir=$root,upperdir=/mnt/written,workdir=/mnt/work"
    mount -t overlay -o "$layers" quilt-mesh-testbed /mnt/root
    cd /mnt/root
    mount -t proc proc proc
    for dir in /dev /sys "$host" "$binaries"; do
        mkdir -p ".$dir"
        mount --rbind "$dir" ".$dir"
    done
    pivot_root . mnt
    cd /
    umount -l /mnt
fi
mount --rbind "$host" /mnt
# What was there before keeps containers' namespaces.
if [ "$(readlink /run/quilt-mesh)" = "$host" ]; then
    umount -l /run
fi
for dir; do
    [ -d "$dir" ] || continue
    mount -t tmpfs -o mode=755 quilt-mesh-testbed "$dir"
done
mkdir -p "$host"
mount --rbind /mnt "$host"
mount --bind "$engine" /mnt
ln -s "$host" /run/quilt-mesh
if [ -d /mnt/plugins ]; then
    mkdir -p /opt/cni
    ln -sfn /mnt/plugins /opt/cni/bin
    mount --bind /mnt/networks /etc/cni/net.d
fi
if [ -f /mnt/boot_id ]; then
    mount --bind /mnt/boot_id /proc/sys/kernel/random/boot_id
fi
: >/mnt/ready
exec sleep infinity
"#;

/// What a host loses when it starts anew.
const LOST: [&str; 3] = ["/run", "/var/tmp", "/dev/shm"];

/// What it keeps, which no other host shall see.
const KEPT: [&str; 2] = ["/var/lib", "/opt"];

/// Has namespaces that begin from now on be those of another boot (random(4)).
pub(crate) fn choose_boot_id(dir: &Path) -> io::Result<()> {
    fs::write(
        dir.join("boot_id"),
        fs::read("/proc/sys/kernel/random/uuid")?,
    )
}

/// What namespaces begin with.
enum Beginning<'a> {
    /// This root file system, or the machine's own.
    New(Option<&'a Path>),
    /// What these have on their disks.
    After(&'a Doors),
}

/// A mount namespace and a process namespace on a host. Dropping it ends everything inside.
#[derive(Debug)]
pub(crate) struct Namespaces {
    host: Entrance,
    dir: PathBuf,
    /// `unshare`, whose only child is the first process inside.
    outer: Option<Process>,
    init: ChildProcess,
    doors: Arc<Doors>,
    registration: Registration,
}

impl Namespaces {
    /// `dir`, which is below the host's, becomes [`INSIDE`]. Another root file system than this machine's may be given.
    pub(crate) async fn create(
        host: &Host,
        dir: &Path,
        root: Option<&Path>,
        within: Duration,
    ) -> Result<Self> {
        Self::begin(host, dir, Beginning::New(root), within).await
    }

    /// Ends everything inside, as the end of the host does, and makes namespaces in their place that have what a host
    /// keeps on its disks.
    pub(crate) async fn begin_anew(&mut self, host: &Host, within: Duration) -> Result<()> {
        self.end();
        let ready = self.dir.join(READY);
        fs::remove_file(&ready)
            .map_err(|error| Error::system("remove", ready.display().to_string(), error))?;
        let doors = Arc::clone(&self.doors);
        *self = Self::begin(host, &self.dir.clone(), Beginning::After(&doors), within).await?;
        Ok(())
    }

    async fn begin(
        host: &Host,
        dir: &Path,
        beginning: Beginning<'_>,
        within: Duration,
    ) -> Result<Self> {
        let (earlier, root) = match beginning {
            Beginning::New(root) => (None, root),
            // It has its root already.
            Beginning::After(earlier) => (Some(earlier), None),
        };
        // --kill-child: the first process inside dies with unshare.
        let options = ["--mount", "--pid", "--mount-proc", "--fork", "--kill-child"];
        let script = ["/bin/sh", "-c", SCRIPT, "quilt-mesh-testbed-engine"];
        let mut args: Vec<OsString> = options.into_iter().chain(script).map(Into::into).collect();
        args.extend([dir.into(), host.dir().into()]);
        let binaries = root.map(|_| binaries::find("quilt-runtime")).transpose()?;
        let binaries = binaries.as_deref().and_then(Path::parent);
        args.extend([root, binaries].map(|path| path.map(OsString::from).unwrap_or_default()));
        args.extend(LOST.map(OsString::from));
        if earlier.is_none() {
            args.extend(KEPT.map(OsString::from));
        }
        let mut outer = Process::start(Launch {
            name: "unshare",
            place: host.name(),
            namespace: host.netns(),
            mounts: earlier.map(Doors::mounts),
            inside: None,
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
        let doors = Doors::of(init.pid).map_err(|error| {
            Error::system("open", format!("namespaces of process {}", init.pid), error)
        })?;
        Ok(Self {
            host: host.netns().entrance(),
            dir: dir.into(),
            outer: Some(outer),
            init,
            doors: Arc::new(doors),
            registration: host.netns().registration().clone(),
        })
    }

    /// The way in for a process of the host's.
    pub(crate) fn doors(&self) -> &Arc<Doors> {
        &self.doors
    }

    /// A command that runs inside, and is killed when it has not ended in time.
    pub(crate) fn command(&self, program: &str, within: Duration) -> Command {
        let mut command = self.host.command("nsenter");
        command
            .arg(format!("--target={}", self.init.pid))
            // Without --wd, which is looked up before they are entered, it begins at their root (setns(2)).
            .args(["--mount", "--pid", "timeout", "--kill-after=5"])
            .args([&within.as_secs().to_string(), program]);
        command
    }

    /// A path inside, as it is seen from outside.
    pub(crate) fn seen_from_outside(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.init.pid);
        Path::new(&root).join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Namespaces {
    fn end(&mut self) {
        drop(self.outer.take());
        // It is gone once all the others inside are (pid_namespaces(7)).
        let deadline = Deadline::after(Duration::from_secs(10));
        while self.init.is_there() && !deadline.remaining().is_zero() {
            self.doors.look_after();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if !self.registration.is_kept() {
            self.end();
        }
    }
}
