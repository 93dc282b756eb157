//! Docker's calls of a network driver: a container's interface is made by the runtime, on the host, and moved by Docker into the
//! container's network namespace, which is not there yet when Docker asks for it.

use std::net::Ipv4Addr;

use anyhow::{Context as _, bail};
use mesh_client::mesh::AttachEndpointRequest;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OwnedMutexGuard;

use crate::{
    calls::Plugin,
    ipam_driver::{holder, short},
    network::{IpamData, Network},
    port::{PortBinding, published},
    record::{Endpoint, Held},
};

/// Docker numbers a container's interfaces behind it.
const PREFIX: &str = "eth";

const PORTS: &str = "com.docker.network.portmap";

/// The labels of a lease by which the runtime shows whose it is.
pub(crate) const NETWORK_LABEL: &str = "docker.network";
pub(crate) const ENDPOINT_LABEL: &str = "docker.endpoint";

/// Docker's ids are 64 hexadecimal digits.
const LONGEST_ID: usize = 64;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    network_id: String,
    options: Option<Map<String, Value>>,
    #[serde(rename = "IPv4Data")]
    ipv4_data: Option<Vec<IpamData>>,
    #[serde(rename = "IPv6Data")]
    ipv6_data: Option<Vec<IpamData>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct OfNetwork {
    #[serde(rename = "NetworkID")]
    network_id: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct OfEndpoint {
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    interface: Option<Interface>,
    sandbox_key: String,
    options: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Interface {
    address: String,
    mac_address: String,
}

/// What Docker is told of this driver: its networks are this host's, and what they reach is not.
pub(crate) fn capabilities() -> Value {
    json!({ "Scope": "local", "ConnectivityScope": "global" })
}

impl Plugin {
    pub(crate) fn create_network(&self, request: CreateNetwork) -> anyhow::Result<Value> {
        let id = checked("NetworkID", &request.network_id)?;
        let network = Network::read(
            &request.options.unwrap_or_default(),
            &request.ipv4_data.unwrap_or_default(),
            &request.ipv6_data.unwrap_or_default(),
        )?;
        if self.records.networks.get(id).as_ref() == Some(&network) {
            return Ok(json!({}));
        }
        let others = self.records.networks.all(|_| true).len();
        self.records.networks.put(id.to_owned(), network)?;
        if others > 0 {
            tracing::warn!(name: "one-more-name-same-mesh",
                network = id,
                others,
                "one more name of the same mesh: containers of all networks of this driver reach each other"
            );
        } else {
            tracing::info!(name: "network-created", network = id, "network created");
        }
        Ok(json!({}))
    }

    pub(crate) fn delete_network(&self, request: &OfNetwork) -> anyhow::Result<Value> {
        let id = checked("NetworkID", &request.network_id)?;
        self.records.networks.remove(&id.to_owned());
        tracing::info!(name: "network-deleted", network = id, "network deleted");
        Ok(json!({}))
    }

    /// Notes which address an endpoint has. Values that Docker gave are not repeated: it takes that for a change.
    pub(crate) async fn create_endpoint(&self, request: &OfEndpoint) -> anyhow::Result<Value> {
        let (network, id) = request.ids()?;
        let interface = request.interface.as_ref();
        let interface = interface.context("Interface is missing")?;
        let (address, _) = interface.address.split_once('/').unwrap_or_default();
        let address = address.parse().with_context(|| {
            let given = short(&interface.address);
            format!("Interface.Address {given:?} is no address with a prefix length")
        })?;
        let holder = holder(&interface.mac_address)?;
        let _turn = self.records.turns.take(&holder).await;
        let held = self.records.held.get(&address);
        let held = held.filter(|held| held.holder == holder && !held.released);
        let Some(held) = held else {
            bail!(
                "{address} is no address that this driver leased to {}: create the network with --ipam-driver quilt too",
                interface.mac_address
            );
        };
        if let Some(other) = held.endpoint.as_ref().filter(|it| it.id != id) {
            bail!("{address} is that of endpoint {} already", other.id);
        }
        if held.endpoint.is_none() {
            let endpoint = Endpoint {
                id: id.to_owned(),
                network: network.to_owned(),
                sandbox: None,
            };
            // From now on an interface may be there.
            let held = Held {
                endpoint: Some(endpoint),
                attached: true,
                ..held
            };
            self.records.held.put(address, held)?;
        }
        Ok(json!({}))
    }

    pub(crate) async fn delete_endpoint(&self, request: &OfEndpoint) -> anyhow::Result<Value> {
        let (_, id) = request.ids()?;
        if let Some((address, held, _turn)) = self.turn_of(id).await {
            let held = Held {
                endpoint: None,
                ..held
            };
            self.undo(address, held).await;
        }
        Ok(json!({}))
    }

    /// Has the interface made, and says where it leads.
    pub(crate) async fn join(&self, request: &OfEndpoint) -> anyhow::Result<Value> {
        let (network, id) = request.ids()?;
        let (address, held, _turn) = self.endpoint(id).await?;
        let sandbox = checked_path(&request.sandbox_key)?;
        let of_same = |it: &Held| {
            let endpoint = it.endpoint.as_ref();
            let is_other = |it: &Endpoint| it.id != id && it.sandbox.as_deref() == Some(sandbox);
            !it.released && endpoint.is_some_and(is_other)
        };
        if let Some((other, _)) = self.records.held.find(of_same) {
            bail!(
                "the container is on the mesh already, with {other}: networks of this driver are names of one mesh, whose containers \
                 all reach each other; leave one of them out"
            );
        }
        let owner = held.owner();
        let owner = owner.with_context(|| format!("{:?} is no holder of a lease", held.holder))?;
        let settings = self.records.networks.get(network).unwrap_or_default();
        let joined = held.endpoint.as_ref().map(|endpoint| Endpoint {
            sandbox: Some(sandbox.to_owned()),
            ..endpoint.clone()
        });
        // Before there is an interface: where nothing can be written there is none.
        if held.endpoint != joined {
            let held = Held {
                endpoint: joined,
                ..held.clone()
            };
            self.records.held.put(address, held)?;
        }
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let wanted = AttachEndpointRequest {
            address: address.to_string(),
            mac: mac(&held.holder),
            mtu: settings.mtu.unwrap_or_default(),
            default_route: true,
            labels: [label(NETWORK_LABEL, network), label(ENDPOINT_LABEL, id)].into(),
            ..AttachEndpointRequest::default()
        };
        let interface = self.runtime.attach(&owner, wanted).await?;
        let routes: Vec<Value> = interface
            .routes
            .iter()
            .filter(|it| *it != "0.0.0.0/0")
            .map(|it| json!({ "Destination": it, "RouteType": 0, "NextHop": interface.gateway }))
            .collect();
        Ok(json!({
            "InterfaceName": { "SrcName": interface.interface, "DstPrefix": PREFIX },
            "Gateway": interface.gateway,
            "StaticRoutes": routes,
        }))
    }

    /// Docker says of one endpoint of a container, that with the default route, by which ports it is reached.
    pub(crate) async fn publish(&self, request: &OfEndpoint) -> anyhow::Result<Value> {
        let (_, id) = request.ids()?;
        let bindings = request.options.as_ref().and_then(|it| it.get(PORTS));
        let bindings: Option<Vec<PortBinding>> = match bindings {
            Some(bindings) => serde_path_to_error::deserialize(bindings)
                .map_err(|error| anyhow::anyhow!("Options.{PORTS} cannot be read: {error}"))?,
            None => None,
        };
        let ports = published(&bindings.unwrap_or_default())?;
        let (_, held, _turn) = self.endpoint(id).await?;
        let owner = held.owner();
        let owner = owner.with_context(|| format!("{:?} is no holder of a lease", held.holder))?;
        self.runtime.publish(&owner, &ports).await?;
        Ok(json!({}))
    }

    pub(crate) async fn unpublish(&self, request: &OfEndpoint) -> anyhow::Result<Value> {
        let (_, id) = request.ids()?;
        if let Some((_, held, _turn)) = self.turn_of(id).await
            && let Some(owner) = held.owner()
        {
            self.runtime.publish(&owner, &[]).await?;
        }
        Ok(json!({}))
    }

    /// What an endpoint has, in its holder's turn; `None` if it has nothing, or nothing any more.
    async fn turn_of(&self, id: &str) -> Option<(Ipv4Addr, Held, OwnedMutexGuard<()>)> {
        let (_, held) = self.records.of_endpoint(id)?;
        let turn = self.records.turns.take(&held.holder).await;
        // Whoever was before may have changed it.
        let (address, held) = self.records.of_endpoint(id)?;
        Some((address, held, turn))
    }

    async fn endpoint(&self, id: &str) -> anyhow::Result<(Ipv4Addr, Held, OwnedMutexGuard<()>)> {
        self.turn_of(id).await.with_context(|| {
            format!(
                "endpoint {id} is not known here any more: stop the container, and start it again"
            )
        })
    }
}

impl OfEndpoint {
    /// Of the network and of the endpoint.
    fn ids(&self) -> anyhow::Result<(&str, &str)> {
        let network = checked("NetworkID", &self.network_id)?;
        Ok((network, checked("EndpointID", &self.endpoint_id)?))
    }
}

/// An id, which is part of a file's name.
fn checked<'a>(name: &str, id: &'a str) -> anyhow::Result<&'a str> {
    let fits =
        (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|it| it.is_ascii_alphanumeric());
    match fits {
        true => Ok(id),
        false => bail!("{name} {:?} is not an id of Docker's", short(id)),
    }
}

fn checked_path(path: &str) -> anyhow::Result<&str> {
    match path.starts_with('/') && path.len() < 4096 {
        true => Ok(path),
        false => bail!("SandboxKey {:?} is no path", short(path)),
    }
}

/// The MAC address of a holder; empty, the runtime's choice, if it is none.
fn mac(holder: &str) -> String {
    let is_mac = holder.len() == 12 && holder.bytes().all(|it| it.is_ascii_hexdigit());
    match is_mac {
        true => crate::ipam_driver::with_colons(holder),
        false => String::new(),
    }
}
