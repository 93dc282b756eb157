//! How an interface gets on the mesh.

use std::{fs, io, time::Duration};

use backon::{ExponentialBuilder, Retryable as _};
use mesh_client::{
    Attached, Client, ClientError, Seen,
    mesh::{AttachEndpointRequest, ListAddressesRequest, Owner},
};

use crate::{
    DetachError, Interface, NamespaceError, Naming, RESTART, connect,
    detach::{has_link, without_runtime},
    interface::say,
    look_into,
};

/// How long the end of a container's earlier life is waited for: the kernel ends namespaces one after the other.
const ENDING: Duration = Duration::from_secs(5);

/// Why an interface is not on the mesh. What was begun is undone.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The runtime, or what is done inside the container.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An interface of that name is there, and stays as it is.
    #[error("{interface} of container {container} is in {namespace} already, and stays as it is")]
    Exists {
        /// The interface.
        interface: String,
        /// The container's id.
        container: String,
        /// Its namespace.
        namespace: String,
    },
    /// There is one mesh, and whatever its networks are called, their containers reach each other.
    #[error(
        "container {container} is in the network {network:?} already, on {interface}: {wanted:?} is another name of the same \
         mesh, whose containers all reach each other; leave one of them out"
    )]
    OtherNetwork {
        /// The container's id.
        container: String,
        /// Where it is already.
        network: String,
        /// By this interface.
        interface: String,
        /// What it is to be in as well.
        wanted: String,
    },
    /// The host's interfaces cannot be read.
    #[error(transparent)]
    Host(#[from] DetachError),
}

impl Interface {
    /// Attaches it, where its namespace shows this. Owner and namespace of the request are filled in.
    ///
    /// # Errors
    ///
    /// [`AttachError`].
    pub async fn attach(
        &self,
        seen: &Seen,
        naming: Naming,
        mut request: AttachEndpointRequest,
    ) -> Result<Attached, AttachError> {
        let owner = self.message();
        if seen.interface(&owner.interface).is_some() {
            return Err(self.exists());
        }
        request.owner = Some(owner.clone());
        request.network_namespace = self.namespace.display().to_string();
        let mut client = connect(&self.socket, RESTART).await?;
        if !seen.interfaces.is_empty() {
            check_networks(&mut client, &owner).await?;
        }
        // What was there before is an earlier call's, and not to be undone.
        let had_link = has_link(&self.owner).await?;
        let attached = match attach(&client, request).await {
            Err(error) if may_have_begun(&error) && !had_link => {
                self.undo(naming, &error).await;
                return Err(error.into());
            }
            attached => attached?,
        };
        match attached.new {
            true => Ok(attached),
            false => Err(self.exists()),
        }
    }

    fn exists(&self) -> AttachError {
        AttachError::Exists {
            interface: self.owner.interface().to_owned(),
            container: self.owner.container().to_owned(),
            namespace: self.namespace.display().to_string(),
        }
    }

    /// Undoes what a call may have begun that was not answered: the runtime would, once it is there again, but until then
    /// it would be in the way of the next try.
    async fn undo(&self, naming: Naming, error: &ClientError) {
        let seen: Result<Seen, NamespaceError> = look_into(&self.namespace, naming).await;
        let interface = seen.as_ref().ok();
        let interface = interface.and_then(|it| it.interface(self.owner.interface()));
        // It is given an address by whoever was answered, which is another call for the same interface.
        if interface.is_some_and(|it| !it.addresses.is_empty()) {
            return;
        }
        let undone = match error {
            // Nobody waits twice for one that does not answer.
            ClientError::Silent(_) => without_runtime(self).await.map(drop),
            _ => self.detach().await,
        };
        if let Err(left) = undone {
            say(&format!("what was begun may be left for a moment: {left}"));
        }
    }
}

/// Whether a call that failed may have done something.
fn may_have_begun(error: &ClientError) -> bool {
    use mesh_client::StatusCode::{Aborted, FailedPrecondition, PermissionDenied, Unimplemented};
    match error {
        ClientError::Silent(_) => true,
        ClientError::Failed(status) => !matches!(
            status.code(),
            // Another call for the same interface is under way; the others are refused as such.
            Aborted | FailedPrecondition | PermissionDenied | Unimplemented
        ),
        _ => false,
    }
}

/// Why one try to attach failed.
#[derive(Debug)]
enum Attempt {
    /// An earlier life of the container is in the way, which is about to end.
    Ending(ClientError),
    /// Anything else.
    Failed(ClientError),
}

/// Attaches, and waits for the end of what an earlier life of the container left.
async fn attach(client: &Client, request: AttachEndpointRequest) -> Result<Attached, ClientError> {
    let tries = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_millis(200))
        .without_max_times()
        .with_total_delay(Some(ENDING))
        .with_jitter();
    let attempt = || attach_once(client.clone(), request.clone());
    let attached = attempt
        .retry(tries)
        .when(|error| matches!(error, Attempt::Ending(_)))
        .await;
    attached.map_err(|(Attempt::Ending(error) | Attempt::Failed(error))| error)
}

/// Attaches, and instead of what an earlier life of the container left: an engine that was killed, or whose host was,
/// takes nothing off.
async fn attach_once(
    mut client: Client,
    request: AttachEndpointRequest,
) -> Result<Attached, Attempt> {
    let refused = match client.attach(request.clone()).await {
        Err(refused @ ClientError::Refused(_)) => refused,
        other => return other.map_err(Attempt::Failed),
    };
    let Some(owner) = request.owner.clone() else {
        return Err(Attempt::Failed(refused));
    };
    match client.lease(&owner).await {
        Ok(Some(lease)) if !lease.leaked.is_empty() => {
            let freed = client.detach_if_leaked(owner).await;
            freed.map_err(Attempt::Failed)?;
            client.attach(request).await.map_err(Attempt::Failed)
        }
        Ok(Some(lease)) if is_ending(&lease.network_namespace, &request) => {
            Err(Attempt::Ending(refused))
        }
        // Why it is refused says more than what else failed.
        _ => Err(Attempt::Failed(refused)),
    }
}

/// Whether a namespace that is not the one asked for has lost its name. The kernel takes a moment to end it, when its last
/// process has. A lease without one is not about to end, nor is one whose path cannot be looked at.
fn is_ending(namespace: &str, request: &AttachEndpointRequest) -> bool {
    let namespace = as_seen_here(namespace);
    let is_gone = || {
        let found = fs::metadata(namespace);
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    !namespace.is_empty() && namespace != request.network_namespace && is_gone()
}

/// The path by which this plugin's engine knows a namespace. Where the runtime's file systems are others than the engine's, it
/// notes the path through a plugin's process (`/proc/4711/root/run/netns/web`), which has ended by now.
fn as_seen_here(namespace: &str) -> &str {
    let through_process = || {
        let (process, path) = namespace.strip_prefix("/proc/")?.split_once("/root/")?;
        let is_number = process.bytes().all(|it| it.is_ascii_digit());
        // With the separator.
        is_number.then(|| &namespace[namespace.len() - path.len() - 1..])
    };
    through_process().unwrap_or(namespace)
}

/// Refuses a container that is in another network of ours.
async fn check_networks(client: &mut Client, owner: &Owner) -> Result<(), AttachError> {
    let listed = client
        .addresses(ListAddressesRequest {
            engine: owner.engine.clone(),
            network: String::new(),
        })
        .await?;
    let mut owners = listed
        .leases
        .iter()
        .filter(|lease| lease.leaked.is_empty())
        .filter_map(|lease| lease.owner.as_ref());
    let other = owners.find(|it| it.container == owner.container && it.network != owner.network);
    match other {
        None => Ok(()),
        Some(other) => Err(AttachError::OtherNetwork {
            container: owner.container.clone(),
            network: other.network.clone(),
            interface: other.interface.clone(),
            wanted: owner.network.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_ending_that_has_lost_its_name_and_nothing_else_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("there"), "").unwrap();
        let request = AttachEndpointRequest {
            network_namespace: path("wanted"),
            ..AttachEndpointRequest::default()
        };
        assert!(is_ending(&path("gone"), &request));
        let through = |name: &str| format!("/proc/4194305/root{}", path(name));
        assert!(is_ending(&through("gone"), &request));
        // A path through a file cannot be looked at, and one that is too long.
        for alive in [
            String::new(),
            path("there"),
            through("there"),
            path("wanted"),
            through("wanted"),
            path("there/below"),
            format!("/{}", "x".repeat(5000)),
        ] {
            assert!(!is_ending(&alive, &request), "{alive:.80}");
        }
        assert_eq!(as_seen_here("/proc/4711/ns/net"), "/proc/4711/ns/net");
    }
}
