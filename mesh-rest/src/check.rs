//! Checks of the ways between all nodes: how one is ordered, what nodes answer, what is told of it.
//!
//! An operator orders one, and is told its id. Every answer to a node names the newest (`quilt-mesh-check`); a node that sees
//! another one than before asks along the ways to its own peers, if it did not do that a moment ago, and tells with its next
//! heartbeat what came of it. Nobody is told whom to ask: the peers are those that the node has anyway.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::node_id::NodeId;

/// The header of answers to nodes that names the newest check, for as long as it is open.
pub const CHECK_HEADER: &str = "quilt-mesh-check";

/// The most peers that one node tells of.
pub const MOST_PEERS: usize = 1024;

/// The most findings of one way that are told.
pub const MOST_FINDINGS: usize = 8;

/// What came of one node's look along the ways to its peers: part of a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct CheckReport {
    /// The check that it is an answer to.
    pub id: String,
    /// Why nothing is known of any way, such as that the runtime is down; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The ways, ordered by subnet.
    #[cfg_attr(feature = "openapi", schema(max_items = 1024))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<WayChecked>,
    /// Peers that were not asked, because there are more than one check asks.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u32,
}

/// What came of asking along the way to one peer. Times are of one round trip, in microseconds, and absent where nothing was
/// answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WayChecked {
    /// The peer's subnet.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.42.2.0/24"))]
    pub subnet: Ipv4Net,
    /// Why nothing is known of this way; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// As containers send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers_us: Option<u32>,
    /// What carried that: `fast`, `kernel`, `mixed`; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried_by: Option<String>,
    /// By the kernel path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_us: Option<u32>,
    /// The peer's host, on the underlay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underlay_us: Option<u32>,
    /// The largest packet of a container that passed whole, in bytes; absent where none did, or it was not looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest: Option<u32>,
    /// How long before the answer the last packet of the peer came, in milliseconds; absent where none ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms: Option<u64>,
    /// What is wrong, the gravest first.
    #[cfg_attr(feature = "openapi", schema(max_items = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<WayFinding>,
}

/// One thing that is wrong with a way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WayFinding {
    /// Its kind's code, see docs/PROBLEMS.md.
    #[cfg_attr(feature = "openapi", schema(example = "vxlan-not-through"))]
    pub code: String,
    /// `error`, `warning` or `notice`.
    pub severity: String,
    /// What was observed, with values.
    pub observed: String,
}

/// The answer to `POST /api/checks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckOrdered {
    /// The check, for `GET /api/checks/{id}`.
    pub id: String,
}

/// The answer to `GET /api/checks/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckState {
    /// The check.
    pub id: String,
    /// Milliseconds since it was ordered.
    pub age_ms: u64,
    /// Whether nodes may still answer.
    pub open: bool,
    /// Every node that was up when it was ordered, and those that answered, ordered by subnet.
    pub nodes: Vec<NodeChecked>,
}

/// What is known of the ways of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeChecked {
    /// The node.
    pub node_id: NodeId,
    /// Its hostname.
    pub hostname: String,
    /// Its address on the underlay.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = "ipv4"))]
    pub host_ip: Ipv4Addr,
    /// Its subnet.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.42.1.0/24"))]
    pub subnet: Ipv4Net,
    /// What it answered; null while it has not.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub answer: Option<CheckReport>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}
