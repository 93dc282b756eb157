//! The container's network namespace.

use std::{
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
};

use mesh_client::{InsideError, Seen, look};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

mod ioctl {
    //! Of linux/nsfs.h.
    nix::ioctl_none!(get_nstype, 0xb7, 0x3);
}

/// Why a container's network namespace cannot be looked into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// It cannot be a container's.
    #[error("{0}")]
    Unfit(String),
    /// It is this process that lacks something, or the kernel refuses.
    #[error("{0}")]
    Closed(String),
}

/// How a call names the namespace.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// What the engine calls the path, such as "CNI_NETNS".
    pub called: &'static str,
    /// Whether it may be the plugin's own.
    pub may_be_own: bool,
}

/// Looks into the namespace, if it can be a container's.
///
/// # Errors
///
/// [`NamespaceError`].
pub async fn look_into(path: &Path, naming: Naming) -> Result<Seen, NamespaceError> {
    check(path, naming)?;
    look(path).await.map_err(|error| match &error {
        InsideError::Enter { reason, .. } if reason.kind() != io::ErrorKind::PermissionDenied => {
            NamespaceError::Unfit(error.to_string())
        }
        _ => NamespaceError::Closed(error.to_string()),
    })
}

/// Whether a path leads to a network namespace that is not this process' own.
fn check(path: &Path, naming: Naming) -> Result<(), NamespaceError> {
    let shown = format!("{} {}", naming.called, path.display());
    let unfit = |message: String| NamespaceError::Unfit(format!("{shown} {message}"));
    if !path.is_absolute() {
        return Err(unfit(
            "is not an absolute path, such as /run/netns/web".to_owned(),
        ));
    }
    let unreadable = |error: io::Error| {
        let message = format!("{shown} cannot be opened: {error}");
        match error.kind() {
            io::ErrorKind::PermissionDenied => NamespaceError::Closed(message),
            _ => NamespaceError::Unfit(message),
        }
    };
    // Before it is opened: that of a FIFO may never end.
    let kind = statfs(path).map_err(|errno| unreadable(errno.into()))?;
    if kind.filesystem_type() != NSFS_MAGIC {
        return Err(unfit(
            "is no namespace: the container's is gone, or another file was named".to_owned(),
        ));
    }
    let file = fs::File::open(path).map_err(unreadable)?;
    // SAFETY: the ioctl takes no argument and returns a number.
    let kind = unsafe { ioctl::get_nstype(file.as_raw_fd()) };
    if kind != Ok(nix::libc::CLONE_NEWNET) {
        return Err(unfit("is a namespace, but not one of networks".to_owned()));
    }
    let own = fs::metadata("/proc/self/ns/net").map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if (own.dev(), own.ino()) == (metadata.dev(), metadata.ino()) && !naming.may_be_own {
        return Err(unfit(
            "is the namespace that the plugin itself runs in, the host's: a container with the host's network needs no \
             plugin"
                .to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_network_namespace_of_a_container_is_refused_as_such() {
        let naming = Naming {
            called: "CNI_NETNS",
            may_be_own: false,
        };
        for (path, words) in [
            ("netns", "absolute"),
            ("/run/netns/there/is/none", "cannot be opened"),
            ("/etc/passwd", "no namespace"),
            ("/proc/self/ns/uts", "not one of networks"),
            ("/proc/self/ns/net", "the host's"),
        ] {
            let error = check(Path::new(path), naming).unwrap_err();
            assert!(matches!(error, NamespaceError::Unfit(_)), "{error}");
            let said = error.to_string();
            assert!(
                said.starts_with("CNI_NETNS ") && said.contains(words),
                "{said}"
            );
        }
    }
}
