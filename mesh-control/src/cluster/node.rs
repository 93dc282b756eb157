//! A node as the control plane knows it.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;
use utoipa::ToSchema;

/// A node's id: handed out at its first registration, the same for ever after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(transparent)]
pub struct NodeId(String);

impl NodeId {
    /// A new random id (UUID version 4, RFC 9562).
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for NodeId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// So that a map keyed by `NodeId` can be asked with the text of a request's path.
impl std::borrow::Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Whether a node's heartbeats arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its last heartbeat is younger than the node timeout.
    Up,
    /// It was silent for the node timeout, its agent was stopped, it left, or it lost its address to
    /// another node.
    Down,
}

impl Status {
    /// The word that stands in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What the list says of a node: all of it goes into the entry's etag, and raises the revision when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Node {
    /// The node's id.
    pub node_id: NodeId,
    /// The name its operator gave the host.
    pub hostname: String,
    /// Its underlay address: where peers send encapsulated packets.
    #[schema(value_type = String, format = "ipv4", example = "192.0.2.11")]
    pub host_ip: Ipv4Addr,
    /// The subnet it leases.
    #[schema(value_type = String, example = "10.42.1.0/24")]
    pub subnet: Ipv4Net,
    /// Processor cores, if the agent told.
    #[schema(required)]
    pub cpu_cores: Option<u32>,
    /// Memory in MiB, if the agent told.
    #[schema(required)]
    pub ram_mb: Option<u64>,
    /// The largest packet that it takes out of the overlay, in bytes; absent if it has not told.
    #[schema(minimum = 68, maximum = 65_535, example = 1450)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay_mtu: Option<u32>,
    /// Whether its heartbeats arrive.
    pub status: Status,
    /// Whether it is down because its agent was stopped, it left, or it lost its address to another
    /// node, and not because it fell silent: no heartbeat brings it back, only a registration.
    pub deregistered: bool,
    /// Whether it is down because it left for good: the other nodes take it out.
    pub left: bool,
    /// Unix seconds of the node's first registration.
    pub registered_at: i64,
    /// Unix seconds of its last heartbeat, as stored. An entry tells the latest.
    #[serde(skip)]
    pub last_heartbeat: i64,
}

/// One entry of `GET /api/nodes`. It is written from a text that all answers share; this is what it is as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeEntry {
    /// What raises the revision when it changes.
    #[serde(flatten)]
    pub node: Node,
    /// Stands for all of the entry but what follows. Whatever it looks like, only the control plane makes it.
    pub etag: String,
    /// Unix seconds of its last heartbeat; a registration counts as one.
    pub last_heartbeat: i64,
    /// Unix seconds at which a copy of its host was held off last, while that goes on; only in the
    /// whole list, and only of the replica that the copy asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_held_off_at: Option<i64>,
}

/// The body of `GET /api/nodes`, ordered by subnet. It is put together from texts; this is what it is as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeList {
    /// Rises with every change of a node other than its `last_heartbeat`, also over restarts.
    pub revision: i64,
    /// Which database `revision` is one of: random, made with the database.
    pub database: String,
    /// Of five fields of these nodes, for agents that know no etags: 16 hexadecimal digits, see `mesh_rest::digest`.
    pub digest: String,
    /// Of the ids and etags of these nodes: 16 hexadecimal digits, see `mesh_rest::proof`.
    pub proof: String,
    /// The UDP port on which all nodes speak VXLAN (`--vxlan-port`).
    #[schema(minimum = 1, example = 4789)]
    pub vxlan_port: u16,
    /// The VXLAN network identifier that all nodes use (`--vni`).
    #[schema(minimum = 1, maximum = 16_777_215, example = 100)]
    pub vni: u32,
    /// Every node that was ever registered and not removed since.
    pub nodes: Vec<NodeEntry>,
}

/// The body of `GET /api/nodes?since=R`: what changed after revision R.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeChanges<'a> {
    /// The revision that the asker has afterwards.
    pub revision: i64,
    /// Which database `revision` is one of.
    pub database: &'a str,
    /// Of five fields of the whole list at `revision`, so that an agent that knows no etags can prove its copy right.
    pub digest: String,
    /// Of the ids and etags of the whole list at `revision`, so that the asker can prove its copy right.
    pub proof: String,
    /// The UDP port on which all nodes speak VXLAN (`--vxlan-port`).
    #[schema(minimum = 1, example = 4789)]
    pub vxlan_port: u16,
    /// The VXLAN network identifier that all nodes use (`--vni`).
    #[schema(minimum = 1, maximum = 16_777_215, example = 100)]
    pub vni: u32,
    /// Whether `nodes` is the whole list, so that whatever else the asker has is gone.
    pub full: bool,
    /// The nodes that changed or are new, or all of them.
    pub nodes: Vec<NodeEntry>,
    /// The ids of nodes that were removed; may name some that the asker never had.
    #[schema(value_type = Vec<NodeId>)]
    pub removed: Vec<&'a NodeId>,
}
