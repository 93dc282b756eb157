//! The Unix socket on which every call is served, to whoever may make it.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, bail};
use mesh_socket::OpenTo;
use nix::unistd::{Gid, Group, geteuid};
use tokio::net::UnixListener;
use tonic::{Request, Status, transport::server::UdsConnectInfo};

/// The socket, bound.
#[derive(Debug)]
pub(crate) struct Socket {
    _file: mesh_socket::Socket,
    access: Access,
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
        let open_to = group.map_or(OpenTo::Owner, OpenTo::Group);
        let (file, listener) = mesh_socket::Socket::bind(path, open_to)?;
        if let Some(group) = group {
            warn_of_closed_directories(path, group);
        }
        let access = Access {
            own: geteuid().as_raw(),
            group,
        };
        let socket = Self {
            _file: file,
            access,
        };
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
        tracing::warn!(name: "group-socket-group-cannot-reach",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_does_not_exist_is_refused_by_name() {
        let error = find_group("no-such-group").unwrap_err();
        assert!(format!("{error:#}").contains("no-such-group"), "{error:#}");
        assert_eq!(find_group("0").unwrap(), Gid::from_raw(0));
    }
}
