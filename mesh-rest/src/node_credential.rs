//! Nodes with what they are known by, as operators see them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::node_id::NodeId;

/// Where a node is between joining and leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum MembershipState {
    /// It beats.
    Up,
    /// It is silent.
    Down,
    /// Its agent has stopped, or an operator has taken it down.
    Stopped,
    /// It has left for good.
    Left,
    /// It has a certificate, and has not registered by it, or was removed since.
    Unregistered,
}

/// What a node is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum CredentialState {
    /// Nothing but its key or address, as before there were credentials.
    None,
    /// A certificate of the mesh that holds.
    Valid,
    /// One that has expired; the node renews it when it comes back in time.
    Expired,
    /// One of an authority that is trusted no more: the node joins again by a token.
    Untrusted,
    /// A certificate of an authority of one's own, by the name in it.
    Own,
    /// Nothing any more: it was revoked.
    Revoked,
}

/// The answer to `GET /api/node-credentials`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeCredentialList {
    /// Those that registered, by hostname, and then those that only have a certificate.
    pub nodes: Vec<NodeCredentialEntry>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeCredentialEntry {
    /// Its id.
    pub node_id: NodeId,
    /// Its hostname; of one that has not registered, the only one by which it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its underlay address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "ipv4"))]
    pub host_ip: Option<Ipv4Addr>,
    /// The subnet that it leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub subnet: Option<Ipv4Net>,
    /// Where it is.
    pub state: MembershipState,
    /// When it beat last, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<i64>,
    /// What it is known by.
    pub credential: CredentialState,
    /// Until when its latest certificate of the mesh holds, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// The key of the authority that signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}
