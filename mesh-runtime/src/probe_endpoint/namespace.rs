//! A network namespace with nobody in it, held open.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace of the runtime's own. It ends with the last that holds it, at the latest with the process.
#[derive(Debug)]
pub(crate) struct ProbeNamespace(File);

impl AsFd for ProbeNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ProbeNamespace {
    /// Makes one that forwards nothing and speaks no IPv6. Blocks.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_SYS_ADMIN; the kernel's other reasons.
    pub(crate) fn make() -> io::Result<Self> {
        // A thread that has left its namespace is of no use for anything else.
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // It begins with what the host's interfaces have (`inet_init_net`, net/ipv4/devinet.c), which routes.
            set("net/ipv4/ip_forward", "0")?;
            set("net/ipv4/icmp_echo_ignore_all", "0")?;
            for which in ["all", "default"] {
                match set(&format!("net/ipv6/conf/{which}/disable_ipv6"), "1") {
                    // A kernel without IPv6.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
            Ok(Self(File::open("/proc/thread-self/ns/net")?))
        })
    }

    /// Does something inside: what is opened there stays there. Blocks.
    ///
    /// # Errors
    ///
    /// The kernel does not let us in, or what `work` says.
    pub(crate) fn enter<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        in_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// This thread's own, for tests that need one and may make none.
    #[cfg(test)]
    pub(crate) fn own() -> Self {
        Self(File::open("/proc/thread-self/ns/net").unwrap())
    }
}

/// The files under `/proc/sys/net` are those of the reader's namespace.
fn set(key: &str, value: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/{key}"), value)
}

fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("probe-endpoint".to_owned())
            .spawn_scoped(scope, work)?;
        let ended = thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread inside panicked")))
    })
}
