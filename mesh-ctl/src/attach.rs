//! `meshctl attach`.

use anyhow::Context as _;
use mesh_client::{Client, mesh::AttachEndpointRequest};
use serde_json::json;

use crate::{options::Attach, output::say, port::show};

/// Attaches a container, and prints what it has.
pub(crate) async fn attach(client: &mut Client, options: Attach) -> anyhow::Result<()> {
    let container = options.whose.container();
    let netns = match &options.netns {
        // The runtime has another working directory.
        Some(path) => std::path::absolute(path)?,
        None => format!("/run/netns/{container}").into(),
    };
    let network_namespace = netns
        .to_str()
        .with_context(|| format!("--netns {} is not UTF-8", netns.display()))?;
    let ports: Vec<_> = options.publish.into_iter().map(|port| port.0).collect();
    let shown: Vec<String> = ports.iter().map(show).collect();
    let attached = client
        .attach(AttachEndpointRequest {
            owner: Some(options.whose.owner()),
            network_namespace: network_namespace.to_owned(),
            address: options.address,
            mac: options.mac,
            mtu: options.mtu,
            default_route: !options.no_default_route,
            ports,
            names: options.name,
            labels: options.label.into_iter().collect(),
            interface: String::new(),
            ports_held: false,
            moved_by_engine: false,
        })
        .await
        .with_context(|| format!("cannot attach {container}"))?;
    let (endpoint, inside) = (attached.endpoint, attached.inside);
    if options.json {
        let document = json!({
            "container": container,
            "interface": inside.interface,
            "address": inside.address,
            "gateway": inside.gateway,
            "routes": inside.routes,
            "mtu": inside.mtu,
            "mac": inside.mac,
            "host_interface": endpoint.interface,
            "ports": shown,
        });
        return say(format_args!("{document:#}"));
    }
    let published = match shown.is_empty() {
        true => String::new(),
        false => format!(", published {}", shown.join(" ")),
    };
    say(format_args!(
        "{container}: {} on {} via {}, behind {}{published}",
        inside.address, inside.interface, inside.gateway, endpoint.interface
    ))
}
