//! What a node is told when it registers.
//!
//! The subnet stays text, which the node judges. What is optional here was not told by control planes of earlier
//! versions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    lenient,
    node_id::NodeId,
    overlay::{Overlay, OverlayError},
};

/// What a node is told when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Admitted {
    /// Its id, by which it goes in all further calls.
    pub node_id: NodeId,
    /// The subnet it leases.
    #[cfg_attr(feature = "openapi", schema(example = "10.42.1.0/24"))]
    pub subnet: String,
    /// The UDP port on which all nodes speak VXLAN (`--vxlan-port`).
    #[cfg_attr(
        feature = "openapi",
        schema(value_type = u16, required, minimum = 1, example = 4789)
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan_port: Option<u64>,
    /// The VXLAN network identifier that all nodes use (`--vni`).
    #[cfg_attr(
        feature = "openapi",
        schema(value_type = u32, required, minimum = 1, maximum = 16_777_215, example = 100)
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vni: Option<u64>,
    /// How long the node may be silent before it is down, in milliseconds (`--node-timeout`).
    #[cfg_attr(
        feature = "openapi",
        schema(value_type = u64, required, minimum = 1, example = 30_000)
    )]
    #[serde(
        default,
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub node_timeout_ms: Option<u64>,
    /// How often it shall beat, in milliseconds.
    #[cfg_attr(
        feature = "openapi",
        schema(value_type = u64, required, minimum = 1, example = 10_000)
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval_ms: Option<u64>,
}

impl Admitted {
    /// What all nodes have in common.
    ///
    /// # Errors
    /// If what is told cannot be.
    pub fn overlay(&self) -> Result<Overlay, OverlayError> {
        Overlay::told(self.vxlan_port, self.vni)
    }

    /// How often to beat, if the control plane told.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Option<Duration> {
        self.heartbeat_interval_ms.map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_an_earlier_version_says_what_went_without_saying() {
        let text = r#"{"node_id":"n","subnet":"10.42.1.0/24"}"#;
        let earlier: Admitted = serde_json::from_str(text).unwrap();
        assert_eq!(earlier.overlay(), Ok(Overlay::default()));
        assert_eq!(earlier.heartbeat_interval(), None);
        assert_eq!(serde_json::to_string(&earlier).unwrap(), text);
    }

    #[test]
    fn what_no_node_needs_may_be_anything() {
        let text = r#"{"node_id":"n","subnet":"10.42.1.0/24","node_timeout_ms":"long","zone":7}"#;
        let later: Admitted = serde_json::from_str(text).unwrap();
        assert_eq!(later.node_timeout_ms, None);
    }
}
