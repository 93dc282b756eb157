//! A host whose runtime, if it has one, is at the places where agents look.

use std::{
    fs::{self, Permissions},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use mesh_testbed::NetNs;
use nix::libc;
use tempfile::TempDir;

use crate::{
    fake_control_plane::{FakeControlPlane, server},
    fake_runtime::FakeRuntime,
    process::{Agent, BINARY},
};

pub(crate) const NOBODY: u32 = 65_534;

/// The port of loopback.
const PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50051);

pub(crate) struct Host {
    pub(crate) netns: NetNs,
    pub(crate) control: FakeControlPlane,
    /// What the agent sees as /run/quilt-mesh.
    pub(crate) run: TempDir,
    /// The agent's.
    state: TempDir,
}

/// Runs the agent with a /run of its own, in which the first argument is /run/quilt-mesh, and as the user and group that
/// follow.
const OWN_RUN: &str = "
    dir=$1 user=$2 group=$3; shift 3
    mount -t tmpfs none /run && mkdir /run/quilt-mesh && mount --bind \"$dir\" /run/quilt-mesh &&
    exec setpriv --reuid=\"$user\" --regid=\"$group\" --clear-groups \"$@\"";

impl Host {
    pub(crate) fn new() -> Self {
        // The fakes block on runtimes of their own, so the tests run on none.
        let netns = server().block_on(NetNs::new("door")).unwrap();
        let control = netns.run(FakeControlPlane::start).unwrap();
        control.add_peer(2);
        let (run, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        for dir in [&run, &state] {
            fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
        }
        chown(state.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        // User 65534 may not be allowed to look into the build directory. Copied by another process: what is open for
        // writing in a process that forks cannot be executed (ETXTBSY).
        let copied = Command::new("cp")
            .arg(BINARY)
            .arg(state.path().join("agent"))
            .status();
        assert!(copied.unwrap().success());
        Self {
            netns,
            control,
            run,
            state,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.run.path().join("runtime.sock")
    }

    /// A runtime at the socket.
    pub(crate) fn at_socket(&self) -> FakeRuntime {
        self.netns
            .run(|| FakeRuntime::at_socket(&self.socket()))
            .unwrap()
    }

    /// The same, served by user 65534.
    pub(crate) fn at_socket_by_nobody(&self) -> FakeRuntime {
        let work = || {
            become_nobody();
            FakeRuntime::at_socket(&self.socket())
        };
        self.netns.run(work).unwrap()
    }

    /// A runtime at the port of loopback that user 65534 serves.
    pub(crate) fn at_port_by_nobody(&self) -> FakeRuntime {
        let work = || {
            become_nobody();
            FakeRuntime::at(PORT, true)
        };
        self.netns.run(work).unwrap()
    }

    /// A runtime at the port of loopback, which serves all calls or the three of `quilt.proto`.
    pub(crate) fn at_port(&self, all: bool) -> FakeRuntime {
        self.netns.run(|| FakeRuntime::at(PORT, all)).unwrap()
    }

    /// The agent, as root or as user and group 65534.
    pub(crate) fn agent(&self, user: u32, arguments: &[&str]) -> Agent {
        let mut command = self.netns.command("/usr/bin/unshare");
        command.args(["--mount", "/bin/sh", "-c", OWN_RUN, "sh"]);
        command.arg(self.run.path());
        command.args([user.to_string(), user.to_string()]);
        command.arg(self.state.path().join("agent"));
        let control = self.control.url();
        let mut command = Agent::options_without_runtime(command, &control, self.state.path());
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["--host-ip", "192.0.2.1"])
            .args(arguments);
        Agent::spawn(command)
    }
}

/// Makes the thread that calls it, which ends with the work that it was started for, user 65534's.
fn become_nobody() {
    // SAFETY: takes numbers. The C library's function of this name would change the whole process.
    let changed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    assert_eq!(changed, 0);
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}
