//! Join tokens, as operators see them.

use serde::{Deserialize, Serialize};

/// The longest that a token may hold, in seconds: a year.
pub const LONGEST_TTL_SECONDS: u64 = 366 * 24 * 60 * 60;

/// The most hosts that may join by one token.
pub const MOST_USES: u32 = 100_000;

/// The body of `POST /api/tokens`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// How many hosts may join by it; one, unless told otherwise.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// How long it holds, in seconds; an hour, unless told otherwise.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 31_622_400))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// The hostname, or the id, of the node that it is made for. Whoever brings it is that node from then on; where there is
    /// none of that name when the token is made, a new one that may only register by that name. A name that several nodes
    /// have is refused.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Also where it is the first credential of a cluster, and nodes that are up without any would be shut out by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// The answer: the only time that the token itself is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedToken {
    /// By which it is listed and revoked.
    pub id: String,
    /// The token.
    pub token: String,
    /// Until when it holds, in Unix seconds.
    pub expires_at: i64,
    /// The id of the node that it is made for; absent: it is for none, or there is none of that name, and whoever brings it
    /// is a new node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
}

/// The answer to `GET /api/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenList {
    /// Each token that was made, but for those that ended more than 90 days ago.
    pub tokens: Vec<TokenEntry>,
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenEntry {
    /// By which it is revoked.
    pub id: String,
    /// How many hosts may still join by it.
    pub uses_left: u32,
    /// How many could.
    pub uses: u32,
    /// Until when it holds, in Unix seconds.
    pub expires_at: i64,
    /// The hostname, or the id, of the node that it is made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The id of that node, which whoever brings it will be; absent: there was none of that name when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// When it was made, in Unix seconds.
    pub created_at: i64,
    /// Who made it.
    pub created_by: String,
    /// When it was revoked, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<i64>,
    /// Whether another authority signs than the one that it names: nobody joins by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub worthless: bool,
}
