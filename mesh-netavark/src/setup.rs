//! `setup`: a container gets an interface and an address.

use std::path::PathBuf;

use ipnet::Ipv4Net;
use mesh_client::{Attached, mesh::AttachEndpointRequest};
use mesh_plugin::{Naming, fitting, look_into};
use serde_json::{Value, json};

use crate::{container::Container, network::Network, place, port::published};

/// How netavark names a namespace.
const NAMING: Naming = Naming {
    called: "the network namespace",
    may_be_own: false,
};

/// Attaches the container, and returns what it has got.
pub(crate) async fn setup(namespace: PathBuf, input: &[u8]) -> anyhow::Result<Value> {
    let container = Container::read(input)?;
    let interface = container.interface(namespace)?;
    let wished = container.wished()?;
    let ports = published(container.port_mappings.as_deref().unwrap_or_default())?;
    place::check(&interface.socket)?;
    let seen = look_into(&interface.namespace, NAMING).await?;
    let network = &container.network;
    let request = AttachEndpointRequest {
        address: wished.map_or_else(String::new, |address| address.to_string()),
        mac: container.mac(),
        mtu: network.mtu()?,
        // Another network of the container's may have one already.
        default_route: !network.has_no_default_route()? && !seen.has_default_route(),
        ports,
        // Podman listens on them from before this call until the container ends.
        ports_held: true,
        names: fitting(container.names(), []).names,
        ..AttachEndpointRequest::default()
    };
    let attached = interface.attach(&seen, NAMING, request).await?;
    if let Some(other) = other_subnet(network, &attached.inside.address) {
        // Podman refuses an address that is wished by it, and shows it.
        eprintln!(
            "quilt-netavark: network {} says {other}, which is not this node's subnet any more: make the network anew",
            network.name
        );
    }
    Ok(status(&attached))
}

/// The subnet that a network was made with, if the address is of another one.
fn other_subnet<'a>(network: &'a Network, address: &str) -> Option<&'a str> {
    let address: Ipv4Net = address.parse().ok()?;
    let made_with = network.subnets.as_ref()?.first()?.subnet.as_str();
    (made_with != address.trunc().to_string()).then_some(made_with)
}

/// What `podman inspect` shows.
fn status(attached: &Attached) -> Value {
    let inside = &attached.inside;
    let mut interfaces = json!({});
    interfaces[&inside.interface] = json!({
        "mac_address": inside.mac,
        "subnets": [{ "ipnet": inside.address, "gateway": inside.gateway }],
    });
    json!({ "dns_search_domains": [], "dns_server_ips": [], "interfaces": interfaces })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_another_time_is_told_by_its_subnet() {
        let network = |subnets: Value| -> Network {
            serde_json::from_value(json!({ "name": "mesh", "subnets": subnets })).unwrap()
        };
        let made = network(json!([{ "subnet": "10.42.1.0/24" }]));
        assert_eq!(other_subnet(&made, "10.42.1.2/24"), None);
        assert_eq!(other_subnet(&made, "10.42.7.2/24"), Some("10.42.1.0/24"));
        assert_eq!(other_subnet(&network(Value::Null), "10.42.7.2/24"), None);
    }
}
