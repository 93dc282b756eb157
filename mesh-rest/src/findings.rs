//! What is not as it should be in the cluster.

use std::borrow::Cow;

use mesh_problems::Finding;
use serde::{Deserialize, Serialize};

use crate::node_id::NodeId;

/// The body of `GET /api/findings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterFindings<'a> {
    /// What the control plane sees, the gravest first.
    pub findings: Vec<Finding>,
    /// The nodes that report something, ordered by subnet.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<NodeFindings<'_>>))]
    pub nodes: Vec<NodeFindings<'a>>,
    /// How many more nodes report something than there is room for here.
    pub nodes_left_out: usize,
    /// What version each node's runtime has, as it told last, ordered by subnet; without those that did not tell.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<NodeVersion<'_>>, required))]
    #[serde(default)]
    pub versions: Vec<NodeVersion<'a>>,
}

/// What a node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeVersion<'a> {
    /// The node's id.
    #[cfg_attr(feature = "openapi", schema(value_type = NodeId))]
    pub node_id: Cow<'a, NodeId>,
    /// The version of its runtime.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "0.1.0"))]
    pub version: Cow<'a, str>,
}

/// What a node reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeFindings<'a> {
    /// The node's id.
    #[cfg_attr(feature = "openapi", schema(value_type = NodeId))]
    pub node_id: Cow<'a, NodeId>,
    /// Its hostname.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub hostname: Cow<'a, str>,
    /// How long ago it reported, in milliseconds.
    pub report_age_ms: u64,
    /// What it found, the gravest first.
    pub findings: Vec<Finding>,
}
