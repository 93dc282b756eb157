//! Where the plugin runs: as root, and in the network namespace of the runtime.

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
};

use anyhow::bail;
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};

/// Refuses who cannot put a container on the host's mesh.
pub(crate) fn check(socket: &Path) -> anyhow::Result<()> {
    if is_rootless() {
        bail!(
            "Podman runs without root here, and its containers hang on a network namespace of its own, which the mesh does not \
             reach: run it as root (sudo podman …), or take podman's own networks"
        );
    }
    if is_elsewhere(socket) {
        bail!(
            "the runtime behind {} is in another network namespace than Podman: run both in the host's",
            socket.display()
        );
    }
    Ok(())
}

/// Whether root here is another user outside, or this is not root.
pub(crate) fn is_rootless() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !geteuid().is_root() || !is_root_outside(&map)
}

/// Whether user 0 is user 0 of the namespace around this one (user_namespaces(7)).
fn is_root_outside(map: &str) -> bool {
    // Without user namespaces there is no map.
    map.is_empty()
        || map.lines().any(|line| {
            let mut numbers = line.split_whitespace();
            numbers.next() == Some("0") && numbers.next() == Some("0")
        })
}

/// Whether the runtime is known to be in another network namespace. Where nobody serves, or it cannot be seen, it is not.
fn is_elsewhere(socket: &Path) -> bool {
    let peer = || {
        let stream = UnixStream::connect(socket).ok()?;
        let process = getsockopt(&stream, PeerCredentials).ok()?.pid();
        // 0 is nobody's: one of another process namespace.
        (process > 0).then_some(process)
    };
    let of = |process: &str| {
        let namespace = fs::metadata(format!("/proc/{process}/ns/net")).ok()?;
        Some((namespace.dev(), namespace.ino()))
    };
    match peer().and_then(|process| of(&process.to_string())) {
        Some(theirs) => of("self").is_some_and(|own| own != theirs),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_of_a_users_own_namespace_is_not_the_hosts() {
        assert!(is_root_outside("         0          0 4294967295\n"));
        assert!(
            is_root_outside("         0          0      65536\n"),
            "a container of root's"
        );
        assert!(!is_root_outside(
            "         0       1000          1\n         1     100000      65536\n"
        ));
        assert!(!is_root_outside("      1000       1000          1\n"));
        assert!(is_root_outside(""));
    }
}
