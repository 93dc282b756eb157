//! Ranges that are kept from being handed out, which operators ask for.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// The longest reason of a reservation, in characters.
pub const LONGEST_REASON: usize = 256;

/// The body of `POST /api/subnets/reserve`: what to reserve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reserve {
    /// One or more whole subnets of the plan.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.42.128.0/17"))]
    pub cidr: Ipv4Net,
    /// What for.
    #[cfg_attr(feature = "openapi", schema(max_length = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The body of `POST /api/subnets/unreserve`: what to hand out again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unreserve {
    /// Exactly what was reserved.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.42.128.0/17"))]
    pub cidr: Ipv4Net,
}
