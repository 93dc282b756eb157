//! One change to the kernel's network state.

use std::{fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;

use crate::{
    desired::entries::OverlayRoute, ebpf::Mac, headroom::HeadroomChange, settings::Device,
    wanted::node_settings::NodeSettings,
};

/// One change to the kernel's network state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Set `net.ipv4.ip_forward`.
    EnableForwarding,
    /// Delete a device.
    DeleteDevice(Device),
    /// Create the bridge, down.
    CreateBridge { mac: Mac },
    /// Create the VXLAN device, down.
    CreateOverlay {
        mac: Mac,
        mtu: u32,
        local: Ipv4Addr,
        settings: NodeSettings,
    },
    /// Set a device's hardware address.
    SetMac(Device, Mac),
    /// Set a device's MTU.
    SetMtu(Device, u32),
    /// Set the outer source address of the VXLAN device.
    SetLocal(Ipv4Addr),
    /// Bring a device up.
    SetUp(Device),
    /// Make an interface a port of the bridge again.
    Enslave { port: u32 },
    /// Have a device forward and filter loosely, and take no IPv6 routes or addresses from what arrives on it.
    SetSettings(Device),
    /// Give the bridge an address.
    AddAddress(Ipv4Net),
    /// Take an address from the bridge.
    RemoveAddress(Ipv4Net),
    /// Something about the device that asks for headroom.
    Headroom(HeadroomChange),
    /// Add a route to a subnet over the VXLAN device. It fails if there is one already.
    AddRoute(OverlayRoute),
    /// Put a route in the place of one of ours to the same subnet.
    ReplaceRoute(OverlayRoute),
    /// Remove one of our routes.
    RemoveRoute { destination: Ipv4Net, metric: u32 },
    /// Set a permanent neighbour on the VXLAN device.
    SetNeighbour { address: Ipv4Addr, mac: Mac },
    /// Remove a neighbour from the VXLAN device.
    RemoveNeighbour { address: Ipv4Addr },
    /// Forget what the host learnt of a container's address, so that it asks again.
    ForgetContainer { address: Ipv4Addr },
    /// Have the bridge send what is for a container's MAC address to its port alone, and learn it at
    /// no other.
    PinContainer { mac: Mac, port: u32 },
    /// Have the bridge give a port its own frames back: where the host's packet filter sees what its bridges
    /// carry, a container that asks for its own published port is answered over the port that it came by.
    GiveBack { port: u32 },
    /// Have the bridge learn a MAC address again that no container has any more.
    UnpinContainer { mac: Mac, port: u32 },
    /// Set a forwarding entry on the VXLAN device.
    SetForwarding { mac: Mac, remote: Ipv4Addr },
    /// Remove a forwarding entry from the VXLAN device.
    RemoveForwarding { mac: Mac, remote: Option<Ipv4Addr> },
}

/// When a change takes its turn. Changes of one stage do not depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// One after the other: devices, addresses, settings.
    Devices,
    /// What must go before something takes its place.
    RemoveRoutes,
    /// What routes lean on.
    AddNeighbours,
    /// Routes.
    AddRoutes,
    /// What no route leans on any more.
    RemoveNeighbours,
}

impl Change {
    /// When it takes its turn.
    pub(crate) fn stage(&self) -> Stage {
        match self {
            Self::EnableForwarding
            | Self::DeleteDevice(_)
            | Self::CreateBridge { .. }
            | Self::CreateOverlay { .. }
            | Self::SetMac(..)
            | Self::SetMtu(..)
            | Self::SetLocal(_)
            | Self::SetUp(_)
            | Self::SetSettings(_)
            | Self::Enslave { .. }
            | Self::AddAddress(_)
            | Self::RemoveAddress(_)
            | Self::Headroom(_) => Stage::Devices,
            Self::RemoveRoute { .. } => Stage::RemoveRoutes,
            Self::SetNeighbour { .. }
            | Self::SetForwarding { .. }
            | Self::PinContainer { .. }
            | Self::GiveBack { .. } => Stage::AddNeighbours,
            Self::AddRoute(_) | Self::ReplaceRoute(_) => Stage::AddRoutes,
            Self::RemoveNeighbour { .. }
            | Self::RemoveForwarding { .. }
            | Self::UnpinContainer { .. }
            | Self::ForgetContainer { .. } => Stage::RemoveNeighbours,
        }
    }

    /// Whether it needs one of `devices`.
    pub(crate) fn needs_any(&self, devices: &[Device]) -> bool {
        self.device()
            .is_some_and(|device| devices.contains(&device))
    }

    /// Whether nothing can be done with its device once it has failed.
    pub(crate) fn makes_device(&self) -> bool {
        matches!(
            self,
            Self::CreateBridge { .. }
                | Self::CreateOverlay { .. }
                | Self::DeleteDevice(_)
                | Self::SetUp(_)
        )
    }

    /// Whether nothing is missing where it cannot be made.
    pub(crate) fn is_optional(&self) -> bool {
        match self {
            Self::Headroom(change) => !matches!(change, HeadroomChange::Delete { .. }),
            _ => false,
        }
    }

    /// The device it needs, whose failure makes it pointless.
    pub(crate) fn device(&self) -> Option<Device> {
        match self {
            Self::EnableForwarding => None,
            Self::DeleteDevice(device)
            | Self::SetMac(device, _)
            | Self::SetMtu(device, _)
            | Self::SetSettings(device)
            | Self::SetUp(device) => Some(*device),
            Self::CreateBridge { .. }
            | Self::Enslave { .. }
            | Self::AddAddress(_)
            | Self::RemoveAddress(_)
            | Self::ForgetContainer { .. }
            | Self::PinContainer { .. }
            | Self::GiveBack { .. }
            | Self::UnpinContainer { .. }
            | Self::Headroom(_) => Some(Device::Bridge),
            Self::RemoveRoute { .. } => None,
            _ => Some(Device::Overlay),
        }
    }
}

/// Writes a MAC address the usual way.
pub(crate) struct DisplayMac(pub(crate) Mac);

impl fmt::Display for DisplayMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            let colon = if position == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnableForwarding => write!(f, "set net.ipv4.ip_forward to 1"),
            Self::DeleteDevice(device) => write!(f, "delete the {device}"),
            Self::CreateBridge { mac } => write!(f, "create the bridge ({})", DisplayMac(*mac)),
            Self::CreateOverlay {
                mac,
                mtu,
                local,
                settings: NodeSettings { vxlan_port, vni },
            } => write!(
                f,
                "create the overlay interface ({}, MTU {mtu}, local {local}, UDP port {vxlan_port}, \
                 VNI {vni})",
                DisplayMac(*mac)
            ),
            Self::SetMac(device, mac) => {
                write!(f, "set the {device}'s address to {}", DisplayMac(*mac))
            }
            Self::SetMtu(device, mtu) => write!(f, "set the {device}'s MTU to {mtu}"),
            Self::SetLocal(local) => write!(f, "set the overlay interface's local to {local}"),
            Self::SetUp(device) => write!(f, "bring the {device} up"),
            Self::SetSettings(device) => {
                write!(
                    f,
                    "have the {device} forward, filter loosely, and take no IPv6 router's word"
                )
            }
            Self::Enslave { port } => {
                write!(f, "make interface {port} a port of the bridge again")
            }
            Self::AddAddress(address) => write!(f, "add {address} to the bridge"),
            Self::RemoveAddress(address) => write!(f, "remove {address} from the bridge"),
            Self::Headroom(change) => write!(f, "{change}"),
            Self::AddRoute(route) => write!(f, "add the route to {}", route.destination),
            Self::ReplaceRoute(route) => write!(f, "replace the route to {}", route.destination),
            Self::RemoveRoute { destination, .. } => write!(f, "remove the route to {destination}"),
            Self::SetNeighbour { address, mac } => {
                write!(f, "set the neighbour {address} to {}", DisplayMac(*mac))
            }
            Self::RemoveNeighbour { address } => write!(f, "remove the neighbour {address}"),
            Self::ForgetContainer { address } => {
                write!(f, "forget what was learnt of the container {address}")
            }
            Self::PinContainer { mac, port } => {
                write!(
                    f,
                    "pin {} to the port {port} of the bridge",
                    DisplayMac(*mac)
                )
            }
            Self::GiveBack { port } => write!(
                f,
                "have the bridge give the port {port} its own frames back"
            ),
            Self::UnpinContainer { mac, port } => {
                write!(
                    f,
                    "unpin {} from the port {port} of the bridge",
                    DisplayMac(*mac)
                )
            }
            Self::SetForwarding { mac, remote } => {
                write!(
                    f,
                    "set the forwarding entry {} to {remote}",
                    DisplayMac(*mac)
                )
            }
            Self::RemoveForwarding { mac, .. } => {
                write!(f, "remove the forwarding entry {}", DisplayMac(*mac))
            }
        }
    }
}
