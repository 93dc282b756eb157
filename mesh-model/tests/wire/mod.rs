//! A host between a container and an underlay, with frames going in and out over packet
//! sockets: nothing on the wire but what a test sends.
#![allow(dead_code, reason = "each test file uses its part")]

mod packet_socket;

use mesh_model::{Ethernet, Ipv4, Udp};
use mesh_testbed::NetNs;
pub(crate) use packet_socket::PacketSocket;

use crate::harness::{
    ip, iproute2,
    node::{CONTAINER_MAC, GATEWAY_MAC, HOST, OTHER_PEER, OVERLAY_MTU, PEER, REMOTE_MAC, SUBNET},
};

/// MAC address of the host on the underlay.
pub(crate) const HOST_MAC: [u8; 6] = [0x0e, 0, 0, 0, 0, 2];
/// MAC address of the neighbour on the underlay, whoever it stands for.
pub(crate) const NEIGHBOUR_MAC: [u8; 6] = [0x0e, 0, 0, 0, 0, 3];
/// MAC address of the gateway on the second underlay.
pub(crate) const GATEWAY_NEIGHBOUR_MAC: [u8; 6] = [0x0e, 0, 0, 0, 1, 3];

/// Three namespaces: containers | host | the rest of the world.
///
/// The host has the bridge `quilt0` with the ports `port0` and `port1`, whose other ends are
/// `eth0` and `eth1` among the containers; `vxlan100`, set up for the peers of
/// [`two_peers`](crate::harness::node::two_peers); and two underlay interfaces `eth0` and
/// `eth1`, whose other ends have the same names.
pub(crate) struct Wire {
    pub(crate) host: NetNs,
    pub(crate) containers: NetNs,
    pub(crate) world: NetNs,
}

impl Wire {
    pub(crate) async fn new(label: &str) -> Self {
        let named = async |role| {
            NetNs::new(&format!("{label}-{role}"))
                .await
                .expect("these tests make network namespaces")
        };
        let wire = Self {
            host: named("host").await,
            containers: named("containers").await,
            world: named("world").await,
        };
        wire.add_underlays();
        wire.add_containers();
        wire.add_overlay("noudpcsum");
        wire.host.sysctl("net/ipv4/ip_forward", "1").unwrap();
        wire
    }

    fn add_underlays(&self) {
        let world = self.world.name();
        for (index, neighbour) in [(0, NEIGHBOUR_MAC), (1, GATEWAY_NEIGHBOUR_MAC)] {
            let own = mac(&[HOST_MAC[0], 0, 0, 0, index, HOST_MAC[5]]);
            let neighbour = mac(&neighbour);
            ip(
                &self.host,
                &format!(
                    "link add eth{index} address {own} type veth \
                     peer name eth{index} address {neighbour} netns {world}"
                ),
            );
            ip(&self.host, &format!("link set eth{index} up"));
            ip(&self.world, &format!("link set eth{index} up"));
        }
        ip(&self.host, &format!("address add {HOST}/24 dev eth0"));
        ip(&self.host, "address add 203.0.113.2/24 dev eth1");
        let neighbour = mac(&NEIGHBOUR_MAC);
        let gateway = mac(&GATEWAY_NEIGHBOUR_MAC);
        let permanent = "nud permanent";
        ip(
            &self.host,
            &format!("neigh add {PEER} lladdr {neighbour} dev eth0 {permanent}"),
        );
        ip(
            &self.host,
            &format!("neigh add 203.0.113.1 lladdr {gateway} dev eth1 {permanent}"),
        );
        ip(
            &self.host,
            &format!("route add {OTHER_PEER} via 203.0.113.1"),
        );
    }

    fn add_containers(&self) {
        let bridge = mac(&GATEWAY_MAC);
        ip(
            &self.host,
            &format!("link add quilt0 address {bridge} type bridge forward_delay 0"),
        );
        let containers = self.containers.name();
        for index in 0..2 {
            let own = mac(&container_mac(index));
            ip(
                &self.host,
                &format!(
                    "link add port{index} type veth \
                     peer name eth{index} address {own} netns {containers}"
                ),
            );
            ip(
                &self.host,
                &format!("link set port{index} master quilt0 up"),
            );
            ip(&self.containers, &format!("link set eth{index} up"));
        }
        ip(&self.host, "link set quilt0 up");
        ip(&self.host, "address add 10.42.1.1/24 dev quilt0");
    }

    /// Adds `vxlan100`, whose outer UDP checksum is `noudpcsum` or `udpcsum`.
    pub(crate) fn add_overlay(&self, checksum: &str) {
        let own = mac(&mesh_layout::overlay_mac(SUBNET));
        ip(
            &self.host,
            &format!(
                "link add vxlan100 address {own} mtu {OVERLAY_MTU} type vxlan id 100 \
                 dstport 4789 local {HOST} nolearning {checksum}"
            ),
        );
        ip(&self.host, "link set vxlan100 up");
        let remote = mac(&REMOTE_MAC);
        iproute2(
            &self.host,
            "bridge",
            &format!("fdb append {remote} dev vxlan100 dst {PEER}"),
        );
        ip(
            &self.host,
            &format!("neigh add 10.42.2.0 lladdr {remote} dev vxlan100 nud permanent"),
        );
        ip(
            &self.host,
            "route add 10.42.2.0/24 via 10.42.2.0 dev vxlan100 onlink",
        );
    }

    /// Indices of the host's interfaces of these names.
    pub(crate) fn index(&self, name: &str) -> u32 {
        self.host
            .run(|| nix::net::if_::if_nametoindex(name))
            .unwrap()
            .unwrap()
    }
}

/// MAC address of a container.
pub(crate) fn container_mac(index: u8) -> [u8; 6] {
    let mut mac = CONTAINER_MAC;
    mac[5] += index;
    mac
}

/// Whether this is UDP to the VXLAN port, behind IPv4 options or not.
pub(crate) fn is_vxlan(frame: &[u8]) -> bool {
    let ethertype = Ethernet::read(frame).map(|it| it.ethertype);
    let ip = frame.get(14..).and_then(Ipv4::read);
    ethertype == Some(0x0800)
        && ip
            .filter(|ip| ip.protocol == 17)
            .and_then(|ip| Udp::read(frame.get(14 + ip.length()..)?))
            .is_some_and(|udp| udp.destination == 4789)
}

fn mac(address: &[u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}
