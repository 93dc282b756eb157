//! What the fast path is to show, from wanted and observed state. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use mesh_layout::{VNI, VXLAN_PORT};

use crate::{
    endpoint::endpoints,
    fast_path::{Device, FastPathState, PeerPath},
    kernel::{
        observed::{Link, LinkKind, Observed},
        plan::Settings,
        underlay::{Underlay, carries_underlay},
    },
    wanted::Wanted,
};

/// The fast path's state; `None` until subnet, underlay and both devices are there.
pub(crate) fn fast_path_state(
    settings: &Settings,
    wanted: &Wanted,
    observed: &Observed,
    underlay: Option<&Underlay>,
    blocked: &BTreeSet<Ipv4Net>,
) -> Option<FastPathState> {
    let subnet = wanted.subnet?;
    let underlay = underlay?;
    let bridge = observed
        .link_named(&settings.bridge)
        .filter(|link| link.kind == LinkKind::Bridge)?;
    let overlay = observed
        .link_named(&settings.overlay)
        .filter(|link| matches!(&link.kind, LinkKind::Vxlan(vxlan) if vxlan.vni == VNI))?;
    let peers = wanted
        .peers
        .iter()
        .filter(|(subnet, _)| !blocked.contains(subnet))
        .map(|(&subnet, peer)| {
            let next_hop = observed
                .next_hops
                .get(&peer.address)
                .filter(|next_hop| carries_underlay(settings, observed, next_hop.link))
                .map(|next_hop| (next_hop.address, next_hop.link));
            let path = PeerPath {
                address: peer.address,
                next_hop,
            };
            (subnet, path)
        })
        .collect();
    let ports: BTreeMap<u32, String> = observed
        .ports_of(bridge.index)
        .filter(|port| port.index != overlay.index)
        .map(|port| (port.index, port.name.clone()))
        .collect();
    Some(FastPathState {
        generation: wanted.generation,
        subnet,
        host_address: underlay.address,
        overlay: device(overlay)?,
        overlay_mtu: overlay.mtu,
        bridge: device(bridge)?,
        port: VXLAN_PORT,
        vni: VNI,
        peers,
        underlay: underlay.links.clone(),
        ports,
        endpoints: endpoints(observed, bridge.index, subnet, &wanted.endpoints),
    })
}

fn device(link: &Link) -> Option<Device> {
    Some(Device {
        index: link.index,
        name: link.name.clone(),
        mac: link.mac?,
    })
}
