//! The admin socket: a Unix socket on which root of this host and the control plane's own user may do everything.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::Uid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::accept::{ACCEPT_PAUSE, finish};
use super::connection::{self, Site};
use crate::access::origin::Origin;
use crate::credentials::key_file;

/// Connections at a time: those of others do not take the place of these.
const CONNECTIONS: usize = 64;

/// The pause after the first attempt to make it, and the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// Another process answers there.
    #[error(
        "{0} is the socket of another process that is running; give this control plane a --state-dir of its own"
    )]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{0} is no socket, and is not removed; move it, or give another --state-dir")]
    NoSocket(PathBuf),
    /// The system refuses.
    #[error("cannot make the admin socket {path}: {error}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// A file beside the socket that only the control plane's user may open.
const OWN_FILE: &str = key_file::NAME;

/// A socket that listens. Dropping it removes the file.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl AdminSocket {
    /// Listens at `path`, in the place of a socket that an earlier process has left.
    ///
    /// # Errors
    ///
    /// [`AdminSocketError`].
    pub fn bind(path: &Path) -> Result<Self, AdminSocketError> {
        let failed = |error| AdminSocketError::Io {
            path: path.to_owned(),
            error,
        };
        let in_use = || AdminSocketError::InUse(path.to_owned());
        // Of two that start at once, one at a time looks and binds. What is locked is there anyhow, so that no file is left:
        // the authority's keys, which nobody else may open, or where there are none the directory.
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let lock = File::open(directory.join(OWN_FILE)).or_else(|_| File::open(directory));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use()),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(AdminSocketError::NoSocket(path.to_owned()));
            }
            Ok(_) if answers(path).map_err(failed)? => return Err(in_use()),
            Ok(_) => fs::remove_file(path).map_err(failed)?,
        }
        let listener = listen(path).map_err(failed)?;
        let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
        Ok(Self {
            listener,
            path: path.to_owned(),
            inode,
        })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Unless somebody has put another one there.
        let is_own = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if is_own {
            // One that stays is replaced by the next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a process listens there. It is not waited for.
fn answers(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            // It has more to do than it takes up.
            io::ErrorKind::WouldBlock => Ok(true),
            _ => Err(error),
        },
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    // On Linux the file gets the mode of the socket, so that it is closed to others from its first moment on.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(128)?;
    debug!(name: "admin-socket-listens", path = %path.display(), fd = socket.as_raw_fd(), "the admin socket listens");
    UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))
}

/// Serves the socket at `path` until the site stops. If it could not be made at `first`, that is said once, and it is tried
/// again until it is there. Replicas that share a directory have one between them: who waits has it next.
pub async fn keep(
    path: PathBuf,
    first: Result<AdminSocket, AdminSocketError>,
    site: Arc<Site>,
    grace: Duration,
) {
    let mut pauses = pauses();
    let mut is_said = false;
    let mut bound = first;
    loop {
        let error = match bound {
            Ok(socket) => {
                if is_said {
                    info!(name: "admin-socket-control-plane-now", path = %path.display(), "the admin socket of this control plane is there now");
                }
                return serve(socket, site, grace).await;
            }
            Err(error) => error,
        };
        if !std::mem::replace(&mut is_said, true) {
            warn!(name: "no-admin-socket-control-plane", %error, "there is no admin socket of this control plane yet; it is tried again until there is one");
        }
        let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
        tokio::select! {
            () = site.stop().cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        bound = AdminSocket::bind(&path);
    }
}

/// Between attempts to make it: without an end of their own, for the site's stop ends them.
fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(SHORTEST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Serves it until the site stops, then finishes the requests under way, for at most `grace`.
pub async fn serve(socket: AdminSocket, site: Arc<Site>, grace: Duration) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, socket.listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = site.stop().cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) if is_admin(&stream) => {
                let site = Arc::clone(&site);
                connections.spawn(async move {
                    let _slot = slot;
                    let origin = Arc::new(Origin::admin());
                    tokio::select! {
                        () = connection::live(stream, origin, &site) => {}
                        () = site.give_up().cancelled() => {}
                    }
                });
            }
            Ok(_) => {}
            Err(error) => {
                warn!(name: "cannot-accept-connections-admin-socket", %error, "cannot accept connections to the admin socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    finish(&connections, &site, grace).await;
}

/// Whether who has connected may do everything. The mode of the file says so as well, but somebody may have changed it.
fn is_admin(stream: &UnixStream) -> bool {
    let uid = match stream.peer_cred() {
        Ok(peer) => peer.uid(),
        Err(error) => {
            warn!(name: "admin-caller-unknown", %error, "closed a connection to the admin socket: who it is cannot be told");
            return false;
        }
    };
    let is_admin = uid == 0 || uid == Uid::effective().as_raw();
    if !is_admin {
        warn!(name: "admin-caller-refused",
            uid,
            "closed a connection to the admin socket: it is for root and the control plane's own user"
        );
    }
    is_admin
}
