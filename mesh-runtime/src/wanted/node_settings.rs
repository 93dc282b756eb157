//! What has to be the same on all nodes of a cluster.

use mesh_layout::{VNI, VXLAN_PORT};
use mesh_proto::mesh as wire;

use crate::{headroom, observed::Vxlan};

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
    /// What the device has that makes headroom: the kernel has one for each port and VNI.
    #[error(
        "vxlan_port {port} with vni {vni} is what the device {name} has, which this runtime makes: \
         take another of the two",
        port = headroom::PORT, vni = headroom::VNI, name = headroom::NAME
    )]
    Headroom,
}

impl NodeSettings {
    /// Whether a VXLAN device has them.
    pub(crate) fn are_of(self, device: &Vxlan) -> bool {
        (device.port, device.vni) == (self.vxlan_port, self.vni)
    }

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
        if (port, vni) == (headroom::PORT, headroom::VNI) {
            return Err(SettingsError::Headroom);
        }
        Ok(Self {
            vxlan_port: port,
            vni,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn whatever_else_vxlan_has_room_for_can_be_followed(
            port in 1..=u16::MAX, vni in 1..=LARGEST_VNI,
        ) {
            let settings = NodeSettings { vxlan_port: port, vni };
            let other = (port, vni) != (headroom::PORT, headroom::VNI);
            prop_assert_eq!(read(port.into(), vni).ok(), other.then_some(settings));
        }
    }

    #[test]
    fn settings_that_cannot_be_are_refused_naming_value_and_rule() {
        for (port, vni, value, rule) in [
            (0, 100, "vxlan_port 0", "1 to 65535"),
            (65_536, 100, "vxlan_port 65536", "1 to 65535"),
            (u32::MAX, 100, "vxlan_port 4294967295", "1 to 65535"),
            (4789, 0, "vni 0", "1 to 16777215"),
            (4789, 1 << 24, "vni 16777216", "1 to 16777215"),
            (4790, 16_777_214, "vni 16777214", "quilt-headroom"),
        ] {
            let error = read(port, vni).unwrap_err();
            assert!(error.contains(value) && error.contains(rule), "{error}");
        }
    }
}
