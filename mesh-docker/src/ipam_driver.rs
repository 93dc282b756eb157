//! Docker's calls of an IPAM driver: the addresses are leases of the runtime, which every engine of the node gets its own from.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context as _, bail};
use mesh_client::mesh::ListAddressesResponse;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{calls::Plugin, pool::Node};

/// What Docker calls the space that addresses of a host's own networks are of. It looks for another one's pools in it.
pub(crate) const ADDRESS_SPACE: &str = "quilt";

/// The same of swarm's networks, which there are none of.
const GLOBAL_ADDRESS_SPACE: &str = "quilt-swarm";

/// What kind of address is asked for, and that it is a network's gateway.
const TYPE: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";

/// The MAC address of the container that it is for.
const MAC: &str = "com.docker.network.endpoint.macaddress";

/// The pools' ids are their networks with this before them.
const POOL: &str = "quilt/";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
pub(crate) struct RequestPool {
    pool: String,
    sub_pool: String,
    options: Option<BTreeMap<String, String>>,
    v6: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RequestAddress {
    #[serde(rename = "PoolID")]
    pool_id: String,
    address: String,
    options: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ReleaseAddress {
    address: String,
}

/// What Docker is told of this driver: it says for which MAC address it wants an address, and asks for those that it has once more
/// when it starts.
pub(crate) fn capabilities() -> Value {
    json!({ "RequiresMACAddress": true, "RequiresRequestReplay": true })
}

pub(crate) fn address_spaces() -> Value {
    json!({
        "LocalDefaultAddressSpace": ADDRESS_SPACE,
        "GlobalDefaultAddressSpace": GLOBAL_ADDRESS_SPACE,
    })
}

impl Plugin {
    pub(crate) async fn request_pool(&self, request: RequestPool) -> anyhow::Result<Value> {
        if request.v6 {
            bail!("the mesh is of IPv4: leave --ipv6 out");
        }
        if !request.sub_pool.is_empty() {
            bail!(
                "--ip-range {}: the runtime leases addresses of the whole subnet, and none twice: leave it out",
                short(&request.sub_pool)
            );
        }
        if let Some(name) = request
            .options
            .iter()
            .flatten()
            .map(|(name, _)| name)
            .next()
        {
            bail!(
                "--ipam-opt {}: the IPAM driver quilt has no options",
                short(name)
            );
        }
        let node = self.node().await?;
        let pool = node.pool(&request.pool)?;
        Ok(json!({
            "PoolID": format!("{POOL}{pool}"),
            "Pool": pool.to_string(),
            "Data": { GATEWAY: node.with_prefix(node.gateway).to_string() },
        }))
    }

    pub(crate) async fn request_address(&self, request: RequestAddress) -> anyhow::Result<Value> {
        let RequestAddress {
            pool_id,
            address,
            options,
        } = request;
        let Some(pool) = pool_id.strip_prefix(POOL).filter(|it| !it.is_empty()) else {
            bail!("PoolID {:?} is none that this driver gave", short(&pool_id));
        };
        let wished = read_address(&address)?;
        let options = options.unwrap_or_default();
        let mac = options.get(MAC).map(|it| holder(it)).transpose()?;
        let node = self.node().await?;
        let known = node.pool(pool);
        known.with_context(|| format!("PoolID {:?}", short(&pool_id)))?;
        if options.get(TYPE).is_some_and(|it| it == GATEWAY) {
            let gateway = node.gateway(&address)?;
            return Ok(json!({ "Address": gateway.to_string() }));
        }
        let leased = match (mac, wished) {
            (Some(holder), _) => self.lease(&holder, wished).await?,
            (None, Some(address)) => self.confirm(address).await?,
            (None, None) => {
                self.lease(&format!("{:012x}", rand::random::<u64>() >> 16), None)
                    .await?
            }
        };
        Ok(json!({ "Address": node.with_prefix(leased).to_string() }))
    }

    pub(crate) async fn release_address(&self, request: ReleaseAddress) -> anyhow::Result<Value> {
        let address = read_address(&request.address)?.context("Address is missing")?;
        self.give_back(address).await;
        Ok(json!({}))
    }

    /// What this node leases addresses of, as the runtime says; failing that, as it said last.
    pub(crate) async fn node(&self) -> anyhow::Result<Node> {
        let known = self.records.node();
        match (self.runtime.addresses(known.is_some()).await, known) {
            (Ok(listed), _) => {
                let node = read_node(&listed)?;
                if let Err(error) = self.records.set_node(node) {
                    tracing::warn!(name: "node-subnet-cannot-kept", %error, "the node's subnet cannot be kept");
                }
                Ok(node)
            }
            (Err(_), Some(node)) => Ok(node),
            (Err(error), None) => Err(error.into()),
        }
    }
}

fn read_node(listed: &ListAddressesResponse) -> anyhow::Result<Node> {
    let read = || -> Option<Node> {
        Some(Node {
            subnet: listed.subnet.parse().ok()?,
            gateway: listed.gateway.parse().ok()?,
            cluster: listed.cluster.parse().ok()?,
        })
    };
    read().context("the runtime does not say what it leases addresses of: are runtime and driver of one version?")
}

pub(crate) fn read_address(text: &str) -> anyhow::Result<Option<Ipv4Addr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.parse();
    address
        .map(Some)
        .map_err(|_| anyhow::anyhow!("Address {:?} is not an address of IPv4", short(text)))
}

/// By what the lease of a container with that MAC address is known.
pub(crate) fn holder(mac: &str) -> anyhow::Result<String> {
    let parts: Vec<&str> = mac.split(':').collect();
    let is_byte = |it: &&str| it.len() == 2 && it.bytes().all(|it| it.is_ascii_hexdigit());
    if parts.len() != 6 || !parts.iter().all(is_byte) {
        bail!("MacAddress {:?} is not one of Ethernet", short(mac));
    }
    Ok(parts.concat().to_ascii_lowercase())
}

pub(crate) fn with_colons(holder: &str) -> String {
    let digits: Vec<char> = holder.chars().collect();
    let bytes: Vec<String> = digits.chunks(2).map(|it| it.iter().collect()).collect();
    bytes.join(":")
}

/// The beginning of what somebody wrote, for an error.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(48).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_a_holder_however_it_is_written() {
        assert_eq!(holder("02:42:0A:2a:01:07").unwrap(), "02420a2a0107");
        assert_eq!(with_colons("02420a2a0107"), "02:42:0a:2a:01:07");
        for mac in [
            "",
            "02:42",
            "02:42:0a:2a:01:0g",
            "02420a2a0107",
            "02:42:0a:2a:01:07:08",
        ] {
            assert!(holder(mac).is_err(), "{mac}");
        }
    }
}
