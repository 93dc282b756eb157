//! Leaving for good.

use serde::{Deserialize, Serialize};

/// The body of `POST /api/nodes/{id}/leave`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Leave {
    /// The key that the node registered with: nobody else may let it leave.
    #[cfg_attr(
        feature = "openapi",
        schema(min_length = 1, max_length = 128, pattern = "^[!-~]+$")
    )]
    pub node_key: String,
}
