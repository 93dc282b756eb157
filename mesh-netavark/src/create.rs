//! `create`: a network gets what the node has.

use anyhow::bail;
use mesh_client::mesh::ListAddressesRequest;
use mesh_plugin::{RESTART, connect};
use serde_json::{Map, Value, json};

use crate::{ENGINE, network::Network, place, read, short};

/// Keeps Podman from giving addresses by itself, which it does where "host-local" is said, or nothing; what else is said means
/// nothing to it.
const IPAM: &str = "quilt";

/// What a prune spares that is told to (`--filter label!=quilt-mesh`).
const LABEL: &str = "quilt-mesh";

/// Those of Podman, which it asks us for.
const NO_WISH: [&str; 3] = ["", "host-local", "none"];

/// The network as Podman keeps it.
pub(crate) async fn create(input: &[u8]) -> anyhow::Result<Value> {
    let mut written: Map<String, Value> = read(input)?;
    let network: Network = read(input)?;
    network.check()?;
    check(&network)?;
    let socket = network.socket()?;
    place::check(&socket)?;
    let mut client = connect(&socket, RESTART).await?;
    let request = ListAddressesRequest {
        engine: ENGINE.to_owned(),
        network: network.name.clone(),
    };
    let node = client.addresses(request).await?;
    if node.subnet.is_empty() {
        bail!(
            "this node has no subnet yet: it gets one when its agent has joined the mesh; make the network then"
        );
    }
    check_subnets(&network, &node.subnet, &node.gateway)?;
    let subnet = json!({ "subnet": node.subnet, "gateway": node.gateway });
    written.insert("subnets".to_owned(), json!([subnet]));
    // It is netavark's aardvark-dns that would answer, and it is not started for plugins.
    written.insert("dns_enabled".to_owned(), json!(false));
    written.insert("ipam_options".to_owned(), json!({ "driver": IPAM }));
    label(&mut written);
    Ok(written.into())
}

/// Labels it as networks of `quilt-cni` are, so that Podman's prune can spare it: what no container uses would go.
fn label(network: &mut Map<String, Value>) {
    let labels = network.entry("labels").or_insert(Value::Null);
    if labels.is_null() {
        *labels = json!({});
    }
    if let Value::Object(labels) = labels {
        labels.entry(LABEL).or_insert(json!("yes"));
    }
}

/// Refuses what a network of the mesh cannot be.
fn check(network: &Network) -> anyhow::Result<()> {
    if network.internal {
        bail!(
            "--internal: containers of the mesh reach each other on all nodes; without a way out they are with --opt \
             no_default_route=true"
        );
    }
    if network.ipv6_enabled {
        bail!("--ipv6: containers of the mesh have addresses of IPv4 alone");
    }
    if network.routes.iter().flatten().next().is_some() {
        bail!(
            "--route: containers of the mesh have the routes of their node; add others in the container"
        );
    }
    if network
        .network_dns_servers
        .iter()
        .flatten()
        .next()
        .is_some()
    {
        bail!(
            "--dns: netavark serves no names in networks of plugins; give containers their servers with podman run --dns"
        );
    }
    let interface = network.network_interface.iter();
    if let Some(interface) = interface.into_iter().find(|it| !it.is_empty()) {
        bail!(
            "--interface-name {}: the runtime has its bridge already",
            short(interface)
        );
    }
    let driver = network.ipam_options.iter().flatten();
    let driver = driver.into_iter().find(|(name, _)| *name == "driver");
    if let Some((_, driver)) = driver
        && !NO_WISH.contains(&driver.as_str())
        && driver != IPAM
    {
        bail!(
            "--ipam-driver {}: the runtime leases addresses for all engines of this host",
            short(driver)
        );
    }
    Ok(())
}

/// Refuses subnets and gateways that are not the node's.
fn check_subnets(network: &Network, subnet: &str, gateway: &str) -> anyhow::Result<()> {
    for wished in network.subnets.iter().flatten() {
        if wished.subnet != subnet {
            bail!(
                "--subnet {}: this node has {subnet}, and other nodes route that here; leave it out",
                short(&wished.subnet)
            );
        }
        if let Some(wished) = wished
            .gateway
            .as_deref()
            .filter(|it| !it.is_empty() && *it != gateway)
        {
            bail!(
                "--gateway {}: that of {subnet} is {gateway}; leave it out",
                short(wished)
            );
        }
        if wished.lease_range.as_ref().is_some_and(|it| !it.is_null()) {
            bail!(
                "--ip-range: the runtime leases addresses of all of {subnet} to all engines of this host, from one list; leave it \
                 out"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(more: Value) -> Network {
        let mut network = json!({ "name": "mesh" });
        if let (Some(network), Value::Object(more)) = (network.as_object_mut(), more) {
            network.extend(more);
        }
        serde_json::from_value(network).unwrap()
    }

    #[test]
    fn what_a_network_of_the_mesh_cannot_be_is_refused_by_the_option_that_asks_for_it() {
        for (more, option) in [
            (json!({ "internal": true }), "--internal"),
            (json!({ "ipv6_enabled": true }), "--ipv6"),
            (json!({ "routes": [{}] }), "--route"),
            (json!({ "network_dns_servers": ["192.0.2.53"] }), "--dns"),
            (
                json!({ "network_interface": "br0" }),
                "--interface-name br0",
            ),
            (
                json!({ "ipam_options": { "driver": "dhcp" } }),
                "--ipam-driver dhcp",
            ),
        ] {
            let refused = check(&network(more)).unwrap_err().to_string();
            assert!(refused.contains(option), "{refused}");
        }
        let nothing = json!({ "network_interface": "", "routes": [], "ipam_options": { "driver": "host-local" } });
        check(&network(nothing)).unwrap();
    }

    #[test]
    fn a_subnet_is_the_nodes_or_is_refused() {
        let of = |subnets: Value| {
            check_subnets(
                &network(json!({ "subnets": subnets })),
                "10.42.1.0/24",
                "10.42.1.1",
            )
        };
        of(Value::Null).unwrap();
        of(json!([{ "subnet": "10.42.1.0/24", "gateway": "10.42.1.1" }])).unwrap();
        for (subnet, word) in [
            (json!({ "subnet": "10.42.2.0/24" }), "10.42.2.0/24"),
            (
                json!({ "subnet": "10.42.1.0/24", "gateway": "10.42.1.9" }),
                "10.42.1.9",
            ),
            (
                json!({ "subnet": "10.42.1.0/24", "lease_range": { "start_ip": "10.42.1.9" } }),
                "--ip-range",
            ),
        ] {
            let refused = of(json!([subnet])).unwrap_err().to_string();
            assert!(
                refused.contains(word) && refused.contains("leave it"),
                "{refused}"
            );
        }
    }
}
