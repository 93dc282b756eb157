//! The REST contract with the control plane, as it is on the wire.
//!
//! Subnets and addresses stay text here: one malformed entry must not make the whole list
//! unreadable. [`crate::peers`] judges them one by one.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;
use mesh_rest::{digest::DigestedNode, mtu::mtu};
use serde::{Deserialize, Deserializer, Serialize};

/// This node, as far as it stays the same while the agent runs.
#[derive(Debug, Clone)]
pub struct NodeDescription {
    /// The node's name, for people.
    pub hostname: String,
    /// Processors available to this process.
    pub cpu_cores: Option<u32>,
    /// Memory of the host in MiB.
    pub ram_mb: Option<u64>,
    /// The node's stable identity. Without one, its address identifies the node.
    pub node_key: Option<String>,
    /// Time between two heartbeats, if the operator gave one.
    pub heartbeat_interval: Option<Duration>,
}

impl NodeDescription {
    /// What registers the node with this address, and the subnet that it had before.
    #[must_use]
    pub fn at(&self, host_ip: Ipv4Addr, subnet: Option<Ipv4Net>) -> RegisterRequest {
        RegisterRequest {
            hostname: self.hostname.clone(),
            host_ip,
            cpu_cores: self.cpu_cores,
            ram_mb: self.ram_mb,
            node_key: self.node_key.clone(),
            subnet,
            overlay_mtu: None,
            heartbeat_interval_ms: self
                .heartbeat_interval
                .map(|interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// Body of `POST /api/nodes/register`.
#[derive(Debug, Clone, Serialize)]
pub struct RegisterRequest {
    /// The node's name, for people.
    pub hostname: String,
    /// The node's address on the underlay.
    pub host_ip: Ipv4Addr,
    /// Processors available to this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<u32>,
    /// Memory of the host in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram_mb: Option<u64>,
    /// The node's stable identity. Without one, `host_ip` identifies the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_key: Option<String>,
    /// The subnet that the node holds already. A control plane that does not know the node,
    /// because its database is new or restored from a backup, leases it this one if nobody
    /// else holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Ipv4Net>,
    /// The MTU of the node's overlay in bytes, if the runtime has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay_mtu: Option<u32>,
    /// The time between its heartbeats in milliseconds, if the operator gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval_ms: Option<u64>,
}

/// Answer to `POST /api/nodes/register`.
#[derive(Debug, Clone, Deserialize)]
pub struct RegisterAnswer {
    /// The name of the node in all further calls.
    pub node_id: String,
    /// The subnet leased to the node.
    pub subnet: String,
    /// The UDP port of VXLAN. Absent, as `vni`, in the answer of a control plane without settings.
    pub vxlan_port: Option<u64>,
    /// The VXLAN network identifier.
    pub vni: Option<u64>,
    /// How often to beat, in milliseconds. Absent in the answer of a control plane that does not tell.
    pub heartbeat_interval_ms: Option<u64>,
}

/// Answer to `GET /api/nodes`: a list, or what changed in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NodesAnswer {
    /// Every node that ever registered, or those that are new or changed.
    pub nodes: Vec<Node>,
    /// Ids of nodes that an operator took out of the cluster.
    #[serde(default)]
    pub removed: Vec<String>,
    /// Rises with every change of the list.
    #[serde(default)]
    pub revision: i64,
    /// Names the database that the revision counts.
    #[serde(default)]
    pub database: String,
    /// The digest of the whole list ([`mesh_rest::digest`]), as text. A control plane that
    /// answers without one has no change feed.
    pub digest: Option<String>,
    /// The proof of the whole list ([`mesh_rest::proof`]), as text, of a control plane that makes etags.
    pub proof: Option<String>,
    /// Whether `nodes` is the whole list. Absent where the whole list was asked for.
    pub full: Option<bool>,
    /// The UDP port of VXLAN. Absent, as `vni`, in the answer of a control plane without settings.
    pub vxlan_port: Option<u64>,
    /// The VXLAN network identifier.
    pub vni: Option<u64>,
}

/// One node as the control plane lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// The control plane's name for the node.
    pub node_id: String,
    /// The node's name, for people.
    #[serde(default)]
    pub hostname: String,
    /// The node's address on the underlay, e.g. "192.0.2.12".
    pub host_ip: String,
    /// The subnet leased to the node, e.g. "10.42.2.0/24".
    pub subnet: String,
    /// Whether the node's heartbeats arrive.
    pub status: Status,
    /// Whether a node that is down left for good. One that just fell silent, or whose agent
    /// was stopped, did not.
    #[serde(default)]
    pub left: bool,
    /// Unix seconds.
    #[serde(default)]
    pub registered_at: i64,
    /// The MTU of its overlay in bytes, if it told. What cannot be one counts as not told.
    #[serde(default, deserialize_with = "told_mtu")]
    pub overlay_mtu: Option<u32>,
    /// What the control plane made of everything that it says of the node, also of what this version does not know.
    pub etag: Option<String>,
}

fn told_mtu<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u32>, D::Error> {
    let told = serde_json::Value::deserialize(value)?;
    Ok(told.as_u64().and_then(mtu))
}

impl Node {
    /// What of the node goes into the digest of the list.
    #[must_use]
    pub fn digested(&self) -> DigestedNode<'_> {
        DigestedNode {
            node_id: &self.node_id,
            hostname: &self.hostname,
            host_ip: &self.host_ip,
            subnet: &self.subnet,
            status: self.status.as_str(),
        }
    }
}

/// Liveness of a node as the control plane sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Status {
    /// Heartbeats arrive.
    Up,
    /// Heartbeats stopped, or the node deregistered.
    Down,
    /// A word this version does not know. It neither adds nor removes a peer.
    Unknown(String),
}

impl From<String> for Status {
    fn from(word: String) -> Self {
        match word.as_str() {
            "up" => Self::Up,
            "down" => Self::Down,
            _ => Self::Unknown(word),
        }
    }
}

impl Status {
    /// The word of the list.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown(word) => word,
        }
    }
}

/// What a successful registration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Counts the registrations of this process, from 1.
    pub epoch: u64,
    /// The name of the node in all further calls; safe as a URL path segment.
    pub node_id: String,
    /// The subnet leased to the node.
    pub subnet: Ipv4Net,
    /// How often to beat, if the control plane told.
    pub heartbeat_interval: Option<Duration>,
}

/// Why a subnet from the network is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not CIDR notation.
    #[error("it is not an IPv4 network in CIDR notation")]
    Notation,
    /// An address inside a network, not the network.
    #[error("it has host bits set; the network is {0}")]
    HostBits(Ipv4Net),
    /// Too large or too small to be one node's containers, or no unicast addresses.
    #[error("it is not a unicast network of /8 to /30")]
    Range,
}

/// Reads a node's subnet, e.g. "10.42.2.0/24".
///
/// # Errors
/// If the text is not a unicast IPv4 network between /8 and /30 without host bits.
pub fn parse_subnet(text: &str) -> Result<Ipv4Net, SubnetError> {
    let net: Ipv4Net = text.parse().map_err(|_| SubnetError::Notation)?;
    if net.trunc() != net {
        return Err(SubnetError::HostBits(net.trunc()));
    }
    let first = net.network();
    let unicast = first.octets()[0] != 0 && first.octets()[0] < 224 && !first.is_loopback();
    if !unicast || !(8..=30).contains(&net.prefix_len()) {
        return Err(SubnetError::Range);
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_a_unicast_network_without_host_bits() {
        assert_eq!(parse_subnet("10.42.2.0/24").map(|n| n.prefix_len()), Ok(24));
        for notation in [
            "",
            "10.42.2.0",
            "10.42.2.0/33",
            "10.42.2/24",
            "fd00::/64",
            "x",
        ] {
            assert_eq!(
                parse_subnet(notation),
                Err(SubnetError::Notation),
                "{notation}"
            );
        }
        assert!(matches!(
            parse_subnet("10.42.2.7/24"),
            Err(SubnetError::HostBits(_))
        ));
        for range in [
            "0.0.0.0/0",
            "10.0.0.0/7",
            "10.42.2.4/31",
            "224.0.0.0/24",
            "127.0.0.0/24",
            "0.0.0.0/24",
        ] {
            assert!(
                matches!(parse_subnet(range), Err(SubnetError::Range)),
                "{range}"
            );
        }
    }

    #[test]
    fn a_list_may_hold_fields_and_words_of_a_later_version() {
        let list: NodesAnswer = serde_json::from_str(
            r#"{"revision": 7, "nodes": [{"node_id": "a", "host_ip": "192.0.2.1",
                "subnet": "10.42.1.0/24", "status": "draining", "zone": "x"}]}"#,
        )
        .unwrap();
        let word = "draining".to_owned();
        assert_eq!(list.nodes[0].status, Status::Unknown(word));
        assert_eq!(list.nodes[0].digested().status, "draining");
        assert!(!list.nodes[0].left);
        assert_eq!((list.digest, list.full), (None, None));
        assert_eq!((list.vxlan_port, list.vni), (None, None));
    }

    #[test]
    fn an_mtu_that_cannot_be_one_is_as_if_it_was_not_told() {
        for (told, expected) in [
            ("1450", Some(1450)),
            ("null", None),
            ("0", None),
            ("65536", None),
            ("-1", None),
            ("1450.5", None),
            (r#""1450""#, None),
            ("[1450]", None),
        ] {
            let node = format!(
                r#"{{"node_id": "a", "host_ip": "192.0.2.1", "subnet": "10.42.1.0/24",
                "status": "up", "overlay_mtu": {told}}}"#
            );
            let node: Node = serde_json::from_str(&node).unwrap();
            assert_eq!(node.overlay_mtu, expected, "{told}");
        }
    }
}
