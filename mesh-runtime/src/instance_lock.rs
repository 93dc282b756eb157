//! One runtime per network namespace.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, UnixCredentials, bind, connect,
        getsockopt, listen, socket, sockopt::PeerCredentials,
    },
    unistd::geteuid,
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
            Err(Errno::EADDRINUSE) => match holder(&name) {
                Holder::Runtime { pid } => return Err(LockError::Held { pid }),
                Holder::Other(who) => {
                    // Anybody may take the name while no runtime runs, to keep the next from starting.
                    tracing::warn!(
                        who,
                        "a process that is no runtime holds the name by which runtimes know of each other \
                         (@quilt-mesh-runtime): going on without; end it"
                    );
                    return Ok(Self { _socket: socket });
                }
            },
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

/// Who holds the lock.
enum Holder {
    /// A runtime, for all that can be told, and its process if it could be asked.
    Runtime { pid: Option<i32> },
    /// Somebody else, in words.
    Other(String),
}

/// How long a runtime takes at most from having the name to listening, which is two system calls.
const TO_LISTEN: Duration = Duration::from_millis(200);

fn holder(name: &UnixAddr) -> Holder {
    let answer = ask(name).or_else(|_| {
        std::thread::sleep(TO_LISTEN);
        ask(name)
    });
    match answer {
        Ok(holder) if holder.uid() == 0 || holder.uid() == geteuid().as_raw() => Holder::Runtime {
            // 0 stands for one in a foreign process namespace.
            pid: Some(holder.pid()).filter(|&pid| pid > 0),
        },
        Ok(holder) => Holder::Other(format!("pid {} of user {}", holder.pid(), holder.uid())),
        // It is no stream socket, or does not listen.
        Err(Errno::EPROTOTYPE | Errno::ECONNREFUSED) => Holder::Other("it does not listen".into()),
        Err(_) => Holder::Runtime { pid: None },
    }
}

fn ask(name: &UnixAddr) -> Result<UnixCredentials, Errno> {
    let socket =
        new_socket().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    connect(socket.as_raw_fd(), name)?;
    getsockopt(&socket, PeerCredentials)
}
