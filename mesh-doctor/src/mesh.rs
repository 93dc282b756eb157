//! What of a host is the mesh's: as the runtime tells, and for the rest, or without it, as the kernel shows. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_layout::{bridge_mac, overlay_mac};

use crate::snapshot::{Link, Mac, Mesh, Network, Peer};

/// The usual UDP port of VXLAN (IANA).
const PORT: u16 = 4789;
/// The VNI that a cluster has unless it is told otherwise.
const VNI: u32 = 100;
/// Prefix length of a node's subnet.
const SUBNET: u8 = 24;

/// What the runtime tells of the mesh; all of it empty where there is no runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether a runtime answers.
    pub runtime: bool,
    /// The node's subnet.
    pub subnet: Option<Ipv4Net>,
    /// The node's address on the underlay.
    pub host_address: Option<Ipv4Addr>,
    /// VNI and UDP port of VXLAN.
    pub vxlan: Option<(u32, u16)>,
    /// Addresses of containers of this node.
    pub containers: Vec<Ipv4Addr>,
    /// The other nodes.
    pub peers: Vec<KnownPeer>,
}

/// Another node, as the runtime tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// Its host's name; may be empty.
    pub hostname: String,
    /// Its subnet.
    pub subnet: Ipv4Net,
    /// Its host's address on the underlay.
    pub address: Ipv4Addr,
}

/// The subnet from which a MAC address was made, if it was.
fn subnet_of(mac: Option<Mac>, scheme: fn([u8; 4]) -> Mac) -> Option<Ipv4Net> {
    let mac = mac?;
    let [_, _, a, b, c, d] = mac;
    let subnet = Ipv4Net::new([a, b, c, d].into(), SUBNET).ok()?;
    (scheme([a, b, c, d]) == mac).then_some(subnet)
}

/// The VXLAN device: that with a MAC address of ours; and on a host without a runtime, which would mend that, that of the usual
/// VNI and port, if the host has a bridge of ours. Others have VXLAN devices as well.
pub(crate) fn overlay(known: &Known, network: &Network) -> Option<u32> {
    let devices = || network.links.values().filter(|it| it.vxlan.is_some());
    let ours = |link: &&Link| subnet_of(link.mac, overlay_mac).is_some();
    let told = devices().filter(ours).find(|it| it.vxlan == known.vxlan);
    let usual = || {
        let is_node = !known.runtime && by_bridge(network).is_some();
        devices().find(|it| is_node && it.vxlan == Some((VNI, PORT)))
    };
    told.or_else(|| devices().find(ours))
        .or_else(usual)
        .map(|link| link.index)
}

/// The subnet of the node, by the MAC address of its bridge.
fn by_bridge(network: &Network) -> Option<Ipv4Net> {
    let mut links = network.links.values();
    links.find_map(|link| subnet_of(link.mac, bridge_mac))
}

/// Puts together what is known. `network` has what the overlay device, if there is one, leads by.
pub(crate) fn mesh(known: &Known, network: &Network) -> Mesh {
    let overlay = overlay(known, network);
    let device = overlay.and_then(|index| network.links.get(&index));
    // Of the device's MAC address nothing may be left; the bridge has one as well.
    let subnet = known
        .subnet
        .or_else(|| subnet_of(device.and_then(|it| it.mac), overlay_mac))
        .or_else(|| by_bridge(network));
    Mesh {
        overlay,
        bridge: subnet.and_then(|subnet| bridge(subnet, network)),
        subnet,
        containers: known.containers.clone(),
        host_address: known
            .host_address
            .or_else(|| device.and_then(|it| it.local)),
        port: known
            .vxlan
            .or_else(|| device.and_then(|it| it.vxlan))
            .map_or(PORT, |(_, port)| port),
        peers: match known.runtime {
            true => known.peers.iter().map(named).collect(),
            false => shown(network),
        },
    }
}

fn named(peer: &KnownPeer) -> Peer {
    Peer {
        name: match peer.hostname.is_empty() {
            true => peer.subnet.to_string(),
            false => peer.hostname.clone(),
        },
        subnet: peer.subnet,
        address: peer.address,
    }
}

/// The bridge: that with the first address of the subnet, or with its MAC address.
fn bridge(subnet: Ipv4Net, network: &Network) -> Option<u32> {
    let is_bridge = |link: &&Link| link.kind == "bridge";
    let first = Ipv4Addr::from_bits(subnet.network().to_bits() | 1);
    let holding = network
        .holders(first)
        .filter_map(|held| network.links.get(&held.link))
        .find(is_bridge);
    let mac = bridge_mac(subnet.network().octets());
    let made = || {
        let mut bridges = network.links.values().filter(is_bridge);
        bridges.find(|link| link.mac == Some(mac))
    };
    holding.or_else(made).map(|link| link.index)
}

/// The peers that the kernel shows: a route over the device, its next hop's MAC address, and the host behind that.
fn shown(network: &Network) -> Vec<Peer> {
    let peer = |route: &crate::snapshot::OverlayRoute| {
        let subnet = route.destination;
        let mac = overlay_mac(subnet.network().octets());
        let entry = network.forwarding.iter().find(|it| it.mac == mac)?;
        Some(Peer {
            name: subnet.to_string(),
            subnet,
            address: entry.remote,
        })
    };
    let mut peers: Vec<Peer> = network.overlay_routes.iter().filter_map(peer).collect();
    peers.dedup();
    peers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::tests::{BRIDGE, OVERLAY, network},
        snapshot::{Forwarding, OverlayRoute},
    };

    #[test]
    fn without_a_runtime_the_kernel_shows_whose_node_it_is_and_who_the_peers_are() {
        let mut network = network();
        let destination = "10.42.7.0/24".parse().unwrap();
        network.overlay_routes = vec![OverlayRoute {
            destination,
            gateway: Some("10.42.7.0".parse().unwrap()),
            protocol: 0x51,
        }];
        network.forwarding = vec![Forwarding {
            mac: overlay_mac([10, 42, 7, 0]),
            remote: "192.0.2.8".parse().unwrap(),
        }];
        let mesh = mesh(&Known::default(), &network);
        assert_eq!((mesh.overlay, mesh.bridge), (Some(OVERLAY), Some(BRIDGE)));
        assert_eq!(mesh.subnet, Some("10.42.1.0/24".parse().unwrap()));
        assert_eq!(mesh.peers.len(), 1);
        assert_eq!(mesh.peers[0].address, Ipv4Addr::new(192, 0, 2, 8));
    }

    #[test]
    fn a_vxlan_device_of_somebody_else_is_not_taken_for_ours() {
        let mut network = network();
        let mut device = network.links.remove(&OVERLAY).unwrap();
        device.mac = Some([0x3e, 1, 2, 3, 4, 5]);
        network.links.insert(OVERLAY, device);
        let runtime = Known {
            runtime: true,
            vxlan: Some((VNI, PORT)),
            ..Known::default()
        };
        assert_eq!(overlay(&runtime, &network), None);
        // Its MAC address may have been changed while there was no runtime.
        assert_eq!(overlay(&Known::default(), &network), Some(OVERLAY));
        network.links.remove(&BRIDGE);
        assert_eq!(overlay(&Known::default(), &network), None);
    }

    #[test]
    fn a_host_that_is_no_node_has_nothing_of_a_mesh() {
        let mesh = mesh(&Known::default(), &Network::default());
        assert_eq!((mesh.overlay, mesh.subnet, mesh.port), (None, None, PORT));
    }
}
