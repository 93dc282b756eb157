//! What the control planes of a cluster have to agree on, and nodes are told.

use std::fmt;
use std::time::Duration;

use mesh_rest::overlay::Overlay;

/// The options of one control plane, or those that the database has of whoever started last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How nodes send to each other.
    pub overlay: Overlay,
    /// How long a node may be silent; whole milliseconds.
    pub node_timeout: Duration,
}

/// As options.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overlay { vxlan_port, vni } = self.overlay;
        let milliseconds = self.node_timeout.as_millis();
        write!(
            f,
            "--vxlan-port {vxlan_port} --vni {vni} --node-timeout {milliseconds}ms"
        )
    }
}
