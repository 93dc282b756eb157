//! The node that the named cases happen on, and packets for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use mesh_layout::{
    Config, ENDPOINT_HELD, Endpoint, EndpointKey, MacHolder, MacKey, Peer, PeerKey,
    TRANSPORT_VXLAN, Underlay, UnderlayKey, VNI, VXLAN_PORT, Vtep, VtepKey, bridge_mac,
    overlay_mac,
};
use mesh_model::{Frame, Node, VxlanFrame, Way, generate::OTHER_ADDRESS};

pub(crate) const SUBNET: [u8; 4] = [10, 42, 1, 0];
pub(crate) const PEER_SUBNET: [u8; 4] = [10, 42, 2, 0];
pub(crate) const OTHER_SUBNET: [u8; 4] = [10, 42, 3, 0];

/// This node's underlay address.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The peer of 10.42.2.0/24: on the underlay, counters 5.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
/// The peer of 10.42.3.0/24: behind a gateway, counters 6.
pub(crate) const OTHER_PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 4);
/// Nobody's peer.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);

/// A container of this node.
pub(crate) const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 2);
/// An address of this node's subnet of which no interface is known.
pub(crate) const UNKNOWN_CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 77);
/// Another container of this node.
pub(crate) const SIBLING: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 3);
/// The container's gateway.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 1);
/// A container of the peer.
pub(crate) const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 42, 2, 9);
/// A container of the other peer.
pub(crate) const OTHER_REMOTE: Ipv4Addr = Ipv4Addr::new(10, 42, 3, 9);

pub(crate) const CONTAINER_MAC: [u8; 6] = [0x0a, 0, 0, 0, 0, 2];
pub(crate) const SIBLING_MAC: [u8; 6] = [0x0a, 0, 0, 0, 0, 3];
pub(crate) const REMOTE_MAC: [u8; 6] = overlay_mac(PEER_SUBNET);
pub(crate) const GATEWAY_MAC: [u8; 6] = bridge_mac(SUBNET);
const UNDERLAY_MACS: [[u8; 6]; 2] = [[0x0e, 0, 0, 0, 0, 3], [0x0e, 0, 0, 0, 0, 2]];

/// Index of the container's port.
pub(crate) const PORT: u32 = 9;
/// Index of its sibling's port.
pub(crate) const SIBLING_PORT: u32 = 19;

/// Index of the underlay's interface, and its MTU.
pub(crate) const UNDERLAY: u32 = 29;
pub(crate) const UNDERLAY_MTU: u32 = 1500;
/// The gateway on the underlay.
pub(crate) const UNDERLAY_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// An address behind the gateway.
pub(crate) const BY_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);
/// An address to which the route is narrower than the underlay.
pub(crate) const NARROW: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);
pub(crate) const NARROW_MTU: u32 = 1300;
/// An address to which the route leads over an interface that is none of the underlay's.
pub(crate) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 6);
/// An address to which no packet may go.
pub(crate) const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// MTU of the overlay device.
pub(crate) const OVERLAY_MTU: u32 = 1450;

/// The node's containers: address, MAC address and port.
const CONTAINERS: [(Ipv4Addr, [u8; 6], u32); 2] = [
    (CONTAINER, CONTAINER_MAC, PORT),
    (SIBLING, SIBLING_MAC, SIBLING_PORT),
];

/// A node with two peers and two containers.
pub(crate) fn two_peers(overlay_link: u32) -> Node {
    let peers = [(PEER_SUBNET, PEER, 5), (OTHER_SUBNET, OTHER_PEER, 6)];
    Node {
        config: Config {
            generation: 1,
            subnet: SUBNET,
            mask: [255, 255, 255, 0],
            host_address: HOST.octets(),
            vni: VNI,
            port: VXLAN_PORT.into(),
            overlay_link,
            overlay_mac: overlay_mac(SUBNET),
            bridge_mac: GATEWAY_MAC,
            overlay_mtu: OVERLAY_MTU,
            flags: 0,
            pad: [0; 4],
        },
        ways: [(PEER, PEER), (OTHER_PEER, UNDERLAY_GATEWAY), (HOST, HOST)]
            .map(|(address, next_hop)| {
                let way = Way {
                    link: UNDERLAY,
                    next_hop,
                    mtu: UNDERLAY_MTU,
                };
                (address, way)
            })
            .into(),
        underlays: [(UnderlayKey { link: UNDERLAY }, Underlay::default())].into(),
        local: BTreeSet::from([OTHER_ADDRESS]),
        peers: peers
            .iter()
            .map(|&(subnet, address, counters)| {
                let peer = Peer {
                    address: address.octets(),
                    transport: TRANSPORT_VXLAN,
                    flags: 0,
                    reserved: [0; 2],
                    mtu: 0,
                    vni: VNI,
                    counters,
                    mac: overlay_mac(subnet),
                    pad: [0; 2],
                };
                (PeerKey { subnet }, peer)
            })
            .collect(),
        vteps: peers
            .iter()
            .map(|&(_, address, counters)| {
                let key = VtepKey {
                    address: address.octets(),
                };
                (key, Vtep { counters })
            })
            .collect(),
        endpoints: CONTAINERS
            .iter()
            .map(|&(address, mac, link)| {
                let key = EndpointKey {
                    address: address.octets(),
                };
                let flags = ENDPOINT_HELD;
                let endpoint = Endpoint {
                    link,
                    mac,
                    flags,
                    identity: 0,
                };
                (key, endpoint)
            })
            .collect(),
        macs: CONTAINERS
            .iter()
            .map(|&(_, mac, link)| (MacKey { mac, pad: [0; 2] }, MacHolder { link }))
            .collect(),
        strict_ports: BTreeMap::new(),
        links: BTreeSet::from([PORT, SIBLING_PORT]),
    }
}

/// The node that [`two_peers`] has for a peer, seen from its own side.
pub(crate) fn the_peers_node(overlay_link: u32) -> Node {
    let mut node = two_peers(overlay_link);
    let peer = node.peers.pop_first().unwrap().1;
    let key = PeerKey { subnet: SUBNET };
    let peer = Peer {
        address: HOST.octets(),
        mac: overlay_mac(SUBNET),
        ..peer
    };
    node.peers.insert(key, peer);
    let vtep = node.vteps.pop_first().unwrap().1;
    let key = VtepKey {
        address: HOST.octets(),
    };
    node.vteps.insert(key, vtep);
    let endpoint = node.endpoints.pop_first().unwrap().1;
    let key = EndpointKey {
        address: REMOTE.octets(),
    };
    node.endpoints = BTreeMap::from([(key, endpoint)]);
    node.config.subnet = PEER_SUBNET;
    node.config.host_address = PEER.octets();
    node.config.overlay_mac = REMOTE_MAC;
    node.config.bridge_mac = bridge_mac(PEER_SUBNET);
    node
}

/// A datagram from the node's container to the peer's.
pub(crate) fn from_container(data: &[u8]) -> Frame {
    let macs = [CONTAINER_MAC, GATEWAY_MAC];
    Frame::udp(macs, [CONTAINER, REMOTE], [4444, 7777], data)
}

/// A datagram from the peer's container to the node's, as the overlay device shows it.
pub(crate) fn from_peer(data: &[u8]) -> Frame {
    let macs = [REMOTE_MAC, overlay_mac(SUBNET)];
    Frame::udp(macs, [REMOTE, CONTAINER], [7777, 4444], data)
}

/// A frame of `sender`'s to this node, as it arrives on the underlay.
pub(crate) fn vxlan_from(sender: Ipv4Addr, inner: &Frame) -> VxlanFrame {
    VxlanFrame::proper(UNDERLAY_MACS, [sender, HOST], inner.bytes())
}
