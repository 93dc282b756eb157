//! Doing things inside a network namespace.

use std::{
    future::Future,
    io,
    os::{
        fd::{FromRawFd as _, IntoRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
    sync::Arc,
    thread,
};

use netlink_sys::{Socket, TokioSocket, protocols::NETLINK_ROUTE};
use nix::sched::{CloneFlags, setns};

use crate::error::{Error, Result};

/// A way into a namespace that can be handed to other threads and tasks. It keeps the
/// namespace's interfaces alive but not its name.
#[derive(Debug, Clone)]
pub struct Entrance {
    name: Arc<str>,
    fd: Arc<OwnedFd>,
}

impl Entrance {
    /// Into the namespace that a descriptor stands for. The name is what errors call it.
    pub fn new(name: &str, fd: OwnedFd) -> Self {
        Self {
            name: name.into(),
            fd: Arc::new(fd),
        }
    }

    /// The name of the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// See [`NetNs::run`](crate::NetNs::run).
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| -> io::Result<T> {
            setns(&*self.fd, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .and_then(|result| result)
        .map_err(|error| self.failed("enter", error))
    }

    /// See [`NetNs::run_blocking`](crate::NetNs::run_blocking).
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered.
    pub async fn run_blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let entrance = self.clone();
        let (send, receive) = tokio::sync::oneshot::channel();
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn(move || {
                let entered = setns(&*entrance.fd, CloneFlags::CLONE_NEWNET);
                let _ = send.send(entered.map(|()| work()));
            })
            .map_err(|error| self.failed("start a thread in", error))?;
        match receive.await {
            Ok(result) => result.map_err(|error| self.failed("enter", error.into())),
            Err(_) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => Err(self.failed("run in", io::ErrorKind::BrokenPipe.into())),
            },
        }
    }

    /// See [`NetNs::run_async`](crate::NetNs::run_async).
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered.
    pub async fn run_async<T, F, Fut>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T>,
    {
        self.run_blocking(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map(|runtime| runtime.block_on(work()))
        })
        .await?
        .map_err(|error| self.failed("start a runtime in", error))
    }

    /// See [`NetNs::netlink`](crate::NetNs::netlink).
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered or the socket cannot be made.
    pub fn netlink(&self) -> Result<rtnetlink::Handle> {
        let socket = self
            .run(|| -> io::Result<Socket> {
                let mut socket = Socket::new(NETLINK_ROUTE)?;
                socket.bind_auto()?;
                socket.set_non_blocking(true)?;
                Ok(socket)
            })?
            .map_err(|error| self.failed("open a netlink socket in", error))?;
        // SAFETY: the file descriptor was just taken from its only owner.
        let socket = unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) };
        let (connection, handle, _) = rtnetlink::from_socket(socket);
        tokio::spawn(connection);
        Ok(handle)
    }

    /// See [`NetNs::command`](crate::NetNs::command).
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let fd = Arc::clone(&self.fd);
        // SAFETY: between fork and exec only setns is called, which is async-signal-safe; the
        // descriptor is kept open by the closure.
        unsafe {
            command
                .pre_exec(move || setns(&*fd, CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
        }
        command
    }

    fn failed(&self, action: &'static str, error: io::Error) -> Error {
        Error::system(action, format!("network namespace {}", self.name), error)
    }
}

impl AsRef<Self> for Entrance {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Runs `work` on a fresh thread, because a thread that has changed its namespace must not
/// be used for anything else.
pub(crate) fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
