//! The runtime that nobody said the place of: `quilt-runtime` at its socket, or one that serves loopback alone.
//!
//! The socket is asked first: root or its owner serves it, while a port of loopback is whoever's takes it first. Where there is
//! no socket, nobody serves it or this user may not call there, as after an upgrade from the time when agents came by
//! loopback, the runtime is asked there if it is root, or this agent's own user, who listens; and the socket is gone over to as
//! soon as it can be.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mesh_problems::catalog::agent::RUNTIME_BY_LOOPBACK;
use tracing::{info, warn};

use tokio::net::TcpStream;

use super::{Opened, SOCKETS_NAME, Way, listener, tcp, unix};

/// Where `quilt-runtime` serves unless it is told otherwise.
const SOCKET: &str = "/run/quilt-mesh/runtime.sock";

/// Where it does so, too, and a runtime that serves the three calls of `quilt.proto` alone.
const LOOPBACK: &str = "127.0.0.1:50051";
const PORT: u16 = 50051;

/// Says where the runtime was found, once for all its clones.
#[derive(Debug, Clone, Default)]
pub struct Found(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    said: Option<Said>,
    /// A socket that is for others than agents.
    shunned: Option<SocketFile>,
}

/// Device, inode, and when it was last changed, in seconds and nanoseconds: what is made anew under the name is another.
type SocketFile = (u64, u64, i64, i64);

fn socket_file() -> Option<SocketFile> {
    let it = fs::symlink_metadata(SOCKET).ok()?;
    Some((it.dev(), it.ino(), it.ctime(), it.ctime_nsec()))
}

/// How the runtime was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Socket,
    Loopback(NoSocket),
}

/// Why it was not by the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoSocket {
    Missing,
    Unserved,
    Forbidden,
    /// Of a program that embeds a runtime, for `meshctl` and plugins alone; or its mode lets through whom the runtime does not.
    NotForAgents,
}

impl NoSocket {
    fn of(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::NotFound => Some(Self::Missing),
            io::ErrorKind::ConnectionRefused => Some(Self::Unserved),
            io::ErrorKind::PermissionDenied => Some(Self::Forbidden),
            _ => None,
        }
    }
}

impl fmt::Display for NoSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "it is not there",
            Self::Unserved => "nobody serves it",
            Self::NotForAgents => "no agent of this user is served there",
            Self::Forbidden => {
                "this user may not call there: start quilt-runtime with --socket-group GROUP, and this agent as a member of \
                 that group"
            }
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SOCKET} or {LOOPBACK}")
    }
}

/// Connects to loopback, if whoever listens there may be the runtime: while that is not there yet, the port is anybody's.
async fn over_loopback() -> io::Result<TcpStream> {
    let before = listener::on_loopback(PORT)?;
    let stream = tcp(LOOPBACK).await?;
    let after = listener::on_loopback(PORT)?;
    match listener::judge(&before, &after) {
        Ok(()) => Ok(stream),
        Err(why) => Err(io::Error::other(format!(
            "{why}: not taken for the runtime. If it is, say so with --quilt-runtime http://{LOOPBACK}"
        ))),
    }
}

impl Found {
    pub(super) async fn open(&self) -> io::Result<Opened> {
        let why = match unix(Path::new(SOCKET)).await {
            Ok(_) if self.is_shunned() => NoSocket::NotForAgents,
            Ok(stream) => {
                self.say(Said::Socket);
                return Ok(Opened {
                    way: Way::FoundSocket,
                    ..Opened::new(stream, SOCKETS_NAME)
                });
            }
            // Whoever serves it in the runtime's place is no reason to trust whoever has the port.
            Err(error) => NoSocket::of(&error)
                .ok_or_else(|| io::Error::other(format!("{SOCKET}: {error}")))?,
        };
        match over_loopback().await {
            Ok(stream) => {
                self.say(Said::Loopback(why));
                Ok(Opened {
                    way: Way::FoundPort,
                    ..Opened::new(stream, LOOPBACK)
                })
            }
            Err(error) => Err(io::Error::other(format!(
                "{LOOPBACK}: {error}; {SOCKET}: {why}"
            ))),
        }
    }

    pub(super) fn reached_by(&self) -> Option<String> {
        Some(match self.known().said? {
            Said::Socket => format!("unix:{SOCKET}"),
            Said::Loopback(_) => format!("http://{LOOPBACK}"),
        })
    }

    pub(super) fn closed_socket(&self) -> Option<String> {
        match self.known().said? {
            Said::Loopback(reason @ NoSocket::Forbidden) => Some(format!("{SOCKET}: {reason}")),
            Said::Loopback(_) | Said::Socket => None,
        }
    }

    /// Whether the socket can be called by now, or need no longer be.
    pub(super) async fn has_better_than(&self, way: Way) -> bool {
        match way {
            Way::Given => false,
            Way::FoundSocket => self.is_shunned(),
            Way::FoundPort => !self.is_shunned() && unix(Path::new(SOCKET)).await.is_ok(),
        }
    }

    /// Leaves the socket alone until it is made anew: agents are not served there.
    pub(super) fn shun_socket(&self) {
        self.known().shunned = socket_file();
    }

    fn is_shunned(&self) -> bool {
        let shunned = self.known().shunned;
        shunned.is_some() && shunned == socket_file()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nobody panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, now: Said) {
        if self.known().said.replace(now) == Some(now) {
            return;
        }
        match now {
            Said::Socket => {
                info!(name: "runtime-called-socket", socket = SOCKET, "the runtime is called by its socket")
            }
            Said::Loopback(reason @ NoSocket::Forbidden) => {
                warn!(name: "runtime-called-over-loopback-not",
                    code = RUNTIME_BY_LOOPBACK.code, address = LOOPBACK, socket = SOCKET, %reason,
                    "the runtime is called over loopback, and not by its socket"
                )
            }
            Said::Loopback(reason) => info!(name: "runtime-called-over-loopback-socket",
                address = LOOPBACK, socket = SOCKET, %reason,
                "the runtime is called over loopback, and by its socket as soon as that is there"
            ),
        }
    }
}
