//! ADD: a container gets an interface and an address.

use std::collections::BTreeMap;

use mesh_client::{
    Attached, Client, ClientError,
    mesh::{AttachEndpointRequest, ListAddressesRequest, Owner},
};
use mesh_ipam::{MAX_LABELS, MAX_NAMES, NamedLabels};
use serde_json::Value;

use crate::{
    attachment,
    call::Call,
    del,
    failure::{Code, Failure},
    namespace,
    network::{self, Network},
    runtime::{self, RESTART},
};

/// Arguments with these beginnings say what the container is, and are kept with its lease.
const LABELS: [&str; 2] = ["K8S_", "NOMAD_"];

/// What Podman and Kubernetes call the container, or its pod.
const NAME: &str = "K8S_POD_NAME";

/// Attaches the container, and returns the result.
pub(crate) async fn add(call: &Call, network: &Network) -> Result<Value, Failure> {
    let owner = message(&call.owner(network)?);
    let seen = namespace::look_into(&call.path()).await?;
    if seen.interface(&call.interface).is_some() {
        return Err(exists(call));
    }
    let default_route = network.default_route.unwrap_or(!seen.has_default_route());
    let request = request(call, network, owner.clone(), default_route)?;
    let mut client = runtime::connect(network, RESTART).await?;
    if !seen.interfaces.is_empty() {
        check_networks(&mut client, &owner).await?;
    }
    // What was there before is an earlier call's, and not to be undone.
    let had_link = del::has_link(&call.owner(network)?).await?;
    let attached = match attach(&mut client, request).await {
        Err(error) if may_have_begun(&error) && !had_link => {
            undo(call, network, &error).await;
            return Err(error.into());
        }
        attached => attached?,
    };
    if !attached.new {
        return Err(exists(call));
    }
    Ok(attachment::result(network, &call.namespace, &attached))
}

/// Whether a call that failed may have done something.
fn may_have_begun(error: &ClientError) -> bool {
    use mesh_client::StatusCode::{Aborted, FailedPrecondition, PermissionDenied, Unimplemented};
    match error {
        ClientError::Silent => true,
        ClientError::Failed(status) => !matches!(
            status.code(),
            // Another call for the same interface is under way; the others are refused as such.
            Aborted | FailedPrecondition | PermissionDenied | Unimplemented
        ),
        _ => false,
    }
}

/// Undoes what a call may have begun that was not answered: the runtime would, once it is there again, but until then
/// it would be in the way of the next try.
async fn undo(call: &Call, network: &Network, error: &ClientError) {
    let seen = namespace::look_into(&call.path()).await;
    let interface = seen
        .as_ref()
        .ok()
        .and_then(|it| it.interface(&call.interface));
    // It is given an address by whoever was answered, which is another call for the same interface.
    if interface.is_some_and(|it| !it.addresses.is_empty()) {
        return;
    }
    let undone = match error {
        // Nobody waits twice for one that does not answer.
        ClientError::Silent => match call.owner(network) {
            Ok(owner) => del::without_runtime(call, network, &owner).await.map(drop),
            Err(failure) => Err(failure),
        },
        _ => del::del(call, network).await,
    };
    if let Err(left) = undone {
        eprintln!("quilt-cni: what was begun may be left for a moment: {left}");
    }
}

fn exists(call: &Call) -> Failure {
    let Call {
        container,
        namespace,
        interface,
        ..
    } = call;
    Failure::new(
        Code::Exists,
        format!(
            "{interface} of container {container} is in {namespace} already, and stays as it is: DEL it before it is added \
             anew, or name another interface"
        ),
    )
}

/// Attaches, and instead of what an earlier life of the container left: an engine that was killed, or whose host was,
/// calls no DEL for it.
async fn attach(
    client: &mut Client,
    request: AttachEndpointRequest,
) -> Result<Attached, ClientError> {
    let refused = match client.attach(request.clone()).await {
        Err(refused @ ClientError::Refused(_)) => refused,
        other => return other,
    };
    let Some(owner) = request.owner.clone() else {
        return Err(refused);
    };
    match client.lease(&owner).await {
        Ok(Some(lease)) if !lease.leaked.is_empty() => {
            client.detach_if_leaked(owner).await?;
            client.attach(request).await
        }
        // Why it is refused says more than what else failed.
        _ => Err(refused),
    }
}

/// Refuses a container that is in another network of ours: there is one mesh, and whatever its networks are called,
/// their containers reach each other.
async fn check_networks(client: &mut Client, owner: &Owner) -> Result<(), Failure> {
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
        Some(other) => Err(Failure::new(
            Code::Config,
            format!(
                "container {} is in the network {:?} already, on {}: {:?} is another name of the same mesh, whose \
                 containers all reach each other; leave one of them out",
                owner.container, other.network, other.interface, owner.network
            ),
        )),
    }
}

fn request(
    call: &Call,
    network: &Network,
    owner: Owner,
    default_route: bool,
) -> Result<AttachEndpointRequest, Failure> {
    let argument = |name: &str| call.arguments.get(name).filter(|it| !it.is_empty());
    let wished = match (network.wished()?, argument("IP")) {
        (Some(address), _) => Some(address),
        (None, Some(text)) => Some(network::address(text)?),
        (None, None) => None,
    };
    let mac = network.mac.as_ref().or(argument("MAC"));
    let named = named(call, network);
    Ok(AttachEndpointRequest {
        owner: Some(owner),
        network_namespace: call.namespace.clone(),
        address: wished.map_or_else(String::new, |address| address.to_string()),
        mac: mac.cloned().unwrap_or_default(),
        mtu: network.mtu.unwrap_or_default(),
        default_route,
        names: named.names,
        labels: named.labels.into_iter().collect(),
        interface: String::new(),
        ports: Vec::new(),
    })
}

/// By what the container is known. What cannot be a name or a label is left out: engines do not check it, and no
/// container fails to start for it.
fn named(call: &Call, network: &Network) -> NamedLabels {
    let mut kept = NamedLabels::default();
    for name in call.arguments.get(NAME).into_iter().chain(&network.aliases) {
        let one = NamedLabels {
            names: vec![name.clone()],
            labels: BTreeMap::new(),
        };
        if one.check().is_ok() && !kept.names.contains(name) && kept.names.len() < MAX_NAMES {
            kept.names.push(name.clone());
        }
    }
    let arguments = call
        .arguments
        .iter()
        .filter(|(key, _)| LABELS.iter().any(|beginning| key.starts_with(beginning)));
    for (key, value) in arguments.chain(&network.labels) {
        if kept.labels.len() == MAX_LABELS || kept.labels.contains_key(key) {
            continue;
        }
        kept.labels.insert(key.clone(), value.clone());
        if kept.check().is_err() {
            kept.labels.remove(key);
        }
    }
    kept
}

/// An owner, as the runtime is told.
pub(crate) fn message(owner: &mesh_ipam::Owner) -> Owner {
    Owner {
        engine: owner.engine().to_owned(),
        network: owner.network().to_owned(),
        container: owner.container().to_owned(),
        interface: owner.interface().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::version::Version;

    #[test]
    fn what_cannot_be_a_name_or_a_label_is_left_out() {
        let arguments = [
            ("K8S_POD_NAME", "web"),
            ("NOMAD_JOB_ID", "shop"),
            ("IgnoreUnknown", "1"),
            ("NOMAD_BAD", "line\nbreak"),
        ];
        let call = Call {
            arguments: arguments
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..Call::default()
        };
        let labels: Vec<_> = (0..100)
            .map(|number| json!({ "key": format!("label-{number}"), "value": "x".repeat(200) }))
            .collect();
        let config = json!({
            "name": "quilt",
            "engine": "podman",
            "runtimeConfig": { "aliases": { "quilt": ["www", "web", "no name", "größe", ""] } },
            "args": { "cni": { "labels": labels } },
        });
        let network = Network::read(config.to_string().as_bytes(), Version::V1_0_0).unwrap();
        let named = named(&call, &network);
        assert_eq!(named.names, ["web", "www"]);
        assert_eq!(named.labels["NOMAD_JOB_ID"], "shop");
        assert!(!named.labels.contains_key("NOMAD_BAD"));
        assert!(!named.labels.contains_key("IgnoreUnknown"));
        assert!(named.check().is_ok());
    }
}
