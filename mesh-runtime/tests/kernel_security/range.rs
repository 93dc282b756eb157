//! A machine on the underlay that says it were a container of the mesh: no packet with an
//! address of the cluster's range comes in there for a container, nor for the gateway.

use std::net::Ipv4Addr;

use mesh_testbed::NetNs;

use crate::{
    frames::{self, IPV4},
    inside::{datagram, mac},
    packet_socket::PacketSocket,
    scene::{HOST_MODES, Plan, Scene, in_modes},
    tables::nft,
    witness::{FORGED, Listener, PORT, TIMES, sees_no},
};

/// The port of a host that it publishes for a container.
const OUTSIDE: u16 = 8080;

/// Addresses of the other node's subnet, of this node's and of nobody's.
fn claims(scene: &Scene) -> [Ipv4Addr; 5] {
    [
        Ipv4Addr::new(10, 42, 2, 10),
        Ipv4Addr::new(10, 42, 1, 10),
        Ipv4Addr::new(10, 42, 3, 77),
        scene.far().address(),
        scene.sibling().address(),
    ]
}

/// Sends as each of them to the first node, by its card.
fn claim(scene: &Scene, to: (Ipv4Addr, u16)) {
    let stranger = scene.pair.stranger().netns();
    let next_hop = mac(scene.home().netns(), "eth0");
    let own = mac(stranger, "eth0");
    let socket = PacketSocket::open(stranger, "eth0");
    for source in claims(scene) {
        let packet = frames::udp_packet((source, 4444), to, FORGED);
        let frame = frames::ethernet(next_hop, own, IPV4, &packet);
        socket.send(stranger, &vec![frame; TIMES]);
    }
}

/// Reverse path filters, which might help, are off, as they often are.
fn unfiltered(netns: &NetNs) {
    for name in ["all", "eth0"] {
        netns
            .sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0")
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_does_not_reach_a_published_container_as_a_container() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let (home, sibling) = (scene.home(), scene.sibling());
        let (host, container) = (home.address(), sibling.address());
        unfiltered(home.netns());
        nft(
            home.netns(),
            &format!(
                "table ip engine {{
                    chain prerouting {{
                        type nat hook prerouting priority dstnat
                        ip daddr {host} udp dport {OUTSIDE} dnat to {container}:{PORT}
                    }}
                }}"
            ),
        );
        let listener = Listener::on(sibling.netns());
        claim(scene, (host, OUTSIDE));
        // Under its own address it does.
        let stranger = scene.pair.stranger().netns();
        let published = std::net::SocketAddrV4::new(host, OUTSIDE);
        sees_no(FORGED, &listener, |marker| {
            datagram(stranger, published, marker);
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_does_not_reach_a_service_on_the_gateways_address_as_a_container() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let home = scene.home();
        unfiltered(home.netns());
        let listener = Listener::on(home.netns());
        claim(scene, (scene.gateway(), PORT));
        let stranger = scene.pair.stranger().netns();
        sees_no(FORGED, &listener, |marker| {
            Scene::marker(stranger, home.address())(marker);
            Scene::marker(scene.attacker.netns(), scene.gateway())(marker);
            Scene::marker(scene.far().netns(), scene.gateway())(marker);
        });
    })
    .await;
}
