//! The container's network namespace.

use std::{
    env, fs, io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
};

use mesh_client::{InsideError, Seen, look};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::failure::{Code, Failure};

mod ioctl {
    //! Of linux/nsfs.h.
    nix::ioctl_none!(get_nstype, 0xb7, 0x3);
}

/// Looks into the namespace, if it can be a container's.
pub(crate) async fn look_into(path: &Path) -> Result<Seen, Failure> {
    check(path)?;
    look(path).await.map_err(|error| {
        let code = match &error {
            // It is this process that lacks something.
            InsideError::Enter { reason, .. }
                if reason.kind() == io::ErrorKind::PermissionDenied =>
            {
                Code::Io
            }
            InsideError::Enter { .. } => Code::Namespace,
            _ => Code::Io,
        };
        Failure::new(code, error.to_string())
    })
}

/// Whether a path leads to a network namespace that is not this process' own.
fn check(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let failed = |message: String| Failure::new(Code::Namespace, message);
    if !path.is_absolute() {
        return Err(failed(format!(
            "CNI_NETNS {shown} is not an absolute path, such as /run/netns/web"
        )));
    }
    let unreadable = |error: io::Error| {
        let code = match error.kind() {
            // It is this process that lacks something.
            io::ErrorKind::PermissionDenied => Code::Io,
            _ => Code::Namespace,
        };
        Failure::new(code, format!("CNI_NETNS {shown} cannot be opened: {error}"))
    };
    // Before it is opened: that of a FIFO may never end.
    let kind = statfs(path).map_err(|errno| unreadable(errno.into()))?;
    if kind.filesystem_type() != NSFS_MAGIC {
        return Err(failed(format!(
            "CNI_NETNS {shown} is no namespace: the container's is gone, or another file was named"
        )));
    }
    let file = fs::File::open(path).map_err(unreadable)?;
    // SAFETY: the ioctl takes no argument and returns a number.
    let kind = unsafe { ioctl::get_nstype(file.as_raw_fd()) };
    if kind != Ok(nix::libc::CLONE_NEWNET) {
        return Err(failed(format!(
            "CNI_NETNS {shown} is a namespace, but not one of networks"
        )));
    }
    let own = fs::metadata("/proc/self/ns/net").map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let may_be_own =
        env::var("CNI_NETNS_OVERRIDE").is_ok_and(|it| it == "1" || it.eq_ignore_ascii_case("true"));
    if (own.dev(), own.ino()) == (metadata.dev(), metadata.ino()) && !may_be_own {
        return Err(failed(format!(
            "CNI_NETNS {shown} is the namespace that the plugin itself runs in, the host's: a container with the \
             host's network needs no plugin"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_network_namespace_of_a_container_is_refused_as_such() {
        for (path, words) in [
            ("netns", "absolute"),
            ("/run/netns/there/is/none", "cannot be opened"),
            ("/etc/passwd", "no namespace"),
            ("/proc/self/ns/uts", "not one of networks"),
            ("/proc/self/ns/net", "the host's"),
        ] {
            let failure = check(Path::new(path)).unwrap_err();
            assert_eq!(failure.code, Code::Namespace);
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }
}
