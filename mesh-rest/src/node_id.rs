//! The name that the control plane gave a node.

use std::{borrow::Borrow, fmt};

use serde::{Deserialize, Serialize};

/// A node's id: handed out at its first registration, the same for ever after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct NodeId(String);

impl NodeId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for NodeId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// So that a map keyed by `NodeId` can be asked with the text of a request's path.
impl Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}
