//! DEL: the container's interface and address go. What is gone already is success, and so is a runtime that is not there.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use mesh_client::{Client, ClientError};
use mesh_ipam::{Owner, Tombstones};

use crate::{
    add::message,
    call::Call,
    failure::{Code, Failure},
    network::Network,
    runtime,
};

/// How long a runtime that does not answer is waited for. Engines wait for DEL when they stop containers.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kernel answers at once, unless somebody holds its network configuration lock.
const KERNEL_DEADLINE: Duration = Duration::from_secs(10);

/// Detaches the container.
pub(crate) async fn del(call: &Call, network: &Network) -> Result<(), Failure> {
    let owner = call.owner(network)?;
    if !is_without_runtime(detach(network, &owner).await)? {
        return Ok(());
    }
    if !without_runtime(network, &owner).await? {
        return Ok(());
    }
    // It may have come back, and looked for word before there was any.
    is_without_runtime(detach(network, &owner).await).map(drop)
}

/// Deletes the interface, and leaves word of it for the runtime. Whether that is left.
pub(crate) async fn without_runtime(network: &Network, owner: &Owner) -> Result<bool, Failure> {
    delete(&owner.link_name()).await.map_err(|reason| {
        Failure::new(
            Code::Io,
            format!(
                "no runtime is there to remove {owner}, and its interface {} cannot be deleted: {reason}",
                owner.link_name()
            ),
        )
    })?;
    if let Err(error) = Tombstones::beside(network.socket()).leave(owner) {
        // The interface is gone. The runtime finds out when the namespace goes.
        eprintln!("quilt-cni: cannot leave word for the runtime that {owner} is gone: {error}");
        return Ok(false);
    }
    Ok(true)
}

async fn detach(network: &Network, owner: &Owner) -> Result<(), ClientError> {
    let mut client: Client = runtime::connect(network, Duration::ZERO).await?;
    tokio::time::timeout(PATIENCE, client.detach(message(owner)))
        .await
        .unwrap_or(Err(ClientError::Silent))
}

/// Whether a call found no runtime, or one that does not answer.
fn is_without_runtime(detached: Result<(), ClientError>) -> Result<bool, Failure> {
    match detached {
        Ok(()) => Ok(false),
        Err(error) => {
            let failure = Failure::from(error);
            match failure.code {
                Code::TryAgain => Ok(true),
                _ => Err(failure),
            }
        }
    }
}

/// Deletes an interface of this host. One that is not there is success.
async fn delete(link: &str) -> Result<(), String> {
    let delete = async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|error| error.to_string())?;
        // It ends with this process.
        tokio::spawn(connection);
        let mut found = handle.link().get().match_name(link.to_owned()).execute();
        let index = match found.try_next().await {
            Ok(Some(message)) => message.header.index,
            Ok(None) => return Ok(()),
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        match handle.link().del(index).execute().await {
            Err(error) if !is_missing(&error) => Err(error.to_string()),
            _ => Ok(()),
        }
    };
    tokio::time::timeout(KERNEL_DEADLINE, delete)
        .await
        .unwrap_or_else(|_| {
            Err(format!(
                "the kernel does not answer within {} s",
                KERNEL_DEADLINE.as_secs()
            ))
        })
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code() == -nix::libc::ENODEV,
        _ => false,
    }
}
