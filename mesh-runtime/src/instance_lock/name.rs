//! The name by which runtimes of earlier versions know of each other: an abstract Unix socket.
//!
//! Anybody in the network namespace can have it first, so it is asked who has it, and a process that cannot be a
//! runtime is not believed.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, UnixCredentials, bind, connect,
        getsockopt, listen, socket, sockopt::PeerCredentials,
    },
    unistd::{geteuid, getpid},
};

use crate::privileges;

const NAME: &[u8] = b"quilt-mesh-runtime";

/// How long a runtime takes at most from having the name to listening, which is two system calls.
const TO_LISTEN: Duration = Duration::from_millis(200);

/// Who holds the name.
#[derive(Debug)]
pub(super) enum Holder {
    /// This process, as long as the socket is open.
    This { _socket: OwnedFd },
    /// A runtime, for all that can be told, and its process if that is in our process namespace.
    Runtime { pid: Option<i32> },
    /// Somebody else, in words.
    Other(String),
    /// Nobody can tell.
    Silent,
}

/// Takes the name, or says who has it.
///
/// # Errors
///
/// What the kernel has against such a socket.
pub(super) fn take() -> io::Result<Holder> {
    let name = UnixAddr::new_abstract(NAME)?;
    let socket = new_socket()?;
    match bind(socket.as_raw_fd(), &name) {
        Ok(()) => {}
        Err(Errno::EADDRINUSE) => return Ok(holder(&name)),
        Err(errno) => return Err(errno.into()),
    }
    // Listening lets others ask who holds it: the kernel answers, nobody accepts.
    listen(&socket, Backlog::new(16)?)?;
    Ok(Holder::This { _socket: socket })
}

/// The process of the runtime that has the name, if there is one and it can be told.
pub(super) fn pid() -> Option<i32> {
    match holder(&UnixAddr::new_abstract(NAME).ok()?) {
        Holder::Runtime { pid } => pid,
        _ => None,
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

fn holder(name: &UnixAddr) -> Holder {
    let answer = ask(name).or_else(|_| {
        std::thread::sleep(TO_LISTEN);
        ask(name)
    });
    match answer {
        Ok(holder) if may_be_runtime(&holder) => Holder::Runtime {
            // 0 stands for one in a foreign process namespace.
            pid: Some(holder.pid()).filter(|&pid| pid > 0),
        },
        Ok(holder) => Holder::Other(format!("pid {} of user {}", holder.pid(), holder.uid())),
        // It is no stream socket, or does not listen.
        Err(Errno::EPROTOTYPE | Errno::ECONNREFUSED) => Holder::Other("it does not listen".into()),
        Err(_) => Holder::Silent,
    }
}

/// Root is believed, and our own user; but not a root that may not change the network, such as that of a container
/// that shares the host's network.
fn may_be_runtime(holder: &UnixCredentials) -> bool {
    if holder.uid() != 0 && holder.uid() != geteuid().as_raw() {
        return false;
    }
    match fs::read_to_string(format!("/proc/{}/status", holder.pid())) {
        Ok(status) => privileges::may_change_network(&status),
        // A runtime lives as long as its socket. Where /proc is of another process namespace, or shows nobody else's
        // processes, or the holder is in one that is foreign, nothing is known.
        Err(_) => holder.pid() == 0 || !shows_everybody(),
    }
}

/// Whether /proc is that of this process's namespace, and shows processes of others.
fn shows_everybody() -> bool {
    let own = fs::read_link("/proc/self").is_ok_and(|it| it == Path::new(&getpid().to_string()));
    own && Path::new("/proc/1/status").exists()
}

fn ask(name: &UnixAddr) -> Result<UnixCredentials, Errno> {
    let socket =
        new_socket().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    connect(socket.as_raw_fd(), name)?;
    getsockopt(&socket, PeerCredentials)
}
