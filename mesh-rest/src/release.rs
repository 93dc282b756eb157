//! The end of leases, which operators ask for.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::node_id::NodeId;

/// The body of `POST /api/subnets/release`: what to release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Release {
    /// A subnet of the plan.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.42.1.0/24"))]
    pub subnet: Ipv4Net,
}

/// The answer to it: what was released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Released {
    /// The subnet.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.42.1.0/24"))]
    pub subnet: Ipv4Net,
    /// The node that had it, and is removed; null when it was released before.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub node_id: Option<NodeId>,
    /// The hostname of that node.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub hostname: Option<String>,
}

/// The longest time in [`ReleaseDeparted`], in seconds: ten years.
pub const LONGEST_LEFT_FOR_SECONDS: u64 = 315_576_000;

/// The body of `POST /api/subnets/release-departed`: whose subnets to release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseDeparted {
    /// Only of nodes that left so many seconds ago or longer; otherwise of all that left.
    #[cfg_attr(feature = "openapi", schema(minimum = 0, maximum = 315_576_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_for_seconds: Option<u64>,
}

/// The answer to it: what was released.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AllReleased {
    /// Each subnet, with the node that had it and is removed.
    pub released: Vec<Released>,
}
