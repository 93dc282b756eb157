//! The bridge and the VXLAN device.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_layout::{VNI, VXLAN_PORT, bridge_mac, overlay_mac};

use super::underlay::Underlay;
use crate::{
    ebpf::Mac,
    observed::{Link, LinkKind, Observed, Vxlan},
    problem::Problem,
    settings::{Device, Settings},
    wanted::{
        Wanted,
        subnet::{Cluster, gateway},
    },
};

/// The two devices of a node, as they are to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    /// `None` while another interface has its name.
    pub(crate) bridge: Option<Bridge>,
    /// `None` while nothing says what it should be, or something is in its way.
    pub(crate) overlay: Option<Overlay>,
}

/// The bridge of the containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bridge {
    /// Whether it is this project's, or is to be made. On another's, nothing is set but its address.
    pub(crate) own: bool,
    pub(crate) mac: Mac,
    /// In bytes; `None` while the underlay is not known.
    pub(crate) mtu: Option<u32>,
    /// The gateway's address, with the subnet's prefix length.
    pub(crate) address: Ipv4Net,
    /// Addresses that earlier subnets left on it, with its index: they go.
    pub(crate) stale_addresses: Vec<(u32, Ipv4Net)>,
    /// Ports that a bridge which was deleted leaves behind. Whoever made the containers does not know.
    pub(crate) orphans: Vec<u32>,
}

/// The VXLAN device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlay {
    pub(crate) mac: Mac,
    /// Outer source address and MTU; `None` for one that stays as it is while the underlay is not known.
    pub(crate) underlay: Option<(Ipv4Addr, u32)>,
    /// Index of the one that is there, if it can stay.
    pub(crate) staying: Option<u32>,
}

/// What both devices of a node with `subnet` are to be.
pub(super) fn devices(
    settings: &Settings,
    wanted: &Wanted,
    observed: &Observed,
    subnet: Ipv4Net,
    underlay: Option<&Underlay>,
    problems: &mut Vec<Problem>,
) -> Devices {
    Devices {
        bridge: bridge(settings, wanted, observed, subnet, underlay, problems),
        overlay: overlay(settings, observed, subnet, underlay, problems),
    }
}

fn bridge(
    settings: &Settings,
    wanted: &Wanted,
    observed: &Observed,
    subnet: Ipv4Net,
    underlay: Option<&Underlay>,
    problems: &mut Vec<Problem>,
) -> Option<Bridge> {
    let mut bridge = Bridge {
        own: true,
        mac: bridge_mac(subnet.network().octets()),
        mtu: underlay.map(|underlay| underlay.overlay_mtu),
        address: gateway_in(subnet),
        stale_addresses: Vec::new(),
        orphans: Vec::new(),
    };
    let Some(link) = observed.link_named(&settings.bridge) else {
        let ports = wanted.bridge_ports.iter();
        bridge.orphans = ports
            .filter_map(|port| observed.links.get(port))
            .filter(|link| link.master.is_none())
            .map(|link| link.index)
            .collect();
        return Some(bridge);
    };
    if link.kind != LinkKind::Bridge {
        problems.push(name_taken(Device::Bridge, link, "--bridge"));
        return None;
    }
    bridge.own =
        wanted.own_bridge == Some(link.index) || is_own_bridge_mac(&settings.cluster, link.mac);
    let held = observed
        .addresses
        .iter()
        .filter(|held| held.link == link.index)
        .map(|held| held.address);
    bridge.stale_addresses = held
        .filter(|held| {
            *held != bridge.address
                && *held == gateway_in(held.trunc())
                && settings.cluster.is_node_subnet(held.trunc())
        })
        .map(|held| (link.index, held))
        .collect();
    Some(bridge)
}

fn overlay(
    settings: &Settings,
    observed: &Observed,
    subnet: Ipv4Net,
    underlay: Option<&Underlay>,
    problems: &mut Vec<Problem>,
) -> Option<Overlay> {
    let existing = observed.link_named(&settings.overlay);
    let overlay = |staying| Overlay {
        mac: overlay_mac(subnet.network().octets()),
        underlay: underlay.map(|it| (it.address, it.overlay_mtu)),
        staying,
    };
    if let Some(link) = existing {
        match &link.kind {
            LinkKind::Vxlan(vxlan) if vxlan.vni == VNI => {
                if can_stay(vxlan) || underlay.is_none() {
                    return Some(overlay(Some(link.index)));
                }
            }
            _ => {
                problems.push(name_taken(Device::Overlay, link, "--overlay-interface"));
                return None;
            }
        }
    }
    underlay?;
    if let Some(problem) = port_taken(observed, &settings.overlay) {
        problems.push(problem);
        return None;
    }
    Some(overlay(None))
}

/// Whether the kernel's `vxlan_changelink` can make the device right. Port, lower device,
/// outer checksums and external mode cannot be changed, nor can an address be set where none
/// was.
fn can_stay(vxlan: &Vxlan) -> bool {
    vxlan.port == VXLAN_PORT
        && vxlan.local.is_some()
        && vxlan.lower.is_none()
        && !vxlan.external
        && !vxlan.learning
        && !vxlan.checksum
        && !vxlan.default_remote
}

/// Another VXLAN device with our VNI on our port: the kernel refuses a second one.
fn port_taken(observed: &Observed, overlay: &str) -> Option<Problem> {
    observed.links.values().find_map(|link| match &link.kind {
        LinkKind::Vxlan(vxlan)
            if link.name != overlay && vxlan.vni == VNI && vxlan.port == VXLAN_PORT =>
        {
            Some(Problem::PortTakenByVxlan {
                name: link.name.clone(),
                vni: vxlan.vni,
                port: vxlan.port,
            })
        }
        _ => None,
    })
}

fn name_taken(device: Device, link: &Link, option: &'static str) -> Problem {
    Problem::NameTaken {
        device,
        name: link.name.clone(),
        what: link.kind.describe(),
        option,
    }
}

/// The bridge's address in a subnet, with the subnet's prefix length.
pub(crate) fn gateway_in(subnet: Ipv4Net) -> Ipv4Net {
    // The prefix length is that of a valid network.
    Ipv4Net::new(gateway(subnet), subnet.prefix_len()).unwrap_or(subnet)
}

/// Whether a bridge with this MAC address was made by this project: `02:52` and the address
/// of a subnet of this cluster.
pub(crate) fn is_own_bridge_mac(cluster: &Cluster, mac: Option<Mac>) -> bool {
    subnet_of_mac(cluster, mac, bridge_mac).is_some()
}

/// The subnet from which a MAC address was made, if it was.
pub(crate) fn subnet_of_mac(
    cluster: &Cluster,
    mac: Option<Mac>,
    scheme: fn([u8; 4]) -> Mac,
) -> Option<Ipv4Net> {
    let mac = mac?;
    let [_, _, a, b, c, d] = mac;
    let subnet = Ipv4Net::new([a, b, c, d].into(), cluster.node_prefix).ok()?;
    (cluster.is_node_subnet(subnet) && scheme([a, b, c, d]) == mac).then_some(subnet)
}
