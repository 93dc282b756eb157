//! One runtime per network namespace.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen,
        socket, sockopt::PeerCredentials,
    },
};

/// Name of the abstract Unix socket that a runtime holds. Abstract names belong to a network
/// namespace, so this is the very scope in which two runtimes would fight over one kernel
/// state, and the kernel gives the name back however the holder ends.
const NAME: &[u8] = b"quilt-mesh-runtime";

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
    _socket: OwnedFd,
}

impl InstanceLock {
    /// Takes the lock of this thread's network namespace.
    pub(crate) fn take() -> Result<Self, LockError> {
        let name = UnixAddr::new_abstract(NAME).map_err(io::Error::from)?;
        let socket = new_socket()?;
        match bind(socket.as_raw_fd(), &name) {
            Ok(()) => {}
            Err(Errno::EADDRINUSE) => return Err(LockError::Held { pid: holder(&name) }),
            Err(errno) => return Err(LockError::Socket(errno.into())),
        }
        // Listening lets others ask who holds it: the kernel answers, nobody accepts.
        listen(&socket, Backlog::new(16).map_err(io::Error::from)?).map_err(io::Error::from)?;
        Ok(Self { _socket: socket })
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Unix,
        SockType::Stream,
        // Non-blocking: a full backlog must not hold up whoever asks.
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?)
}

/// The process that holds the lock. 0 stands for one in a foreign process namespace.
fn holder(name: &UnixAddr) -> Option<i32> {
    let socket = new_socket().ok()?;
    connect(socket.as_raw_fd(), name).ok()?;
    let credentials = getsockopt(&socket, PeerCredentials).ok()?;
    (credentials.pid() > 0).then_some(credentials.pid())
}
