//! What removes all that this project made.

use std::collections::BTreeSet;

use mesh_layout::{VNI, overlay_mac};

use super::change::Change;
use crate::{
    desired::devices::{is_own_bridge_mac, subnet_of_mac},
    headroom::{self, HeadroomChange},
    observed::{LinkKind, Observed},
    settings::{Device, Settings},
};

/// What cleaning up does, and what it leaves.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Removal {
    /// In the order in which they are to be made.
    pub(crate) changes: Vec<Change>,
    /// One line for each thing that is left, with the reason.
    pub(crate) kept: Vec<String>,
}

/// Computes what of all that is seen is ours, and what removes it.
pub(crate) fn removal(settings: &Settings, observed: &Observed) -> Removal {
    let mut removal = Removal::default();
    if let Some(overlay) = observed.link_named(&settings.overlay) {
        let ours = matches!(&overlay.kind, LinkKind::Vxlan(vxlan) if vxlan.vni == VNI)
            && subnet_of_mac(&settings.cluster, overlay.mac, overlay_mac).is_some();
        if ours {
            removal.changes.push(Change::DeleteDevice(Device::Overlay));
        } else {
            removal.kept.push(format!(
                "{} is {} that this project did not make",
                overlay.name,
                overlay.kind.describe()
            ));
        }
    }
    if let Some(link) = observed
        .link_named(headroom::NAME)
        .filter(|link| headroom::is_ours(link))
    {
        let index = link.index;
        removal
            .changes
            .push(Change::Headroom(HeadroomChange::Delete { index }));
    }
    if let Some(bridge) = observed.link_named(&settings.bridge) {
        let ports: Vec<&str> = observed
            .ports_of(bridge.index)
            .map(|port| port.name.as_str())
            .collect();
        if bridge.kind != LinkKind::Bridge || !is_own_bridge_mac(&settings.cluster, bridge.mac) {
            removal.kept.push(format!(
                "{} is {} that this project did not make",
                bridge.name,
                bridge.kind.describe()
            ));
        } else if !ports.is_empty() {
            removal.kept.push(format!(
                "{} has ports ({}): stop their containers first",
                bridge.name,
                ports.join(", ")
            ));
        } else {
            removal.changes.push(Change::DeleteDevice(Device::Bridge));
        }
    }
    let pinned = observed.forwarding.iter().filter(|entry| {
        let port = observed.links.get(&entry.link);
        let of_container = port.is_some_and(|port| port.kind == LinkKind::Veth);
        let bridge = observed.link_named(&settings.bridge).map(|it| it.index);
        entry.sticky && of_container && entry.bridge == bridge && bridge.is_some()
    });
    // One of each VLAN, which go together.
    let pinned: BTreeSet<_> = pinned.map(|entry| (entry.mac, entry.link)).collect();
    let unpin = |(mac, port)| Change::UnpinContainer { mac, port };
    removal.changes.extend(pinned.into_iter().map(unpin));
    let ours = observed
        .routes
        .iter()
        .filter(|route| route.is_ours() && settings.cluster.cidr.contains(&route.destination));
    removal
        .changes
        .extend(ours.map(|route| Change::RemoveRoute {
            destination: route.destination,
            metric: route.metric,
        }));
    removal
}
