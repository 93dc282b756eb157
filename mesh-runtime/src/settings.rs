//! What holds for the life of a runtime.

use std::{collections::BTreeSet, fmt};

use ipnet::Ipv4Net;

use crate::{
    headroom,
    options::{FastPathMode, RuntimeOptions},
    wanted::subnet::Cluster,
};

/// Names and networks that hold for the life of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) cluster: Cluster,
    /// Name of the bridge.
    pub(crate) bridge: String,
    /// Name of the VXLAN device.
    pub(crate) overlay: String,
    /// Whether eBPF programs may carry traffic; they guard in any case.
    pub(crate) forwarding: bool,
    /// Networks beyond the underlay whose packets may be routed into containers.
    pub(crate) routed_from: BTreeSet<Ipv4Net>,
    /// Whether containers go out under the address of their host.
    pub(crate) masquerade: bool,
}

impl From<&RuntimeOptions> for Settings {
    fn from(options: &RuntimeOptions) -> Self {
        Self {
            cluster: Cluster::from(options),
            bridge: options.bridge.clone(),
            overlay: options.overlay_interface.clone(),
            forwarding: options.fast_path != FastPathMode::Off,
            routed_from: options.routed_from.iter().copied().collect(),
            masquerade: options.masquerade,
        }
    }
}

impl Settings {
    /// Whether an interface has the name of a device of ours, so that nothing of the underlay is behind it.
    pub(crate) fn is_own(&self, name: &str) -> bool {
        name == self.bridge || name == self.overlay || name == headroom::NAME
    }

    /// Name of a device.
    pub(crate) fn name(&self, device: Device) -> &str {
        match device {
            Device::Bridge => &self.bridge,
            Device::Overlay => &self.overlay,
        }
    }
}

/// One of the two devices this project makes. Changes name the device rather than its
/// index, because one change may create what the next refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Device {
    /// The bridge of the containers.
    Bridge,
    /// The VXLAN device.
    Overlay,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Overlay => "overlay interface",
        })
    }
}
