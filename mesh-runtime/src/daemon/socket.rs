//! The Unix socket on which every call is served, to whoever may make it.

use std::{
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, lchown},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::stat::{Mode, umask},
    unistd::{Gid, Group, geteuid},
};
use tokio::net::UnixListener;
use tonic::{Request, Status, transport::server::UdsConnectInfo};

/// The longest path of a socket: `sun_path` (unix(7)) less the terminating zero.
const MAX_PATH: usize = 107;

/// A socket that is bound. Dropping it removes its file.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    /// Device and inode: what has the name later may be another's.
    file: (u64, u64),
    access: Access,
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

/// Who may call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// The user that this daemon runs as.
    own: u32,
    /// A group whose members may call as well; the kernel asks at connect(2) who is one.
    group: Option<Gid>,
}

impl Socket {
    /// Binds the socket with mode 0600, or 0660 for a group. One that a runtime left behind is
    /// replaced, one that somebody serves is not.
    pub(crate) fn bind(path: &Path, group: Option<Gid>) -> anyhow::Result<(Self, UnixListener)> {
        let shown = path.display();
        if path.as_os_str().as_bytes().len() > MAX_PATH {
            bail!("--socket {shown}: a socket's path has at most {MAX_PATH} bytes");
        }
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("--socket {shown}: cannot make its directory"))?;
        }
        remove_leftover(path)?;
        // From its first moment it is for nobody else. The mask is the process's: what is made beside it in this
        // moment has less rights than it would have, never more.
        let mask = if group.is_some() { 0o117 } else { 0o177 };
        let before = umask(Mode::from_bits_truncate(mask));
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.with_context(|| {
            format!("cannot serve on the socket {shown}: choose another path with --socket")
        })?;
        let socket = Self {
            path: path.to_owned(),
            file: file_of(path).with_context(|| format!("the socket {shown} is gone already"))?,
            access: Access {
                own: geteuid().as_raw(),
                group,
            },
        };
        lchown(path, None, group.map(Gid::as_raw))
            .with_context(|| format!("cannot give the socket {shown} to those who may call"))?;
        if let Some(group) = group {
            warn_of_closed_directories(path, group);
        }
        Ok((socket, listener))
    }

    /// Who may call.
    pub(crate) fn access(&self) -> Access {
        self.access
    }
}

/// Says which directories above a socket keep a group from it.
fn warn_of_closed_directories(path: &Path, group: Gid) {
    let closed = |directory: &&Path| {
        fs::metadata(directory).is_ok_and(|it| {
            let needed = if it.gid() == group.as_raw() {
                0o010
            } else {
                0o001
            };
            it.mode() & needed == 0
        })
    };
    // The first is the socket itself.
    if let Some(directory) = path.ancestors().skip(1).find(closed) {
        tracing::warn!(
            socket = %path.display(),
            "the group of --socket-group cannot reach the socket: {} is closed to it (chmod o+x {0})",
            directory.display()
        );
    }
}

impl Access {
    /// Lets a request through, or says who may make it: a socket's mode can be changed, and its
    /// descriptors are inherited and passed on.
    pub(crate) fn check(self, request: Request<()>) -> Result<Request<()>, Status> {
        let caller = request
            .extensions()
            .get::<UdsConnectInfo>()
            .and_then(|info| info.peer_cred);
        let Some(caller) = caller else {
            return Err(Status::permission_denied(
                "the kernel does not say who is calling",
            ));
        };
        // The kernel translates: root of a user namespace is not root here.
        let uid = caller.uid();
        if uid == 0 || uid == self.own || self.group.is_some() {
            return Ok(request);
        }
        Err(Status::permission_denied(format!(
            "user {uid} may not call: root and user {} may; a group may with --socket-group",
            self.own
        )))
    }
}

/// The group of that name or number.
pub(crate) fn find_group(name: &str) -> anyhow::Result<Gid> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let found = Group::from_name(name).with_context(|| format!("--socket-group {name}"))?;
    match found {
        Some(group) => Ok(group.gid),
        None => bail!("--socket-group {name}: there is no such group on this host"),
    }
}

/// Removes a socket that nobody serves any more.
pub(crate) fn remove_leftover(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("--socket {shown}"))?,
    };
    if !metadata.file_type().is_socket() {
        bail!("--socket {shown} exists and is no socket: remove it, or choose another path");
    }
    if UnixStream::connect(path).is_ok() {
        bail!(
            "another process serves on the socket {shown}: stop it (ss -lxp), or choose another path \
             with --socket"
        );
    }
    fs::remove_file(path).with_context(|| format!("cannot remove the leftover socket {shown}"))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        os::unix::fs::PermissionsExt as _,
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

    fn bind(path: &Path) -> anyhow::Result<(Socket, UnixListener)> {
        let _turn = MASK.lock();
        Socket::bind(path, None)
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
    async fn a_socket_is_for_its_owner_alone_and_goes_with_the_daemon() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("below/runtime.sock");
        let (socket, _listener) = bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
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
    async fn what_is_no_socket_is_left_alone_and_a_path_too_long_is_refused() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        let error = bind(&file).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        let long = dir.path().join("x".repeat(120));
        let error = bind(&long).unwrap_err().to_string();
        assert!(error.contains("at most 107 bytes"), "{error}");
    }

    #[test]
    fn a_group_that_does_not_exist_is_refused_by_name() {
        let error = find_group("no-such-group").unwrap_err();
        assert!(format!("{error:#}").contains("no-such-group"), "{error:#}");
        assert_eq!(find_group("0").unwrap(), Gid::from_raw(0));
    }
}
