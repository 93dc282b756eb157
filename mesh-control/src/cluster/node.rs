//! A node as the control plane knows it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_rest::node_id::NodeId;
use mesh_rest::status::Status;

/// A new random id (UUID version 4, RFC 9562).
pub fn random_id() -> NodeId {
    NodeId::from(uuid::Uuid::new_v4().to_string())
}

/// What the list says of a node: all of it goes into the entry's etag, and raises the revision when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node's id.
    pub node_id: NodeId,
    /// The name its operator gave the host.
    pub hostname: String,
    /// Its underlay address: where peers send encapsulated packets.
    pub host_ip: Ipv4Addr,
    /// The subnet it leases.
    pub subnet: Ipv4Net,
    /// Processor cores, if the agent told.
    pub cpu_cores: Option<u32>,
    /// Memory in MiB, if the agent told.
    pub ram_mb: Option<u64>,
    /// The largest packet that it takes out of the overlay, in bytes; absent if it has not told.
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
    pub last_heartbeat: i64,
}
