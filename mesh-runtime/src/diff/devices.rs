//! The bridge and the VXLAN device.

use ipnet::Ipv4Net;
use mesh_layout::{VNI, VXLAN_PORT, bridge_mac, overlay_mac};

use super::{
    Plan,
    change::{Change, Device},
};
use crate::{
    desired::underlay::Underlay,
    ebpf::Mac,
    headroom,
    observed::{Link, LinkKind, Observed, Vxlan},
    problem::Problem,
    settings::Settings,
    wanted::{
        Wanted,
        subnet::{Cluster, gateway},
    },
};

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

/// Plans the bridge and its address. Returns the addresses that earlier subnets left on it,
/// which the plan removes; `None` if there will be no bridge.
pub(super) fn plan_bridge(
    settings: &Settings,
    wanted: &Wanted,
    observed: &Observed,
    subnet: Ipv4Net,
    plan: &mut Plan,
) -> Option<Vec<(u32, Ipv4Net)>> {
    let mac = bridge_mac(subnet.network().octets());
    let mtu = plan.underlay.as_ref().map(|underlay| underlay.overlay_mtu);
    let address = gateway_in(subnet);
    let Some(link) = observed.link_named(&settings.bridge) else {
        plan.changes.push(Change::CreateBridge { mac });
        // Not in the message that creates it: only an MTU that is set on the finished bridge
        // keeps the kernel from following the MTU of each new port (br_mtu_auto_adjust).
        plan.changes
            .extend(mtu.map(|mtu| Change::SetMtu(Device::Bridge, mtu)));
        plan.changes
            .push(Change::DistrustNeighbours(Device::Bridge));
        plan.changes.push(Change::SetUp(Device::Bridge));
        plan.changes.push(Change::AddAddress(address));
        // Whoever made the containers does not know that their bridge was deleted.
        let orphans = wanted
            .bridge_ports
            .iter()
            .filter_map(|port| observed.links.get(port));
        plan.changes.extend(
            orphans
                .filter(|link| link.master.is_none())
                .map(|link| Change::Enslave { port: link.index }),
        );
        plan_headroom(observed, None, mtu, plan);
        return Some(Vec::new());
    };
    if link.kind != LinkKind::Bridge {
        plan.problems
            .push(name_taken(Device::Bridge, link, "--bridge"));
        return None;
    }
    let ours =
        wanted.own_bridge == Some(link.index) || is_own_bridge_mac(&settings.cluster, link.mac);
    if ours {
        if link.mac != Some(mac) {
            plan.changes.push(Change::SetMac(Device::Bridge, mac));
        }
        if let Some(mtu) = mtu
            && link.mtu != mtu
        {
            plan.changes.push(Change::SetMtu(Device::Bridge, mtu));
        }
        plan_trust(observed, Device::Bridge, plan);
        plan_headroom(observed, Some(link.index), mtu, plan);
    }
    if !link.up {
        plan.changes.push(Change::SetUp(Device::Bridge));
    }
    let held: Vec<Ipv4Net> = observed
        .addresses
        .iter()
        .filter(|held| held.link == link.index)
        .map(|held| held.address)
        .collect();
    if !held.contains(&address) {
        plan.changes.push(Change::AddAddress(address));
    }
    let stale: Vec<Ipv4Net> = held
        .into_iter()
        .filter(|held| {
            *held != address
                && *held == gateway_in(held.trunc())
                && settings.cluster.is_node_subnet(held.trunc())
        })
        .collect();
    plan.changes
        .extend(stale.iter().map(|&held| Change::RemoveAddress(held)));
    Some(stale.into_iter().map(|held| (link.index, held)).collect())
}

/// Plans that the host takes no routes from what arrives on a device of ours: a container would
/// make itself the host's IPv6 router (CVE-2020-10749).
fn plan_trust(observed: &Observed, device: Device, plan: &mut Plan) {
    if observed.trusting.contains(&device) {
        plan.changes.push(Change::DistrustNeighbours(device));
    }
}

/// Plans the device that asks for headroom, on a bridge of our own: on another's it might
/// change the MTU.
fn plan_headroom(observed: &Observed, bridge: Option<u32>, mtu: Option<u32>, plan: &mut Plan) {
    if let Some(mtu) = mtu {
        let changes = headroom::plan(observed, bridge, mtu);
        plan.changes
            .extend(changes.into_iter().map(Change::Headroom));
    }
}

/// The VXLAN device as the rest of the plan finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OverlayState {
    /// There is none, and there will be none.
    Absent,
    /// The plan creates it: it has no entries yet.
    New,
    /// It is there.
    Present(u32),
}

/// Plans the VXLAN device.
pub(super) fn plan_overlay(
    settings: &Settings,
    observed: &Observed,
    subnet: Ipv4Net,
    plan: &mut Plan,
) -> OverlayState {
    let mac = overlay_mac(subnet.network().octets());
    let existing = observed.link_named(&settings.overlay);
    let underlay = plan.underlay.clone();
    match (existing, underlay) {
        (None, None) => OverlayState::Absent,
        (None, Some(underlay)) => match port_taken(observed, &settings.overlay) {
            Some(problem) => {
                plan.problems.push(problem);
                OverlayState::Absent
            }
            None => create_overlay(mac, &underlay, plan),
        },
        (Some(link), underlay) => match &link.kind {
            LinkKind::Vxlan(vxlan) if vxlan.vni == VNI => match underlay {
                Some(underlay) if !can_stay(vxlan) => {
                    if let Some(problem) = port_taken(observed, &settings.overlay) {
                        plan.problems.push(problem);
                        return OverlayState::Absent;
                    }
                    plan.changes.push(Change::DeleteDevice(Device::Overlay));
                    create_overlay(mac, &underlay, plan)
                }
                underlay => {
                    plan_trust(observed, Device::Overlay, plan);
                    repair_overlay(link, vxlan, mac, underlay.as_ref(), plan)
                }
            },
            _ => {
                plan.problems
                    .push(name_taken(Device::Overlay, link, "--overlay-interface"));
                OverlayState::Absent
            }
        },
    }
}

fn repair_overlay(
    link: &Link,
    vxlan: &Vxlan,
    mac: Mac,
    underlay: Option<&Underlay>,
    plan: &mut Plan,
) -> OverlayState {
    if let Some(underlay) = underlay {
        if vxlan.local != Some(underlay.address) {
            plan.changes.push(Change::SetLocal(underlay.address));
        }
        if link.mtu != underlay.overlay_mtu {
            plan.changes
                .push(Change::SetMtu(Device::Overlay, underlay.overlay_mtu));
        }
    }
    if link.mac != Some(mac) {
        plan.changes.push(Change::SetMac(Device::Overlay, mac));
    }
    if !link.up {
        plan.changes.push(Change::SetUp(Device::Overlay));
    }
    OverlayState::Present(link.index)
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

fn create_overlay(mac: Mac, underlay: &Underlay, plan: &mut Plan) -> OverlayState {
    plan.changes.push(Change::CreateOverlay {
        mac,
        mtu: underlay.overlay_mtu,
        local: underlay.address,
    });
    plan.changes
        .push(Change::DistrustNeighbours(Device::Overlay));
    plan.changes.push(Change::SetUp(Device::Overlay));
    OverlayState::New
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
