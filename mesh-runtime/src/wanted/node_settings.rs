//! What has to be the same on all nodes of a cluster.

use mesh_layout::{VNI, VXLAN_PORT};
use mesh_proto::mesh as wire;

/// The settings of this node's overlay, which its peers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeSettings {
    /// The UDP port of VXLAN; never 0.
    pub(crate) vxlan_port: u16,
    /// The VXLAN network identifier, in the host's byte order: 1 to [`LARGEST_VNI`].
    pub(crate) vni: u32,
}

/// A VNI has 24 bits (RFC 7348 section 5).
pub(crate) const LARGEST_VNI: u32 = 0xff_ffff;

/// Settings of an agent that knows of none.
impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            vxlan_port: VXLAN_PORT,
            vni: VNI,
        }
    }
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SettingsError {
    /// No port.
    #[error("vxlan_port {0} is not a UDP port: 1 to 65535")]
    Port(u32),
    /// No VNI.
    #[error("vni {0} is not a VXLAN network identifier: 1 to {LARGEST_VNI}")]
    Vni(u32),
    /// Another port than the programs and rules are made for.
    #[error(
        "vxlan_port {0} is not {VXLAN_PORT}, the only one that this version of quilt-runtime can use"
    )]
    OtherPort(u16),
    /// Another VNI than the programs and rules are made for.
    #[error("vni {0} is not {VNI}, the only one that this version of quilt-runtime can use")]
    OtherVni(u32),
}

impl NodeSettings {
    /// Reads those of a sync. Absent is what a node without settings has.
    ///
    /// # Errors
    /// If this runtime cannot follow them.
    pub(crate) fn read(message: Option<&wire::NodeSettings>) -> Result<Self, SettingsError> {
        let Some(&wire::NodeSettings { vxlan_port, vni }) = message else {
            return Ok(Self::default());
        };
        Self::new(vxlan_port, vni)
    }

    /// Settings that this runtime can follow.
    ///
    /// # Errors
    /// If it cannot.
    pub(crate) fn new(vxlan_port: u32, vni: u32) -> Result<Self, SettingsError> {
        let port = u16::try_from(vxlan_port).map_err(|_| SettingsError::Port(vxlan_port))?;
        if port == 0 {
            return Err(SettingsError::Port(vxlan_port));
        }
        if !(1..=LARGEST_VNI).contains(&vni) {
            return Err(SettingsError::Vni(vni));
        }
        let own = Self::default();
        if port != own.vxlan_port {
            return Err(SettingsError::OtherPort(port));
        }
        if vni != own.vni {
            return Err(SettingsError::OtherVni(vni));
        }
        Ok(Self {
            vxlan_port: port,
            vni,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vxlan_port: u32, vni: u32) -> Result<NodeSettings, String> {
        NodeSettings::read(Some(&wire::NodeSettings { vxlan_port, vni })).map_err(|e| e.to_string())
    }

    #[test]
    fn an_agent_that_knows_of_no_settings_gets_port_4789_and_vni_100() {
        let settings = NodeSettings::read(None).unwrap();
        assert_eq!((settings.vxlan_port, settings.vni), (4789, 100));
        assert_eq!(read(4789, 100), Ok(settings));
    }

    #[test]
    fn settings_that_cannot_be_are_refused_naming_value_and_rule() {
        for (port, vni, value, rule) in [
            (0, 100, "vxlan_port 0", "1 to 65535"),
            (65_536, 100, "vxlan_port 65536", "1 to 65535"),
            (u32::MAX, 100, "vxlan_port 4294967295", "1 to 65535"),
            (4789, 0, "vni 0", "1 to 16777215"),
            (4789, 1 << 24, "vni 16777216", "1 to 16777215"),
        ] {
            let error = read(port, vni).unwrap_err();
            assert!(error.contains(value) && error.contains(rule), "{error}");
        }
    }
}
