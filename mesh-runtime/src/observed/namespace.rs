//! A container's network namespace, as a call names it: by path.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use mesh_ipam::NetworkNamespace;
use nix::{
    errno::Errno,
    sys::statfs::{NSFS_MAGIC, fstatfs, statfs},
};

/// The longest path (`PATH_MAX` less the terminating zero).
const MAX_PATH: usize = 4095;

mod ioctl {
    //! Of linux/nsfs.h.
    nix::ioctl_none!(get_userns, 0xb7, 0x1);
    nix::ioctl_none!(get_nstype, 0xb7, 0x3);
}

/// Why a path does not lead to a container's network namespace. Each names the value and the rule.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamespaceError {
    #[error("network_namespace is empty: name the container's, such as /run/netns/web")]
    Empty,
    #[error("network_namespace {0:?} is not an absolute path of at most {MAX_PATH} bytes")]
    NotAPath(String),
    #[error(
        "network_namespace {path} cannot be opened: {source}; it has to be there before this call, where \
         the runtime sees it"
    )]
    Open { path: PathBuf, source: io::Error },
    #[error("network_namespace {0} is not a namespace: it is a file of another kind")]
    NotANamespace(PathBuf),
    #[error("network_namespace {0} is a namespace, but not one of networks")]
    NotOfNetworks(PathBuf),
    #[error(
        "network_namespace {0} is this host's own: a container that shares the host's network has its \
         addresses"
    )]
    OwnHost(PathBuf),
    #[error(
        "network_namespace {0} belongs to another user namespace, as those of rootless engines do: run \
         the container as root, or use the engine's own network (pasta, slirp4netns)"
    )]
    OtherUser(PathBuf),
}

/// An open network namespace: it lives at least as long as this.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    named: NetworkNamespace,
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Namespace {
    /// Opens the network namespace that `path` leads to, for the process `caller` where that is known and the kernel lets us
    /// look: an engine may have mounts of its own. Blocks.
    pub(crate) fn open(path: &str, caller: Option<i32>) -> Result<Self, NamespaceError> {
        if path.is_empty() {
            return Err(NamespaceError::Empty);
        }
        if !path.starts_with('/') || path.len() > MAX_PATH || path.contains('\0') {
            return Err(NamespaceError::NotAPath(path.chars().take(64).collect()));
        }
        let path = caller
            .and_then(|pid| seen_by(pid, path))
            .unwrap_or_else(|| PathBuf::from(path));
        let failed = |source| NamespaceError::Open {
            path: path.clone(),
            source,
        };
        // Looked at before it is opened for good: to open a device or a FIFO may do something.
        let seen = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(&path)
            .map_err(failed)?;
        let kind = fstatfs(&seen).map_err(|errno| failed(errno.into()))?;
        if kind.filesystem_type() != NSFS_MAGIC {
            return Err(NamespaceError::NotANamespace(path));
        }
        let file = File::open(format!("/proc/self/fd/{}", seen.as_raw_fd())).map_err(failed)?;
        // SAFETY: the ioctl takes no argument and returns a number.
        let kind = unsafe { ioctl::get_nstype(file.as_raw_fd()) };
        if kind != Ok(libc::CLONE_NEWNET) {
            return Err(NamespaceError::NotOfNetworks(path));
        }
        let own = fs::metadata("/proc/thread-self/ns/net").map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if same(&metadata, &own) {
            return Err(NamespaceError::OwnHost(path));
        }
        let owner = match owner(&file) {
            Ok(owner) => owner,
            // It is beyond our own user namespace, or beside it.
            Err(Errno::EPERM) => return Err(NamespaceError::OtherUser(path)),
            Err(errno) => return Err(failed(errno.into())),
        };
        let own = fs::metadata("/proc/thread-self/ns/user").map_err(failed)?;
        if !same(&owner.metadata().map_err(failed)?, &own) {
            return Err(NamespaceError::OtherUser(path));
        }
        let inode = metadata.ino();
        let named = NetworkNamespace { path, inode };
        Ok(Self { file, named })
    }

    /// This host's own, which no caller can name.
    #[cfg(test)]
    pub(crate) fn own() -> Self {
        let path = PathBuf::from("/proc/self/ns/net");
        let file = File::open(&path).unwrap();
        let inode = file.metadata().unwrap().ino();
        let named = NetworkNamespace { path, inode };
        Self { file, named }
    }

    /// How the caller named it.
    pub(crate) fn path(&self) -> &Path {
        &self.named.path
    }

    /// By what it is known again.
    pub(crate) fn named(&self) -> &NetworkNamespace {
        &self.named
    }
}

/// By what path a process' file is reached, if it is another one than ours of that path.
fn seen_by(pid: i32, path: &str) -> Option<PathBuf> {
    let theirs = PathBuf::from(format!("/proc/{pid}/root{path}"));
    let metadata = fs::metadata(&theirs).ok()?;
    match fs::metadata(path) {
        Ok(ours) if same(&ours, &metadata) => None,
        _ => Some(theirs),
    }
}

/// Whether the path leads to that namespace at the moment, as far as its inode tells. Blocks, for microseconds.
pub(crate) fn is_there(named: &NetworkNamespace) -> bool {
    let is_namespace = || statfs(&named.path).map(|kind| kind.filesystem_type() == NSFS_MAGIC);
    fs::metadata(&named.path).is_ok_and(|it| it.ino() == named.inode)
        && is_namespace().unwrap_or_default()
}

/// The user namespace that a namespace belongs to.
fn owner(namespace: &File) -> Result<File, Errno> {
    // SAFETY: the ioctl takes no argument and returns a new descriptor.
    let descriptor = unsafe { ioctl::get_userns(namespace.as_raw_fd()) }?;
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

fn same(one: &fs::Metadata, another: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (another.dev(), another.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_to_another_namespace_does_not_lead_to_the_named_one() {
        let path = PathBuf::from("/proc/self/ns/net");
        let inode = fs::metadata(&path).unwrap().ino();
        let named = |path: &Path, inode| NetworkNamespace {
            path: path.to_owned(),
            inode,
        };
        assert!(is_there(&named(&path, inode)));
        assert!(!is_there(&named(&path, inode + 1)));
        let file = Path::new("/proc/self/status");
        let its_inode = fs::metadata(file).unwrap().ino();
        assert!(!is_there(&named(file, its_inode)));
        assert!(!is_there(&named(Path::new("/proc/0/ns/net"), inode)));
    }
}
