//! Network namespaces with a name, as iproute2 makes them.

use std::{
    fs,
    future::Future,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use crate::{
    entrance::{Entrance, on_thread},
    error::{Error, Result},
    reaper::Registration,
};

const NETNS_DIR: &str = "/run/netns";

/// A network namespace that exists as long as this value, visible to `ip netns list` and
/// entered from a shell with [`enter_command`](Self::enter_command).
///
/// Its loopback is up, IPv6 is off (no neighbour discovery in packet counts), forwarding and
/// reverse path filtering are off whatever the machine's defaults are: see
/// [`sysctl`](Self::sysctl).
#[derive(Debug)]
pub struct NetNs {
    entrance: Entrance,
    registration: Registration,
}

impl NetNs {
    /// Makes a namespace outside any testbed, named `qm-<pid>-<n>-<label>`.
    ///
    /// # Errors
    ///
    /// [`Error::NotRoot`], or the system call that failed.
    pub async fn new(label: &str) -> Result<Self> {
        let testbed = crate::testbed::unique_name();
        Self::create(&format!("{testbed}-{label}"), &Registration::new(&testbed)).await
    }

    pub(crate) async fn create(name: &str, registration: &Registration) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        let path = path_of(name);
        let failed = |action| {
            let subject = format!("network namespace {name}");
            move |error: io::Error| Error::system(action, subject, error)
        };
        prepare_netns_dir().map_err(failed("prepare /run/netns for"))?;
        registration.netns(name)?;
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed("create the mount point of"))?;
        // Bound from inside the new namespace; the thread ends with it, the mount stays.
        let bound = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
            fs::File::open("/proc/thread-self/ns/net")
        });
        let file = match bound.and_then(|result| result) {
            Ok(file) => file,
            Err(error) => {
                let _ = fs::remove_file(&path);
                return Err(failed("create")(error));
            }
        };
        let namespace = Self {
            entrance: Entrance::new(name, file.into()),
            registration: registration.clone(),
        };
        for (key, value) in [
            ("net/ipv6/conf/all/disable_ipv6", "1"),
            ("net/ipv6/conf/default/disable_ipv6", "1"),
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ] {
            match namespace.sysctl(key, value) {
                // A kernel without IPv6 has nothing to switch off.
                Err(Error::System { source, .. })
                    if key.contains("ipv6") && source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        let link = crate::link::Links::of(&namespace)?;
        link.up("lo").await?;
        Ok(namespace)
    }

    /// The name under /run/netns.
    pub fn name(&self) -> &str {
        self.entrance.name()
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        path_of(self.name())
    }

    /// A way in for other threads and tasks.
    pub fn entrance(&self) -> Entrance {
        self.entrance.clone()
    }

    /// The shell command that enters this namespace. (`ip netns exec` also does, but it
    /// remounts /sys and hides bpffs.)
    pub fn enter_command(&self) -> String {
        format!("nsenter --net={}", self.path().display())
    }

    /// Runs `work` on a thread inside the namespace and waits for it: for short work. Sockets
    /// made there stay in the namespace wherever they are used later.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered. A panic of `work` is passed on.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.entrance.run(work)
    }

    /// Runs `work` on a thread inside the namespace without blocking the caller's.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered. A panic of `work` is passed on.
    pub async fn run_blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.entrance.run_blocking(work).await
    }

    /// Runs a future on a runtime of its own inside the namespace, so that all its sockets
    /// are made there.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered. A panic of the future is passed on.
    pub async fn run_async<T, F, Fut>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T>,
    {
        self.entrance.run_async(work).await
    }

    /// An rtnetlink handle into the namespace, driven by the caller's tokio runtime.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered or the socket cannot be made.
    pub fn netlink(&self) -> Result<rtnetlink::Handle> {
        self.entrance.netlink()
    }

    /// A command whose process starts inside the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.entrance.command(program)
    }

    /// Writes a sysctl of the namespace, e.g. `("net/ipv4/ip_forward", "1")`.
    ///
    /// # Errors
    ///
    /// When there is no such sysctl or the kernel refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| fs::write(Path::new("/proc/sys").join(key), value))?
            .map_err(|error| {
                Error::system(
                    "set",
                    format!("sysctl {key}={value} in {}", self.name()),
                    error,
                )
            })
    }

    /// Kills every process inside but those of this program, by SIGKILL.
    pub fn kill_processes(&self) {
        let Ok(own) = nix::sys::stat::fstat(self.entrance.fd().as_fd()) else {
            return;
        };
        let Ok(processes) = fs::read_dir("/proc") else {
            return;
        };
        for process in processes.flatten() {
            let Some(pid) = process
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let inside = nix::sys::stat::stat(&process.path().join("ns/net"))
                .is_ok_and(|other| other.st_ino == own.st_ino && other.st_dev == own.st_dev);
            if inside && pid != std::process::id().cast_signed() {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    }

    pub(crate) fn registration(&self) -> &Registration {
        &self.registration
    }
}

impl AsRef<Entrance> for NetNs {
    fn as_ref(&self) -> &Entrance {
        &self.entrance
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if self.registration.is_kept() {
            return;
        }
        self.kill_processes();
        let path = self.path();
        // The reaper may have been quicker; then there is nothing to do.
        let _ = umount2(&path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&path);
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Makes /run/netns a shared mount, as iproute2 does when it is first used: if iproute2 did
/// it later, it would copy our mounts and removing ours would leave the copies.
fn prepare_netns_dir() -> io::Result<()> {
    fs::create_dir_all(NETNS_DIR)?;
    // Two testbeds at a time would stack two mounts.
    let dir = fs::File::open(NETNS_DIR)?;
    dir.lock()?;
    let share = || {
        mount(
            None::<&str>,
            NETNS_DIR,
            None::<&str>,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            None::<&str>,
        )
    };
    match share() {
        Err(nix::errno::Errno::EINVAL) => {
            mount(
                Some(NETNS_DIR),
                NETNS_DIR,
                None::<&str>,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                None::<&str>,
            )?;
            share()?;
        }
        other => other?,
    }
    Ok(())
}
