//! The Unix socket on which a daemon serves.
//!
//! It is bound with the mode that it shall have from its first moment on, one that a daemon left behind is replaced while
//! one that somebody serves is not, and its file goes with the daemon. The messages call it by its option, `--socket`.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::stat::{Mode, umask},
    unistd::Gid,
};
use tokio::net::UnixListener;

/// The longest path of a socket: `sun_path` (unix(7)) less the terminating zero.
const MAX_PATH: usize = 107;

/// Who may connect, as far as the mode of the socket's file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenTo {
    /// Its owner, and root.
    Owner,
    /// The members of a group as well, whose the file becomes.
    Group(Gid),
    /// Every user of the host.
    Everyone,
}

impl OpenTo {
    /// What the mask of new files takes from the mode 0777 that the kernel gives a socket. The mask is the process's: what is
    /// made beside it in this moment has less rights than it would have, never more, so that who is to be let in by
    /// everybody's rights is let in afterwards.
    fn mask(self) -> Mode {
        Mode::from_bits_truncate(match self {
            Self::Owner | Self::Everyone => 0o177,
            Self::Group(_) => 0o117,
        })
    }
}

/// Why a socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The kernel takes no such path.
    #[error("--socket {}: a socket's path has at most {MAX_PATH} bytes", .0.display())]
    TooLong(PathBuf),
    /// Its directory is not there.
    #[error("--socket {}: cannot make its directory: {reason}", .path.display())]
    Directory {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        reason: io::Error,
    },
    /// Something else has the name.
    #[error("--socket {} exists and is no socket: remove it, or choose another path", .0.display())]
    NoSocket(PathBuf),
    /// Somebody answers there.
    #[error(
        "another process serves on the socket {}: stop it (ss -lxp), or choose another path with --socket", .0.display()
    )]
    Served(PathBuf),
    /// A step failed.
    #[error("cannot {step} the socket {}: {reason}", .path.display())]
    Step {
        /// The socket.
        path: PathBuf,
        /// What was to be done.
        step: &'static str,
        /// The kernel's reason.
        reason: io::Error,
    },
}

/// A socket that is bound. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// Device and inode: what has the name later may be another's.
    file: (u64, u64),
}

impl Drop for Socket {
    fn drop(&mut self) {
        if file_of(&self.path).is_ok_and(|file| file == self.file) {
            // One that cannot be removed is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn file_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Socket {
    /// Binds the socket, and makes its directory. One that a daemon left behind is replaced, one that somebody serves is
    /// not. Within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`SocketError`].
    pub fn bind(path: &Path, open_to: OpenTo) -> Result<(Self, UnixListener), SocketError> {
        if path.as_os_str().as_bytes().len() > MAX_PATH {
            return Err(SocketError::TooLong(path.to_owned()));
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|reason| SocketError::Directory {
                path: path.to_owned(),
                reason,
            })?;
        }
        remove_leftover(path)?;
        let failed = |step| {
            move |reason| SocketError::Step {
                path: path.to_owned(),
                step,
                reason,
            }
        };
        // From its first moment it is for nobody else.
        let before = umask(open_to.mask());
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.map_err(failed("serve on"))?;
        let socket = Self {
            path: path.to_owned(),
            file: file_of(path).map_err(failed("find"))?,
        };
        match open_to {
            OpenTo::Owner => Ok(()),
            OpenTo::Group(group) => lchown(path, None, Some(group.as_raw())),
            OpenTo::Everyone => fs::set_permissions(path, Permissions::from_mode(0o666)),
        }
        .map_err(failed("let in those who may call on"))?;
        Ok((socket, listener))
    }
}

/// Removes a socket that nobody serves any more.
///
/// # Errors
///
/// What is in the way: somebody serves it, or it is no socket.
pub fn remove_leftover(path: &Path) -> Result<(), SocketError> {
    let failed = |step| {
        move |reason| SocketError::Step {
            path: path.to_owned(),
            step,
            reason,
        }
    };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed("look at"))?,
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NoSocket(path.to_owned()));
    }
    if UnixStream::connect(path).is_ok() {
        return Err(SocketError::Served(path.to_owned()));
    }
    fs::remove_file(path).map_err(failed("remove what is left of"))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{
            Mutex,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use tempfile::TempDir;

    use super::*;

    /// The mask of modes is the process's, and tests share one.
    static MASK: Mutex<()> = Mutex::new(());

    fn bind_for(path: &Path, open_to: OpenTo) -> Result<(Socket, UnixListener), SocketError> {
        let _turn = MASK.lock();
        Socket::bind(path, open_to)
    }

    fn bind(path: &Path) -> Result<(Socket, UnixListener), SocketError> {
        bind_for(path, OpenTo::Owner)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_for_others_at_no_moment() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("runtime.sock");
        let ended = AtomicBool::new(false);
        let seen = thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let mut modes = BTreeSet::new();
                while !ended.load(Ordering::Relaxed) {
                    modes.extend(fs::metadata(&path).map(|it| it.permissions().mode() & 0o777));
                }
                modes
            });
            // Each has a moment between its binding and what follows.
            for _ in 0..500 {
                drop(bind(&path).unwrap());
            }
            ended.store(true, Ordering::Relaxed);
            watching.join().unwrap()
        });
        assert_eq!(seen, BTreeSet::from([0o600]));
    }

    #[tokio::test]
    async fn a_socket_is_for_whom_it_is_said_to_be_and_goes_with_the_daemon() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("below/runtime.sock");
        let own = nix::unistd::getegid();
        for (open_to, expected) in [
            (OpenTo::Owner, 0o600),
            (OpenTo::Group(own), 0o660),
            (OpenTo::Everyone, 0o666),
        ] {
            let (socket, _listener) = bind_for(&path, open_to).unwrap();
            assert_eq!(mode(&path), expected, "{open_to:?}");
            drop(socket);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_that_is_served_is_not() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("runtime.sock");
        let (socket, listener) = bind(&path).unwrap();
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.contains("another process serves"), "{error}");
        // As after SIGKILL.
        drop(listener);
        std::mem::forget(socket);
        assert!(path.exists());
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn what_took_the_name_meanwhile_is_left_there() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("runtime.sock");
        let (socket, _listener) = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(socket);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone_and_a_path_too_long_is_refused() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        let error = bind(&file).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        let error = bind(&file.join("below.sock")).unwrap_err().to_string();
        assert!(error.contains("cannot make its directory"), "{error}");
        let long = dir.path().join("x".repeat(120));
        let error = bind(&long).unwrap_err().to_string();
        assert!(error.contains("at most 107 bytes"), "{error}");
    }
}
