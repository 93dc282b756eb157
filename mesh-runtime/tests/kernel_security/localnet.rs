//! A host that routes 127.0.0.0/8 (`route_localnet`), as some publish ports: its loopback, where
//! the runtime listens, is still nobody's but its own.

use std::net::{Ipv4Addr, TcpListener};

use mesh_testbed::{BRIDGE, NetNs, wait_reachable};

use crate::{
    frames::{self, IPV4},
    inside::mac,
    packet_socket::PacketSocket,
    pair::SOON,
    port::bind,
    scene::{MODES, Mode, Plan, Scene, in_modes},
    witness::{FORGED, Listener, PORT, TIMES, sees, sees_no},
};

const RUNTIME: u16 = 50_051;

fn route_localnet(netns: &NetNs, interface: &str) {
    let key = format!("net/ipv4/conf/{interface}/route_localnet");
    netns.sysctl(&key, "1").unwrap();
}

/// A frame of the attacker to the bridge.
fn frame(scene: &Scene, packet: &[u8]) -> Vec<u8> {
    let own = mac(scene.attacker.netns(), "eth0");
    frames::ethernet(scene.gateway_mac(), own, IPV4, packet)
}

/// Whoever listens on the runtime's port does not answer a container.
async fn no_answer(interface: &'static str) {
    in_modes(MODES, Plan::default(), async |scene| {
        let home = scene.home().netns();
        route_localnet(home, interface);
        let (attacker, address) = (scene.attacker.netns(), scene.attacker.address());
        let _listener = match scene.mode {
            Mode::Fast | Mode::Off | Mode::New | Mode::Loading => None,
            // The runtime is dead, and its port free.
            Mode::Killed | Mode::MadeWhileDead => Some(bind(home, || {
                TcpListener::bind((Ipv4Addr::LOCALHOST, RUNTIME))
            })),
        };
        // The host knows whom it would answer.
        wait_reachable(home, address, SOON).await.unwrap();
        let socket = PacketSocket::open(attacker, "eth0");
        let syn = |to| frame(scene, &frames::tcp_syn((address, 4321), (to, RUNTIME)));
        let answer = |from: Ipv4Addr| [from.octets(), address.octets()].concat();
        let marker = Scene::marker(home, address);
        socket.send(attacker, &vec![syn(Ipv4Addr::LOCALHOST); TIMES]);
        sees_no(&answer(Ipv4Addr::LOCALHOST), &socket, &marker);
        // The gateway, where nobody listens, refuses: the frames are as they should be.
        sees(&answer(scene.gateway()), &socket, |_| {
            socket.send(attacker, &[syn(scene.gateway())]);
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_no_answer_from_its_hosts_loopback_where_the_bridge_routes_it() {
    no_answer(BRIDGE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_no_answer_from_its_hosts_loopback_where_all_interfaces_route_it() {
    no_answer("all").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sends_nothing_to_its_hosts_loopback() {
    in_modes(MODES, Plan::default(), async |scene| {
        let home = scene.home().netns();
        route_localnet(home, BRIDGE);
        let attacker = scene.attacker.netns();
        let own = (scene.attacker.address(), 4444);
        let listener = Listener::on(home);
        let socket = PacketSocket::open(attacker, "eth0");
        for last in [1, 53] {
            let to = (Ipv4Addr::new(127, 0, 0, last), PORT);
            let frame = frame(scene, &frames::udp_packet(own, to, FORGED));
            socket.send(attacker, &vec![frame; TIMES]);
        }
        let marker = Scene::marker(attacker, scene.gateway());
        sees_no(FORGED, &listener, marker);
    })
    .await;
}
