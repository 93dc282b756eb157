//! The subnets of the cluster, for operators.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{node_id::NodeId, status::Status};

/// The body of `GET /api/subnets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubnetList {
    /// The cluster CIDR.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.42.0.0/16"))]
    pub cluster: Ipv4Net,
    /// The prefix length of each node's subnet.
    pub node_prefix: u8,
    /// How many subnets can be leased at all.
    pub total: u32,
    /// How many of them are neither leased nor reserved.
    pub free: u32,
    /// How many nodes lease one.
    pub leased: u32,
    /// How many are reserved.
    pub reserved: u32,
    /// Those that are leased, were released, or are reserved, by address; a reservation is one
    /// entry, however many subnets it has.
    pub subnets: Vec<SubnetEntry>,
}

/// One entry of [`SubnetList`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubnetEntry {
    /// The subnet, or the reserved range.
    pub subnet: String,
    /// Whether it is leased, released or reserved.
    pub state: SubnetState,
    /// Who leases it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_id: Option<NodeId>,
    /// The hostname of who leases it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Whether the heartbeats of who leases it arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Unix seconds at which it was leased last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leased_at: Option<i64>,
    /// Why it is reserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a subnet is that was handed out or reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SubnetState {
    /// A node has it, up or down.
    Leased,
    /// A node had it; it is free.
    Released,
    /// It is not handed out.
    Reserved,
}
