//! One runtime per network namespace.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{
            DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
        },
    },
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
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
    _socket: OwnedFd,
    /// `None` where there is no place for it, as for a runtime that is not root.
    _file: Option<Flock<File>>,
}

impl InstanceLock {
    /// Takes the lock of this thread's network namespace.
    pub(crate) fn take() -> Result<Self, LockError> {
        let file = lock_file();
        let name = UnixAddr::new_abstract(NAME).map_err(io::Error::from)?;
        if matches!(file, Ok(None)) {
            let pid = match holder(&name) {
                Holder::Runtime { pid } => pid,
                Holder::Other(_) | Holder::Silent => None,
            };
            return Err(LockError::Held { pid });
        }
        // Without a file the name alone has to do.
        let file = file.ok().flatten();
        let socket = new_socket()?;
        match bind(socket.as_raw_fd(), &name) {
            Ok(()) => {}
            Err(Errno::EADDRINUSE) => match holder(&name) {
                Holder::Runtime { pid } => return Err(LockError::Held { pid }),
                // A runtime answers; who does not, and let us have the file, is none.
                Holder::Silent if file.is_none() => return Err(LockError::Held { pid: None }),
                other => {
                    let who = match other {
                        Holder::Other(who) => who,
                        _ => "it does not answer".to_owned(),
                    };
                    // Anybody may take the name while no runtime runs, to keep the next from starting.
                    tracing::warn!(
                        who,
                        "a process that is no runtime holds the name by which runtimes know of each other \
                         (@quilt-mesh-runtime): going on without; end it"
                    );
                    return Ok(Self {
                        _socket: socket,
                        _file: file,
                    });
                }
            },
            Err(errno) => return Err(LockError::Socket(errno.into())),
        }
        // Listening lets others ask who holds it: the kernel answers, nobody accepts.
        listen(&socket, Backlog::new(16).map_err(io::Error::from)?).map_err(io::Error::from)?;
        Ok(Self {
            _socket: socket,
            _file: file,
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
    /// A runtime, for all that can be told, and its process if that is in our process namespace.
    Runtime { pid: Option<i32> },
    /// Somebody else, in words.
    Other(String),
    /// Nobody can tell.
    Silent,
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
        Err(_) => Holder::Silent,
    }
}

fn ask(name: &UnixAddr) -> Result<UnixCredentials, Errno> {
    let socket =
        new_socket().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    connect(socket.as_raw_fd(), name)?;
    getsockopt(&socket, PeerCredentials)
}
