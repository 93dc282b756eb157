//! What the fast path is to show, from wanted and observed state. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use mesh_layout::{VNI, VXLAN_PORT};

use crate::{
    fast_path::{Device, EndpointPath, FastPathState, Mac, PeerPath},
    kernel::{
        observed::{Link, LinkKind, NeighbourState, Observed},
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
        bridge: device(bridge)?,
        port: VXLAN_PORT,
        vni: VNI,
        peers,
        underlay: underlay.links.clone(),
        ports,
        endpoints: endpoints(observed, bridge.index, subnet),
    })
}

fn device(link: &Link) -> Option<Device> {
    Some(Device {
        index: link.index,
        name: link.name.clone(),
        mac: link.mac?,
    })
}

/// The containers of this node: whose address and MAC the host knows as a neighbour on the
/// bridge, and behind which port the bridge saw that MAC.
pub(crate) fn endpoints(
    observed: &Observed,
    bridge: u32,
    subnet: Ipv4Net,
) -> BTreeMap<Ipv4Addr, EndpointPath> {
    // `bpf_redirect_peer` needs a veth pair with its other end in another namespace.
    let ports: BTreeSet<u32> = observed
        .ports_of(bridge)
        .filter(|port| port.kind == LinkKind::Veth && port.peer_elsewhere)
        .map(|port| port.index)
        .collect();
    let port_of: BTreeMap<Mac, u32> = observed
        .forwarding
        .iter()
        // A permanent entry is a port's own address.
        .filter(|entry| entry.bridge == Some(bridge) && !entry.permanent)
        .filter(|entry| ports.contains(&entry.link))
        .map(|entry| (entry.mac, entry.link))
        .collect();
    observed
        .neighbours
        .iter()
        .filter(|neighbour| {
            neighbour.link == bridge
                && neighbour.state != NeighbourState::Unusable
                && subnet.contains(&neighbour.address)
        })
        .filter_map(|neighbour| {
            let mac = neighbour.mac?;
            let link = *port_of.get(&mac)?;
            Some((neighbour.address, EndpointPath { link, mac }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::observed::{Forwarding, Neighbour};

    const BRIDGE: u32 = 2;
    const MAC: Mac = [2, 0, 0, 0, 0, 9];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 9);

    fn link(index: u32, kind: LinkKind, peer_elsewhere: bool) -> Link {
        Link {
            index,
            name: format!("link{index}"),
            kind,
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1450,
            up: true,
            master: (index != BRIDGE).then_some(BRIDGE),
            peer_elsewhere,
        }
    }

    fn one_container() -> Observed {
        Observed {
            links: [
                (BRIDGE, link(BRIDGE, LinkKind::Bridge, false)),
                (7, link(7, LinkKind::Veth, true)),
            ]
            .into(),
            neighbours: vec![Neighbour {
                link: BRIDGE,
                address: ADDRESS,
                mac: Some(MAC),
                state: NeighbourState::Learnt,
            }],
            forwarding: vec![Forwarding {
                link: 7,
                mac: MAC,
                remote: None,
                bridge: Some(BRIDGE),
                permanent: false,
            }],
            ..Observed::default()
        }
    }

    fn found(observed: &Observed) -> BTreeMap<Ipv4Addr, EndpointPath> {
        endpoints(
            observed,
            BRIDGE,
            Ipv4Net::new_assert([10, 42, 1, 0].into(), 24),
        )
    }

    #[test]
    fn a_container_that_host_and_bridge_have_seen_is_an_endpoint() {
        let expected = EndpointPath { link: 7, mac: MAC };
        assert_eq!(found(&one_container()), [(ADDRESS, expected)].into());
    }

    #[test]
    fn a_veth_pair_within_this_namespace_is_no_endpoint() {
        let mut observed = one_container();
        observed.links.insert(7, link(7, LinkKind::Veth, false));
        assert!(found(&observed).is_empty());
    }

    #[test]
    fn an_unresolved_neighbour_or_one_outside_the_subnet_is_no_endpoint() {
        let mut observed = one_container();
        observed.neighbours[0].state = NeighbourState::Unusable;
        assert!(found(&observed).is_empty());
        let mut observed = one_container();
        observed.neighbours[0].address = Ipv4Addr::new(192, 0, 2, 9);
        assert!(found(&observed).is_empty());
    }

    #[test]
    fn a_ports_own_address_is_no_endpoint() {
        let mut observed = one_container();
        observed.forwarding[0].permanent = true;
        assert!(found(&observed).is_empty());
    }
}
