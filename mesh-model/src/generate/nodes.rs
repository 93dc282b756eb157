//! Nodes, as they are before, after and in the middle of what happens to clusters.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use mesh_layout::{
    CONFIG_GUARD_ONLY, CONFIG_GUARD_TAGGED, Config, ENDPOINT_HELD, ENDPOINT_KERNEL,
    ENDPOINT_PORT_KERNEL, Endpoint, EndpointKey, MacHolder, MacKey, PEER_KERNEL, PEER_MULTIPATH,
    PORT_KERNEL, PORT_STRICT, Peer, PeerKey, PortKey, StrictPort, TRANSPORT_VXLAN, Underlay,
    UnderlayKey, VNI, VXLAN_PORT, Vtep, VtepKey, bridge_mac, overlay_mac,
};

use super::Random;
use crate::{Node, Way};

/// A device that can play the overlay's: its index and its MTU.
pub type Overlay = (u32, u32);

/// The interfaces of a host that a node may have.
#[derive(Clone, Debug)]
pub struct Devices {
    /// What can play the overlay's device.
    pub overlays: Vec<Overlay>,
    /// What can play ports; at least one.
    pub ports: Vec<u32>,
    /// The underlay.
    pub underlay: u32,
    /// The host's ways to where peers may be, over the underlay and elsewhere; see [`peer_addresses`].
    pub ways: BTreeMap<Ipv4Addr, Way>,
}

/// Indices from here on no interface has: those of ports that are gone.
const GONE: u32 = 5000;

/// First address of the cluster.
const CLUSTER: u32 = u32::from_be_bytes([10, 42, 0, 0]);
/// First address of the underlay.
const UNDERLAY: u32 = u32::from_be_bytes([192, 0, 2, 0]);

/// An address that every node has besides its underlay address.
pub const OTHER_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 15);

/// Addresses that peers of generated nodes may have.
pub fn peer_addresses() -> impl Iterator<Item = Ipv4Addr> {
    (1..=7).map(|index| Ipv4Addr::from(UNDERLAY + 2 + index))
}

/// A node with up to eight peers and containers; the counters' indices are below eight.
pub fn node(random: &mut Random, devices: &Devices) -> Node {
    let prefix = random.pick(&[24, 24, 24, 24, 20, 28]);
    let mask = u32::MAX << (32 - prefix);
    // Seven subnets, the first of them ours; distinct, because the steps are odd and few.
    let first = random.below(7) as u32 + 1;
    let subnet = |index: u32| CLUSTER | ((first + index * 3) % 16) << (32 - prefix);
    let address = |index: u32| (UNDERLAY + 2 + index).to_be_bytes();
    let own = subnet(0).to_be_bytes();
    let (link, overlay_mtu) = random.pick(&devices.overlays);
    let vni = random.pick(&[VNI, VNI, VNI, 1, 0xff_ffff]);

    let mut peers = BTreeMap::new();
    let mut vteps = BTreeMap::new();
    for index in 1..=random.below(7) as u32 {
        let counters = index;
        let key = PeerKey {
            subnet: subnet(index).to_be_bytes(),
        };
        let peer = Peer {
            address: address(index),
            transport: match random.chance(98) {
                true => TRANSPORT_VXLAN,
                false => 7,
            },
            flags: match random.below(100) {
                0..4 => PEER_MULTIPATH,
                4..7 => PEER_KERNEL,
                _ => 0,
            },
            reserved: [0; 2],
            mtu: random.pick(&[0, 0, 0, 0, 0, 0, 1200, 9000]),
            vni,
            counters,
            mac: overlay_mac(key.subnet),
            pad: [0; 2],
        };
        // While peers come and go, one of the two entries may be there without the other.
        if random.chance(95) {
            peers.insert(key, peer);
        }
        if random.chance(95) {
            let key = VtepKey {
                address: peer.address,
            };
            vteps.insert(key, Vtep { counters });
        }
    }
    let endpoints = endpoints(random, devices, own);
    let macs = macs(random, devices, &endpoints);
    Node {
        config: Config {
            generation: random.next(),
            subnet: own,
            mask: mask.to_be_bytes(),
            host_address: address(0),
            vni,
            port: random
                .pick(&[VXLAN_PORT, VXLAN_PORT, VXLAN_PORT, 8472])
                .into(),
            overlay_link: link,
            overlay_mac: overlay_mac(own),
            bridge_mac: bridge_mac(own),
            // What the runtime wrote, or what an older one did, which knew no MTU.
            overlay_mtu: match random.chance(70) {
                true => overlay_mtu,
                false => 0,
            },
            flags: match random.below(100) {
                0..3 => CONFIG_GUARD_ONLY,
                3..6 => CONFIG_GUARD_TAGGED,
                _ => 0,
            },
            pad: [0; 4],
        },
        ways: devices.ways.clone(),
        underlays: match random.chance(95) {
            true => [(
                UnderlayKey {
                    link: devices.underlay,
                },
                Underlay::default(),
            )]
            .into(),
            false => BTreeMap::new(),
        },
        local: BTreeSet::from([OTHER_ADDRESS]),
        peers,
        vteps,
        endpoints,
        macs,
        strict_ports: strict_ports(random, devices),
        links: devices.ports.iter().copied().collect(),
    }
}

/// A port that is there, or one that is gone.
fn any_port(random: &mut Random, devices: &Devices) -> u32 {
    match random.chance(99) {
        true => random.pick(&devices.ports),
        false => GONE + random.below(4) as u32,
    }
}

fn endpoints(
    random: &mut Random,
    devices: &Devices,
    subnet: [u8; 4],
) -> BTreeMap<EndpointKey, Endpoint> {
    let mut mac = random.bytes();
    (0..random.below(8) as u32)
        .map(|index| {
            let address = (u32::from_be_bytes(subnet) + 2 + index).to_be_bytes();
            // Some containers have two addresses.
            if random.chance(85) {
                mac = random.bytes();
            }
            let endpoint = Endpoint {
                link: any_port(random, devices),
                mac,
                flags: match random.chance(60) {
                    true => ENDPOINT_HELD,
                    false => 0,
                } | match random.below(100) {
                    0..3 => ENDPOINT_KERNEL,
                    3..6 => ENDPOINT_PORT_KERNEL,
                    _ => 0,
                },
                identity: random.next() as u32,
            };
            (EndpointKey { address }, endpoint)
        })
        .collect()
}

/// The MAC addresses of most containers; while things change, some are said to be elsewhere.
fn macs(
    random: &mut Random,
    devices: &Devices,
    endpoints: &BTreeMap<EndpointKey, Endpoint>,
) -> BTreeMap<MacKey, MacHolder> {
    let mut macs = BTreeMap::new();
    for endpoint in endpoints.values() {
        if random.chance(80) {
            let key = MacKey {
                mac: endpoint.mac,
                pad: [0; 2],
            };
            let link = match random.chance(90) {
                true => endpoint.link,
                false => any_port(random, devices),
            };
            macs.insert(key, MacHolder { link });
        }
    }
    macs
}

/// The ports of registered containers.
fn strict_ports(random: &mut Random, devices: &Devices) -> BTreeMap<PortKey, StrictPort> {
    let ports: Vec<_> = devices.ports.iter().filter(|_| random.chance(35)).collect();
    ports
        .into_iter()
        .map(|&link| {
            let flags = random.pick(&[
                PORT_STRICT,
                PORT_STRICT,
                PORT_KERNEL,
                PORT_STRICT | PORT_KERNEL,
            ]);
            (PortKey { link }, StrictPort { flags })
        })
        .collect()
}

/// An address that may mean something to the node, or may not.
pub(super) fn any_address(random: &mut Random, node: &Node) -> Ipv4Addr {
    match random.below(8) {
        0 | 1 => own_address(random, node),
        2 | 3 => peer_address(random, node),
        4 => node.host_address(),
        5 => Ipv4Addr::from(UNDERLAY + random.below(16) as u32),
        6 => random.pick(&[
            Ipv4Addr::BROADCAST,
            Ipv4Addr::LOCALHOST,
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::new(224, 0, 0, 1),
            Ipv4Addr::from(CLUSTER),
            node.gateway(),
            everybody(node),
        ]),
        _ => Ipv4Addr::from(random.next() as u32),
    }
}

/// An address of this node's subnet: a container's, known or not, the gateway's, broadcast.
pub(super) fn own_address(random: &mut Random, node: &Node) -> Ipv4Addr {
    let known: Vec<_> = node.endpoints.keys().collect();
    if !known.is_empty() && random.chance(80) {
        return random.pick(&known).address.into();
    }
    in_subnet(random, node.config.subnet, node.config.mask)
}

/// An address of some peer's subnet; of the neighbouring range if there is no peer.
pub(super) fn peer_address(random: &mut Random, node: &Node) -> Ipv4Addr {
    let subnets: Vec<_> = node.peers.keys().map(|key| key.subnet).collect();
    match subnets.is_empty() {
        true => in_subnet(random, [10, 42, 200, 0], node.config.mask),
        false => {
            let subnet = random.pick(&subnets);
            in_subnet(random, subnet, node.config.mask)
        }
    }
}

/// The broadcast address of this node's subnet.
fn everybody(node: &Node) -> Ipv4Addr {
    let hosts = !u32::from_be_bytes(node.config.mask);
    Ipv4Addr::from(u32::from_be_bytes(node.config.subnet) | hosts)
}

fn in_subnet(random: &mut Random, subnet: [u8; 4], mask: [u8; 4]) -> Ipv4Addr {
    let host = random.next() as u32 & !u32::from_be_bytes(mask);
    Ipv4Addr::from(u32::from_be_bytes(subnet) | host)
}
