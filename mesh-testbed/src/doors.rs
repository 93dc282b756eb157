//! Ways into the mount and process namespaces of a process.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt as _,
    process::{Child, Command},
    sync::{Arc, OnceLock},
};

use nix::sched::{CloneFlags, setns};

use crate::{daemons::Slot, entrance::on_thread};

/// The mount and the process namespace of a process. The first stays as long as this value, the second ends with the
/// first process inside.
#[derive(Debug)]
pub(crate) struct Doors {
    mounts: Arc<File>,
    processes: File,
    /// The daemon that was begun inside. It is a child of ours.
    tenant: OnceLock<Arc<Slot>>,
}

impl Doors {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let open = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}"));
        Ok(Self {
            mounts: Arc::new(open("mnt")?),
            processes: open("pid")?,
            tenant: OnceLock::new(),
        })
    }

    pub(crate) fn mounts(&self) -> &Arc<File> {
        &self.mounts
    }

    /// Says which daemon runs inside.
    pub(crate) fn let_in(&self, tenant: &Arc<Slot>) {
        let _ = self.tenant.set(Arc::clone(tenant));
    }

    /// Looks whether the daemon inside has ended. A process namespace ends when all inside are waited for.
    pub(crate) fn look_after(&self) {
        if let Some(tenant) = self.tenant.get() {
            tenant.look_after();
        }
    }

    /// Starts a command inside. It is a child of ours all the same.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        enter_mounts(command, &self.mounts);
        // What a thread sets here is where its children begin (setns(2)).
        on_thread(|| {
            setns(&self.processes, CloneFlags::CLONE_NEWPID)?;
            command.spawn()
        })?
    }
}

/// Has a command begin in a mount namespace, at its root.
pub(crate) fn enter_mounts(command: &mut Command, mounts: &Arc<File>) {
    let mounts = Arc::clone(mounts);
    // SAFETY: between fork and exec only setns is called, which is async-signal-safe; the
    // descriptor is kept open by the closure.
    unsafe {
        command.pre_exec(move || setns(&*mounts, CloneFlags::CLONE_NEWNS).map_err(io::Error::from));
    }
}
