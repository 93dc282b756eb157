//! What a runtime finds of its own in the kernel when it starts. Pure.

use std::collections::BTreeMap;

use mesh_layout::{VNI, bridge_mac, overlay_mac};

use super::{Wanted, peer::Peer};
use crate::{
    desired::devices::{gateway_in, subnet_of_mac},
    observed::{LinkKind, Observed},
    settings::Settings,
};

/// Reads the wanted state of an earlier run from the kernel, so that a restart changes
/// nothing and loses nothing until the agent speaks again.
///
/// The subnet comes from the bridge: its MAC address names it, and it holds its first
/// address. Peers come from our routes and the forwarding entries of the VXLAN device; a
/// route without an entry was injected.
pub(crate) fn adopt(settings: &Settings, observed: &Observed) -> Wanted {
    let mut wanted = Wanted::default();
    let Some(bridge) = observed
        .link_named(&settings.bridge)
        .filter(|link| link.kind == LinkKind::Bridge)
    else {
        return wanted;
    };
    let Some(subnet) = subnet_of_mac(&settings.cluster, bridge.mac, bridge_mac) else {
        return wanted;
    };
    let holds_gateway = observed
        .addresses
        .iter()
        .any(|held| held.link == bridge.index && held.address == gateway_in(subnet));
    if !holds_gateway {
        return wanted;
    }
    wanted.subnet = Some(subnet);
    wanted.own_bridge = Some(bridge.index);
    let Some(overlay) = observed.link_named(&settings.overlay) else {
        return wanted;
    };
    match &overlay.kind {
        LinkKind::Vxlan(vxlan) if vxlan.vni == VNI => wanted.host_address = vxlan.local,
        _ => return wanted,
    }
    let remotes: BTreeMap<_, _> = observed
        .overlay
        .forwarding
        .values()
        .filter(|entry| entry.permanent)
        .filter_map(|entry| Some((entry.mac, entry.remote?)))
        .collect();
    let mut peers = BTreeMap::new();
    for route in observed.routes.iter().filter(|route| route.is_ours()) {
        let destination = route.destination;
        if destination == subnet || !settings.cluster.is_node_subnet(destination) {
            continue;
        }
        match remotes.get(&overlay_mac(destination.network().octets())) {
            Some(&address) => {
                let peer = Peer {
                    address,
                    hostname: String::new(),
                    suspect: false,
                };
                peers.insert(destination, peer);
            }
            None => {
                wanted.inject(destination);
            }
        }
    }
    wanted.peers = peers.into();
    wanted
}
