//! How an interface gets off the mesh. What is gone already is success, and so is a runtime that is not there.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use mesh_client::{ClientError, StatusCode};
use mesh_ipam::{Owner, Tombstones};
use rtnetlink::Handle;

use crate::{Interface, connect, interface::say};

/// How long a runtime that does not answer is waited for. Engines wait for the plugin when they stop containers.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kernel answers at once, unless somebody holds its network configuration lock.
const KERNEL_DEADLINE: Duration = Duration::from_secs(10);

/// Why an interface is still on the mesh.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The runtime refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The kernel does, and no runtime is there.
    #[error(
        "no runtime is there to remove {owner}, and its interface {link} cannot be deleted: {reason}"
    )]
    Kernel {
        /// Whose interface it is.
        owner: String,
        /// The interface on the host.
        link: String,
        /// The kernel's reason.
        reason: String,
    },
    /// The host's interfaces cannot be read.
    #[error("cannot look for {link}: {reason}")]
    Look {
        /// The interface on the host.
        link: String,
        /// The kernel's reason.
        reason: String,
    },
}

impl Interface {
    /// Takes it off the mesh. Without a runtime, word is left for the next one.
    ///
    /// # Errors
    ///
    /// [`DetachError`].
    pub async fn detach(&self) -> Result<(), DetachError> {
        if !is_without_runtime(by_runtime(self).await)? {
            return Ok(());
        }
        if !without_runtime(self).await? {
            return Ok(());
        }
        // It may have come back, and looked for word before there was any.
        is_without_runtime(by_runtime(self).await).map(drop)
    }
}

/// Leaves word for the runtime, and deletes the interface. Whether there is word.
pub(crate) async fn without_runtime(interface: &Interface) -> Result<bool, DetachError> {
    let Interface {
        socket,
        owner,
        namespace,
    } = interface;
    let link = owner.link_name();
    let failed = |reason: String| DetachError::Kernel {
        owner: owner.to_string(),
        link: link.clone(),
        reason,
    };
    let is_there = with_kernel(async |handle| Ok(find(&handle, &link).await?.is_some()));
    let namespace_is_gone = !namespace.as_os_str().is_empty() && !namespace.exists();
    if !is_there.await.map_err(failed)? && namespace_is_gone {
        // The runtime finds that out without a word, if there ever was a lease.
        return Ok(false);
    }
    // Before the interface goes: whoever ends this process in between leaves no lease of nobody's.
    let word = Tombstones::beside(socket).leave(owner);
    let deleted = with_kernel(async |handle| match find(&handle, &link).await? {
        Some(index) => settle(handle.link().del(index).execute().await),
        None => Ok(()),
    });
    deleted.await.map_err(failed)?;
    if let Err(error) = word {
        // The runtime finds out when the namespace goes.
        say(&format!(
            "cannot leave word for the runtime that {owner} is gone: {error}"
        ));
        return Ok(false);
    }
    Ok(true)
}

/// Whether the host has the interface of an owner.
pub(crate) async fn has_link(owner: &Owner) -> Result<bool, DetachError> {
    let link = owner.link_name();
    let found = with_kernel(async |handle| Ok(find(&handle, &link).await?.is_some())).await;
    found.map_err(|reason| DetachError::Look { link, reason })
}

async fn by_runtime(interface: &Interface) -> Result<(), ClientError> {
    let mut client = connect(&interface.socket, Duration::ZERO).await?;
    tokio::time::timeout(PATIENCE, client.detach(interface.message()))
        .await
        .unwrap_or(Err(ClientError::Silent(PATIENCE)))
}

/// Whether a call found no runtime, or one that does not answer.
fn is_without_runtime(detached: Result<(), ClientError>) -> Result<bool, DetachError> {
    let Err(error) = detached else {
        return Ok(false);
    };
    let is_without = match &error {
        ClientError::Connect { reason, .. } => {
            reason.kind() != std::io::ErrorKind::PermissionDenied
        }
        ClientError::Silent(_) | ClientError::NotYet(_) => true,
        ClientError::Failed(status) => !matches!(
            status.code(),
            StatusCode::PermissionDenied | StatusCode::Unimplemented
        ),
        ClientError::Refused(_) | ClientError::Incomplete(_) | ClientError::Inside(_) => false,
    };
    match is_without {
        true => Ok(true),
        false => Err(error.into()),
    }
}

/// Does something by a connection to this host's kernel.
async fn with_kernel<T>(
    work: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>,
) -> Result<T, String> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| error.to_string())?;
    // It ends with this process.
    tokio::spawn(connection);
    match tokio::time::timeout(KERNEL_DEADLINE, work(handle)).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!(
            "the kernel does not answer within {} s",
            KERNEL_DEADLINE.as_secs()
        )),
    }
}

/// Number of an interface of this host.
async fn find(handle: &Handle, link: &str) -> Result<Option<u32>, rtnetlink::Error> {
    let mut found = handle.link().get().match_name(link.to_owned()).execute();
    match found.try_next().await {
        Ok(found) => Ok(found.map(|it| it.header.index)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is gone already is success.
fn settle(deleted: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match deleted {
        Err(error) if is_missing(&error) => Ok(()),
        other => other,
    }
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code() == -nix::libc::ENODEV,
        _ => false,
    }
}
