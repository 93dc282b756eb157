//! What has to be the same on all nodes, so that they understand each other's packets: the
//! control plane's options, which it tells in the answer to a registration and with every list.

use std::fmt;

/// The settings of the cluster's overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Overlay {
    /// The UDP port of VXLAN; never 0.
    pub vxlan_port: u16,
    /// The VXLAN network identifier: 1 to [`LARGEST_VNI`].
    pub vni: u32,
}

/// A VXLAN network identifier has 24 bits (RFC 7348 section 5).
pub const LARGEST_VNI: u32 = 0xff_ffff;

/// The port that IANA gave VXLAN (RFC 7348 section 4), and the VNI that nodes had before there
/// were settings. A control plane from before that tells none: absent is these.
impl Default for Overlay {
    fn default() -> Self {
        Self {
            vxlan_port: 4789,
            vni: 100,
        }
    }
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "VXLAN on UDP port {} with VNI {}",
            self.vxlan_port, self.vni
        )
    }
}

/// Why told settings are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayError {
    /// No UDP port.
    Port(u64),
    /// No VNI.
    Vni(u64),
}

impl fmt::Display for OverlayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "vxlan_port {port} is not one of 1 to 65535"),
            Self::Vni(vni) => write!(f, "vni {vni} is not one of 1 to {LARGEST_VNI}"),
        }
    }
}

impl std::error::Error for OverlayError {}

impl Overlay {
    /// Reads what an answer tells. Each that is absent is as of old.
    ///
    /// # Errors
    /// If one is told that cannot be.
    pub fn told(vxlan_port: Option<u64>, vni: Option<u64>) -> Result<Self, OverlayError> {
        let before = Self::default();
        let vxlan_port = match vxlan_port {
            None => before.vxlan_port,
            Some(port) => u16::try_from(port)
                .ok()
                .filter(|port| *port != 0)
                .ok_or(OverlayError::Port(port))?,
        };
        let vni = match vni {
            None => before.vni,
            Some(vni) => u32::try_from(vni)
                .ok()
                .filter(|vni| (1..=LARGEST_VNI).contains(vni))
                .ok_or(OverlayError::Vni(vni))?,
        };
        Ok(Self { vxlan_port, vni })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_control_plane_that_tells_nothing_means_port_4789_and_vni_100() {
        let overlay = Overlay::told(None, None).unwrap();
        assert_eq!((overlay.vxlan_port, overlay.vni), (4789, 100));
        assert_eq!(overlay.to_string(), "VXLAN on UDP port 4789 with VNI 100");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_value() {
        for (port, vni, words) in [
            (Some(0), None, "vxlan_port 0 "),
            (Some(65_536), None, "vxlan_port 65536 "),
            (Some(8472), Some(0), "vni 0 "),
            (None, Some(1 << 24), "vni 16777216 "),
            (None, Some(u64::MAX), "vni 18446744073709551615 "),
        ] {
            let error = Overlay::told(port, vni).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_can_be_told_is_what_is_read(port in 1..=u16::MAX, vni in 1..=LARGEST_VNI) {
            let told = Overlay::told(Some(port.into()), Some(vni.into()));
            prop_assert_eq!(told, Ok(Overlay { vxlan_port: port, vni }));
        }
    }
}
