//! What the fast path is to show, from wanted and observed state. Pure.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use super::{
    Desired,
    firewall::is_card,
    underlay::{Underlay, carries_underlay},
};
use crate::{
    ebpf::{FastPathState, OwnDevice},
    observed::{Link, LinkKind, Observed},
    settings::Settings,
    wanted::Wanted,
};

/// The fast path's state; `None` until subnet, underlay and both devices are there.
pub(crate) fn fast_path_state(
    settings: &Settings,
    wanted: &Wanted,
    observed: &Observed,
    desired: &Desired,
) -> Option<FastPathState> {
    let subnet = wanted.subnet?;
    let underlay = desired.underlay.as_ref()?;
    let containers = &desired.containers;
    let bridge = observed
        .link_named(&settings.bridge)
        .filter(|link| link.kind == LinkKind::Bridge)?;
    let overlay = observed.link_named(&settings.overlay).filter(
        |link| matches!(&link.kind, LinkKind::Vxlan(vxlan) if wanted.node_settings.are_of(vxlan)),
    )?;
    let ports: BTreeMap<u32, String> = observed
        .ports_of(bridge.index)
        .filter(|port| port.index != overlay.index)
        .filter(|port| !containers.left_free.contains(&port.index))
        .map(|port| (port.index, port.name.clone()))
        .collect();
    Some(FastPathState {
        generation: wanted.generation,
        subnet,
        host_address: underlay.address,
        overlay: device(overlay)?,
        overlay_mtu: overlay.mtu,
        bridge: device(bridge)?,
        port: wanted.node_settings.vxlan_port,
        vni: wanted.node_settings.vni,
        peers: Arc::clone(&desired.entries.paths),
        underlay: receiving(settings, observed, underlay),
        ports,
        endpoints: containers.endpoints.clone(),
        macs: containers.macs.clone(),
        strict_ports: containers.strict_ports.clone(),
        shaped_ports: containers.shaped_ports.clone(),
        filters_vlans: bridge.filters_vlans,
        forwarding: settings.forwarding,
    })
}

/// The interfaces on which VXLAN to this host may arrive: those of the underlay, and every
/// other that may bring packets from beyond this host, because the kernel's VXLAN device listens
/// on all of them: cards, bonds and VLANs, and whatever else holds an address. Not bridges and
/// tunnels that lead to no peer: containers and virtual machines are there, and the packet filter,
/// which knows the way to each peer, takes nothing from them.
fn receiving(
    settings: &Settings,
    observed: &Observed,
    underlay: &Underlay,
) -> BTreeMap<u32, String> {
    let addressed = observed.addresses.iter().filter_map(|held| {
        let link = observed.links.get(&held.link)?;
        (!leads_to_guests(link)).then_some(link.index)
    });
    let cards = observed.links.values().filter(|link| is_card(link));
    underlay
        .links
        .keys()
        .copied()
        .chain(addressed)
        .chain(cards.map(|link| link.index))
        .filter_map(|index| ethernet(settings, observed, index))
        .map(|link| (link.index, link.name.clone()))
        .collect()
}

/// Whether an interface is of a kind by which containers and virtual machines are connected.
fn leads_to_guests(link: &Link) -> bool {
    match &link.kind {
        LinkKind::Bridge => true,
        LinkKind::Other(kind) => kind == "tun",
        LinkKind::Veth | LinkKind::Vxlan(_) => false,
    }
}

/// An interface that packets of the overlay may cross as the programs know them: with an
/// Ethernet header. On others, as a tunnel's, they would read addresses where there are none,
/// and the kernel path has those packets.
fn ethernet<'a>(settings: &Settings, observed: &'a Observed, index: u32) -> Option<&'a Link> {
    observed
        .links
        .get(&index)
        .filter(|link| link.mac.is_some() && carries_underlay(settings, observed, index))
}

/// Whether the kernel's way to a peer leads over an interface that the fast path uses, by what was observed last:
/// what status says. The programs ask the kernel themselves.
pub(crate) fn may_carry(settings: &Settings, observed: &Observed, peer: Ipv4Addr) -> bool {
    let next_hop = observed.next_hops.to(peer);
    next_hop.is_some_and(|next_hop| ethernet(settings, observed, next_hop.link).is_some())
}

/// Underlay interfaces that the fast path leaves to the kernel path, because packets have no
/// Ethernet header there.
pub(crate) fn without_ethernet(observed: &Observed, underlay: &Underlay) -> Vec<String> {
    let bare = |index| observed.links.get(index).is_none_or(|it| it.mac.is_none());
    let links = underlay.links.iter();
    links
        .filter(|(index, _)| bare(index))
        .map(|(_, name)| name.clone())
        .collect()
}

fn device(link: &Link) -> Option<OwnDevice> {
    Some(OwnDevice {
        index: link.index,
        name: link.name.clone(),
        mac: link.mac?,
    })
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv4Net;
    use mesh_layout::{bridge_mac, overlay_mac};

    use super::*;
    use crate::{
        observed::{Address, NextHop, NextHops, Vxlan},
        options::RuntimeOptions,
        wanted::peer::Peer,
    };

    const NIC: u32 = 2;
    const BRIDGE: u32 = 3;
    const OVERLAY: u32 = 4;
    const SECOND: u32 = 5;
    const TUNNEL: u32 = 6;
    const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 1, 0), 24);
    const PEER_SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 2, 0), 24);
    const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn link(index: u32, name: &str, kind: LinkKind, mac: Option<[u8; 6]>) -> (u32, Link) {
        let link = Link {
            index,
            name: name.to_owned(),
            kind,
            mac,
            mtu: 1450,
            up: true,
            master: None,
            far_end: None,
            filters_vlans: false,
            near_end: None,
            hairpin: false,
        };
        (index, link)
    }

    /// A node whose way to its peer leads over `way`, and whether that may be the fast path's.
    fn shown(way: u32) -> (FastPathState, bool) {
        let hardware = || LinkKind::Other(String::new());
        let vxlan = Vxlan {
            vni: mesh_layout::VNI,
            port: mesh_layout::VXLAN_PORT,
            ..Vxlan::default()
        };
        let octets = SUBNET.network().octets();
        let held = |link, address| Address {
            link,
            address: Ipv4Net::new_assert(address, 24),
            global: true,
        };
        let observed = Observed {
            links: [
                link(1, "lo", hardware(), Some([0; 6])),
                link(NIC, "eth0", hardware(), Some([2, 0, 0, 0, 0, 1])),
                link(BRIDGE, "quilt0", LinkKind::Bridge, Some(bridge_mac(octets))),
                link(
                    OVERLAY,
                    "vxlan100",
                    LinkKind::Vxlan(vxlan),
                    Some(overlay_mac(octets)),
                ),
                link(SECOND, "eth1", hardware(), Some([2, 0, 0, 0, 0, 2])),
                link(TUNNEL, "wg0", LinkKind::Other("wireguard".into()), None),
            ]
            .into(),
            addresses: vec![
                held(1, Ipv4Addr::LOCALHOST),
                held(NIC, Ipv4Addr::new(192, 0, 2, 1)),
                held(BRIDGE, Ipv4Addr::new(10, 42, 1, 1)),
                held(SECOND, Ipv4Addr::new(198, 51, 100, 1)),
                held(TUNNEL, Ipv4Addr::new(203, 0, 113, 1)),
            ],
            next_hops: Arc::new(NextHops::new(
                [(
                    PEER,
                    Some(NextHop {
                        address: PEER,
                        link: way,
                        mtu: None,
                    }),
                )]
                .into(),
            )),
            ..Observed::default()
        };
        let peer = Peer {
            address: PEER,
            hostname: String::new(),
            suspect: false,
            mtu: None,
        };
        let wanted = Wanted {
            subnet: Some(SUBNET),
            peers: Arc::new([(PEER_SUBNET, peer)].into()),
            ..Wanted::default()
        };
        let underlay = Underlay {
            address: Ipv4Addr::new(192, 0, 2, 1),
            interface: "eth0".into(),
            links: [(NIC, "eth0".into()), (way, String::new())].into(),
            overlay_mtu: 1450,
            narrowest: String::new(),
        };
        let settings = Settings::from(&RuntimeOptions::default());
        let desired = Desired {
            underlay: Some(underlay),
            ..Desired::default()
        };
        let state = fast_path_state(&settings, &wanted, &observed, &desired).unwrap();
        (state, may_carry(&settings, &observed, PEER))
    }

    #[test]
    fn vxlan_is_guarded_on_every_ethernet_interface_with_an_address_of_the_hosts() {
        let expected = [(NIC, "eth0".to_owned()), (SECOND, "eth1".to_owned())];
        assert_eq!(shown(NIC).0.underlay, expected.into());
    }

    #[test]
    fn the_way_to_a_peer_over_ethernet_is_the_fast_paths() {
        let (state, may_carry) = shown(SECOND);
        assert!(may_carry);
        assert!(state.underlay.contains_key(&SECOND));
    }

    #[test]
    fn the_way_to_a_peer_over_a_tunnel_without_ethernet_headers_is_the_kernels() {
        let (state, may_carry) = shown(TUNNEL);
        assert!(!may_carry);
        assert!(!state.underlay.contains_key(&TUNNEL));
    }
}
