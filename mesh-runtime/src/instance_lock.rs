//! One runtime per network namespace.
//!
//! Three things are held, because runtimes of two versions, in different mount namespaces and with different rights may
//! meet: a group of packet logs, which is the namespace's and needs `CAP_NET_ADMIN`; a lock on a file that root alone
//! can open; and the name of a Unix socket. The first alone would do among runtimes of this version where the kernel
//! has it; the others are what earlier ones look at. Whoever finds one of them with another runtime ends.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};

use self::{
    log_group::{Asked, LogGroup},
    name::Holder,
};

mod log_group;
mod name;

/// Where root keeps what nobody else may take: a file for each network namespace. Abstract names are
/// anybody's.
const DIRECTORY: &str = "/run/quilt-mesh";

/// The socket is in it as well: whoever may call has to get through, and needs to list nothing.
const MODE: u32 = 0o711;

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another runtime has it.
    #[error(
        "another runtime{} works in this network namespace: stop it first, or run this one in a \
         namespace of its own",
        pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
    )]
    Held {
        /// The holder's process, if it could be asked.
        pid: Option<i32>,
    },
    /// The socket could not be made.
    #[error("cannot make sure that this is the only runtime in its network namespace: {0}")]
    Socket(#[from] io::Error),
}

/// Held while a runtime lives.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    /// `None` where the kernel has no such groups.
    _group: Option<LogGroup>,
    /// `None` where there is no place for it, as for a runtime that is not root.
    _file: Option<Flock<File>>,
    _name: Holder,
}

impl InstanceLock {
    /// Takes the lock of this thread's network namespace. The process must have `CAP_NET_ADMIN`.
    pub(crate) fn take() -> Result<Self, LockError> {
        let held = || LockError::Held { pid: name::pid() };
        // Without a file the others have to do.
        let file = match lock_file() {
            Ok(None) => return Err(held()),
            file => file.ok().flatten(),
        };
        let group = match log_group::ask() {
            Asked::Held => return Err(held()),
            Asked::Taken(group) => Some(group),
            Asked::Unavailable(error) => {
                tracing::debug!(name: "kernel-no-group-packet-logs", %error, "this kernel has no group of packet logs to hold (nfnetlink_log)");
                None
            }
        };
        let name = name::take()?;
        match &name {
            Holder::This { .. } => {}
            // One of an earlier version, or one that could not have the others.
            &Holder::Runtime { pid } => return Err(LockError::Held { pid }),
            // A runtime answers; who does not, and let us have the others, is none.
            Holder::Silent if file.is_none() && group.is_none() => {
                return Err(LockError::Held { pid: None });
            }
            other => {
                let who = match other {
                    Holder::Other(who) => who,
                    _ => "it does not answer",
                };
                // Anybody may take the name while no runtime runs, to keep the next from starting.
                tracing::warn!(name: "process-no-runtime-holds-name",
                    who,
                    "a process that is no runtime holds the name by which runtimes of earlier versions know of each \
                     other (@quilt-mesh-runtime): going on without; end it"
                );
            }
        }
        Ok(Self {
            _group: group,
            _file: file,
            _name: name,
        })
    }
}

/// Locks the file of this thread's network namespace; `None` if another process has it.
fn lock_file() -> io::Result<Option<Flock<File>>> {
    let namespace = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let mut directory = DirBuilder::new();
    directory.recursive(true).mode(MODE).create(DIRECTORY)?;
    // One that an earlier version made.
    let found = fs::metadata(DIRECTORY)?;
    if found.uid() == geteuid().as_raw() && found.mode() & 0o7777 == 0o700 {
        fs::set_permissions(DIRECTORY, Permissions::from_mode(MODE))?;
    }
    let path = Path::new(DIRECTORY).join(format!("net-{namespace}.lock"));
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(Some(file)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}
