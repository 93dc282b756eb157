//! ADD: a container gets an interface and an address.

use mesh_client::mesh::AttachEndpointRequest;
use mesh_ipam::NamedLabels;
use mesh_plugin::{AttachError, fitting};
use serde_json::Value;

use crate::{
    attachment,
    call::Call,
    failure::{Code, Failure},
    namespace,
    network::{self, Network},
};

/// Arguments with these beginnings say what the container is, and are kept with its lease.
const LABELS: [&str; 2] = ["K8S_", "NOMAD_"];

/// What Podman and Kubernetes call the container, or its pod.
const NAME: &str = "K8S_POD_NAME";

/// Attaches the container, and returns the result.
pub(crate) async fn add(call: &Call, network: &Network) -> Result<Value, Failure> {
    let interface = call.interface(network)?;
    let seen = namespace::look_into(&call.path()).await?;
    let default_route = network.default_route.unwrap_or(!seen.has_default_route());
    let request = request(call, network, default_route)?;
    let attached = interface.attach(&seen, namespace::naming(), request).await;
    let attached = attached.map_err(|error| match error {
        AttachError::Exists { .. } => Failure::new(
            Code::Exists,
            format!("{error}: DEL it before it is added anew, or name another interface"),
        ),
        other => Failure::from(other),
    })?;
    Ok(attachment::result(network, &call.namespace, &attached))
}

fn request(
    call: &Call,
    network: &Network,
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
        address: wished.map_or_else(String::new, |address| address.to_string()),
        mac: mac.cloned().unwrap_or_default(),
        mtu: network.mtu.unwrap_or_default(),
        default_route,
        names: named.names,
        labels: named.labels.into_iter().collect(),
        ..AttachEndpointRequest::default()
    })
}

/// By what the container is known.
fn named(call: &Call, network: &Network) -> NamedLabels {
    let arguments = call
        .arguments
        .iter()
        .filter(|(key, _)| LABELS.iter().any(|beginning| key.starts_with(beginning)));
    fitting(
        call.arguments.get(NAME).into_iter().chain(&network.aliases),
        arguments.chain(&network.labels),
    )
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
