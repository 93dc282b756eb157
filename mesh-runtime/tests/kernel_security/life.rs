//! What a container or a stranger forges is no sign of life of a dead peer.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use mesh_testbed::{Host, wait_until};

use crate::{
    frames::{self, IPV4},
    inside::{as_nobody, mac, pinned, send_or_refused, udp_socket},
    packet_socket::PacketSocket,
    pair::{Forged, SOON, counters},
    scene::{HOST_MODES, Plan, Scene, in_modes},
    witness::{FORGED, Listener, PORT, TIMES, sees, sees_no},
};

const VXLAN: u16 = mesh_layout::VXLAN_PORT;

/// More than a tick of any kernel.
const COARSE: Duration = Duration::from_millis(25);

/// How long ago the peer was heard, in milliseconds.
async fn age(host: &Host) -> u64 {
    let age = counters(host).await.last_packet_age_ms;
    age.expect("the peer was heard when the nodes were set up")
}

/// Cuts the other node off, runs the attack, and asserts that the peer was not heard in it.
async fn no_sign_of_life(attack: impl AsyncFn(&Scene)) {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        // While the nodes were set up, nobody may have counted yet.
        let heard = Listener::on(scene.sibling().netns());
        sees(
            b"alive",
            &heard,
            Scene::marker(scene.far().netns(), scene.sibling().address()),
        );
        drop(heard);
        scene.pair.testbed.underlay_cut(scene.away()).await.unwrap();
        let cut = Instant::now();
        // Longer than the kernel's coarse clock is wrong, which is what ages are counted by.
        wait_until("silence", SOON, || async {
            let silent = cut.elapsed() >= 4 * COARSE;
            silent.then_some(()).ok_or("it has just begun")
        })
        .await
        .unwrap();
        attack(scene).await;
        // What was sent has been taken in when this has.
        let listener = Listener::on(scene.sibling().netns());
        let marker = Scene::marker(scene.attacker.netns(), scene.sibling().address());
        sees_no(b"nothing of this kind", &listener, marker);
        if scene.mode == crate::scene::Mode::Killed {
            scene.revive().await;
        }
        let silent = u64::try_from(cut.elapsed().as_millis()).unwrap();
        let age = age(scene.home()).await;
        assert!(age >= silent, "heard {age} ms ago, cut off {silent} ms ago");
    })
    .await;
}

fn as_far(scene: &Scene) -> Vec<u8> {
    let (far, sibling) = (scene.far().address(), scene.sibling().address());
    Forged::proper(far, sibling, PORT, FORGED).bytes()
}

fn send(scene: &Scene, to: Ipv4Addr) {
    let packet = as_far(scene);
    as_nobody(scene.attacker.netns(), || {
        let socket = udp_socket(Ipv4Addr::UNSPECIFIED);
        for _ in 0..TIMES {
            send_or_refused(&socket, &packet, SocketAddrV4::new(to, VXLAN));
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn vxlan_of_a_container_to_its_gateway_is_no_sign_of_life() {
    no_sign_of_life(async |scene| send(scene, scene.gateway())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vxlan_of_a_container_to_its_host_is_no_sign_of_life() {
    no_sign_of_life(async |scene| send(scene, scene.home().address())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_a_container_under_a_peers_address_is_no_sign_of_life() {
    no_sign_of_life(async |scene| {
        let attacker = scene.attacker.netns();
        let own = mac(attacker, "eth0");
        let socket = PacketSocket::open(attacker, "eth0");
        // Of the peer's container, and of the peer itself with VXLAN inside.
        let far = (scene.far().address(), 4444);
        let plain = frames::udp_packet(far, (scene.gateway(), PORT), FORGED);
        let peer = (scene.away().address(), 50_000);
        let outer = frames::udp_packet(peer, (scene.home().address(), VXLAN), &as_far(scene));
        for packet in [plain, outer] {
            let frame = frames::ethernet(scene.gateway_mac(), own, IPV4, &packet);
            socket.send(attacker, &vec![frame; TIMES]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vxlan_of_a_stranger_is_no_sign_of_life() {
    no_sign_of_life(async |scene| {
        let packet = as_far(scene);
        let to = SocketAddrV4::new(scene.home().address(), VXLAN);
        pinned(scene.pair.stranger().netns(), || {
            let socket = udp_socket(Ipv4Addr::UNSPECIFIED);
            for _ in 0..TIMES {
                socket.send_to(&packet, to).unwrap();
            }
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_that_a_stranger_routes_as_a_peers_container_is_no_sign_of_life() {
    no_sign_of_life(async |scene| {
        let (stranger, home) = (scene.pair.stranger().netns(), scene.home());
        let far = (scene.far().address(), 4444);
        let packet = frames::udp_packet(far, (scene.sibling().address(), PORT), FORGED);
        let next_hop = mac(home.netns(), "eth0");
        let frame = frames::ethernet(next_hop, mac(stranger, "eth0"), IPV4, &packet);
        let socket = PacketSocket::open(stranger, "eth0");
        socket.send(stranger, &vec![frame; TIMES]);
    })
    .await;
}

/// The measure itself: what a peer really sends is heard.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_sends_is_a_sign_of_life() {
    in_modes(crate::scene::ALIVE, Plan::default(), async |scene| {
        let (far, sibling) = (scene.far(), scene.sibling());
        let listener = Listener::on(sibling.netns());
        let before = Instant::now();
        sees(b"alive", &listener, |payload| {
            Scene::marker(far.netns(), sibling.address())(payload);
        });
        let age = age(scene.home()).await;
        let since = u64::try_from((before.elapsed() + COARSE).as_millis()).unwrap();
        assert!(age <= since, "heard {age} ms ago, sent {since} ms ago");
    })
    .await;
}
