//! A process in namespaces and a root directory of its own.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::Stdio,
    thread,
};

use anyhow::{Context as _, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    unistd::{chdir, pivot_root},
};
use rtnetlink::LinkUnspec;
use tokio::{
    process::{Child, Command},
    runtime::Handle,
};

/// What a container's first process is called until it becomes the container's command.
pub(crate) const INIT: &str = "container-init";

/// Starts the first process of a container, which waits for a byte on its standard input.
pub(crate) fn start(name: &str, root: &Path, command: &str) -> anyhow::Result<Child> {
    let mut init = Command::new(std::env::current_exe()?);
    init.arg0(INIT).arg(name).arg(root);
    init.args(command.split_whitespace());
    init.stdin(Stdio::piped()).kill_on_drop(true);
    let tokio = Handle::current();
    // Namespaces are a thread's, and a process is in those of the thread that started it.
    let thread = thread::spawn(move || {
        let _entered = tokio.enter();
        unshare(
            CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC,
        )?;
        init.spawn()
    });
    let started = thread
        .join()
        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    started.context("cannot start a process in new namespaces, which takes root")
}

/// Becomes the container's command, when its interface is there.
pub(crate) async fn init(words: &[String]) -> anyhow::Result<()> {
    let [name, root, program, arguments @ ..] = words else {
        bail!("no command");
    };
    // The input ends without a byte if the container was not attached.
    io::stdin().read_exact(&mut [0])?;
    // The loopback interface, which is always the first, is the container runtime's to bring up.
    let (connection, network, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    let up = LinkUnspec::new_with_index(1).up().build();
    network.link().change(up).execute().await?;
    fs::write("/proc/sys/kernel/hostname", name)?;
    let none = None::<&str>;
    // What is mounted from here on is not seen on the host.
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none)?;
    mount(Some(&**root), &**root, none, MsFlags::MS_BIND, none)?;
    chdir(&**root)?;
    let proc = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "proc", Some("proc"), proc, none)
        .with_context(|| format!("cannot mount {root}/proc"))?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    let mut command = std::process::Command::new(program);
    command.args(arguments).env_clear();
    let failed = command.env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin").exec();
    Err(failed).with_context(|| format!("cannot run {program}"))
}
