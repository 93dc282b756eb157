//! The bridge and the VXLAN device.

use super::change::Change;
use crate::{
    desired::devices::{Bridge, Devices, Overlay},
    ebpf::Mac,
    headroom,
    observed::{Link, LinkKind, Observed},
    settings::{Device, Settings},
};

/// What makes both devices as they are to be.
pub(super) fn diff(
    settings: &Settings,
    desired: &Devices,
    observed: &Observed,
    changes: &mut Vec<Change>,
) {
    if let Some(bridge) = &desired.bridge {
        match observed.link_named(&settings.bridge) {
            None => create_bridge(bridge, observed, changes),
            Some(link) => repair_bridge(bridge, link, observed, changes),
        }
    }
    if let Some(overlay) = &desired.overlay {
        let existing = observed.link_named(&settings.overlay);
        match existing {
            Some(link) if overlay.staying.is_some() => {
                repair_overlay(overlay, link, observed, changes);
            }
            existing => create_overlay(overlay, existing, changes),
        }
    }
}

fn create_bridge(bridge: &Bridge, observed: &Observed, changes: &mut Vec<Change>) {
    changes.push(Change::CreateBridge { mac: bridge.mac });
    // Not in the message that creates it: only an MTU that is set on the finished bridge
    // keeps the kernel from following the MTU of each new port (br_mtu_auto_adjust).
    changes.extend(bridge.mtu.map(|mtu| Change::SetMtu(Device::Bridge, mtu)));
    changes.push(Change::SetSettings(Device::Bridge));
    changes.push(Change::SetUp(Device::Bridge));
    changes.push(Change::AddAddress(bridge.address));
    let orphans = bridge.orphans.iter();
    changes.extend(orphans.map(|&port| Change::Enslave { port }));
    headroom(observed, None, bridge.mtu, changes);
}

fn repair_bridge(bridge: &Bridge, link: &Link, observed: &Observed, changes: &mut Vec<Change>) {
    if bridge.own {
        repair_link(Device::Bridge, link, bridge.mac, bridge.mtu, changes);
        settings_of(observed, Device::Bridge, changes);
        headroom(observed, Some(link.index), bridge.mtu, changes);
    }
    if !link.up {
        changes.push(Change::SetUp(Device::Bridge));
    }
    let mut held = observed.addresses.iter();
    if !held.any(|held| held.link == link.index && held.address == bridge.address) {
        changes.push(Change::AddAddress(bridge.address));
    }
    let stale = bridge.stale_addresses.iter();
    changes.extend(stale.map(|&(_, address)| Change::RemoveAddress(address)));
}

fn repair_link(device: Device, link: &Link, mac: Mac, mtu: Option<u32>, changes: &mut Vec<Change>) {
    if let Some(mtu) = mtu
        && link.mtu != mtu
    {
        changes.push(Change::SetMtu(device, mtu));
    }
    if link.mac != Some(mac) {
        changes.push(Change::SetMac(device, mac));
    }
}

/// Gives a device of ours the settings that it needs. Without, nothing is forwarded, or a container would make
/// itself the host's IPv6 router (CVE-2020-10749).
fn settings_of(observed: &Observed, device: Device, changes: &mut Vec<Change>) {
    if observed.unsettled.contains(&device) {
        changes.push(Change::SetSettings(device));
    }
}

/// The device that asks for headroom, on a bridge of our own: on another's it might change the MTU.
fn headroom(observed: &Observed, bridge: Option<u32>, mtu: Option<u32>, changes: &mut Vec<Change>) {
    if let Some(mtu) = mtu {
        let wrong = headroom::diff(observed, bridge, mtu);
        changes.extend(wrong.into_iter().map(Change::Headroom));
    }
}

fn repair_overlay(overlay: &Overlay, link: &Link, observed: &Observed, changes: &mut Vec<Change>) {
    settings_of(observed, Device::Overlay, changes);
    if let (Some((local, _)), LinkKind::Vxlan(vxlan)) = (overlay.underlay, &link.kind)
        && vxlan.local != Some(local)
    {
        changes.push(Change::SetLocal(local));
    }
    let mtu = overlay.underlay.map(|(_, mtu)| mtu);
    repair_link(Device::Overlay, link, overlay.mac, mtu, changes);
    if !link.up {
        changes.push(Change::SetUp(Device::Overlay));
    }
}

/// Makes the VXLAN device, in the place of one that cannot be made right.
fn create_overlay(overlay: &Overlay, existing: Option<&Link>, changes: &mut Vec<Change>) {
    let Some((local, mtu)) = overlay.underlay else {
        return;
    };
    if existing.is_some() {
        changes.push(Change::DeleteDevice(Device::Overlay));
    }
    changes.push(Change::CreateOverlay {
        mac: overlay.mac,
        mtu,
        local,
        settings: overlay.settings,
    });
    changes.push(Change::SetSettings(Device::Overlay));
    changes.push(Change::SetUp(Device::Overlay));
}
