//! VXLAN that is not in the first of the datagrams that one call sends: they are one packet with
//! one header, until somebody takes them apart behind the guards.

use std::net::{Ipv4Addr, SocketAddrV4};

use mesh_testbed::{Container, NetNs};

use crate::{
    inside::{as_nobody, ip, pinned, send_in_segments, udp_socket},
    pair::Forged,
    scene::{HOST_MODES, MODES, Mode, Plan, Scene, gateway_of, in_modes},
    vxlan::{THIRD, VXLAN, another_bridge, masquerade, third_is_peer_and_attacker_on_second},
    witness::{FORGED, Listener, PORT, TIMES, sees, sees_no},
};

/// Another network's number, which a guard has nothing against.
const OTHER_VNI: u32 = mesh_layout::VNI + 1;

/// A forged packet behind one of another network, in the same packet.
fn hidden(speaks_as: Ipv4Addr, hears: Ipv4Addr) -> (usize, Vec<u8>) {
    let mut packet = Forged::proper(speaks_as, hears, PORT, FORGED);
    let forged = packet.bytes();
    packet.vni = OTHER_VNI;
    packet.payload.fill(0);
    let mut payload = packet.bytes();
    payload.extend(&forged);
    (forged.len(), payload)
}

/// Sends it as a user without privileges.
fn hide(from: &NetNs, outer: Ipv4Addr, to: Ipv4Addr, speaks_as: Ipv4Addr, hears: Ipv4Addr) {
    let (length, payload) = hidden(speaks_as, hears);
    as_nobody(from, || {
        let socket = udp_socket(outer);
        for _ in 0..TIMES {
            send_in_segments(&socket, length, &payload, SocketAddrV4::new(to, VXLAN));
        }
    });
}

/// The attacker speaks as a container of the other node to its sibling.
fn speak_as_far(scene: &Scene, to: Ipv4Addr) {
    let (far, sibling) = (scene.far(), scene.sibling());
    let listener = Listener::on(sibling.netns());
    let attacker = scene.attacker.netns();
    let unspecified = Ipv4Addr::UNSPECIFIED;
    hide(attacker, unspecified, to, far.address(), sibling.address());
    sees_no(FORGED, &listener, |marker| {
        Scene::marker(attacker, sibling.address())(marker);
        Scene::marker(far.netns(), sibling.address())(marker);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_hide_vxlan_to_its_gateway_in_a_later_segment() {
    in_modes(MODES, Plan::default(), async |scene| {
        speak_as_far(scene, scene.gateway());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_hide_vxlan_to_its_hosts_address_in_a_later_segment() {
    in_modes(MODES, Plan::default(), async |scene| {
        speak_as_far(scene, scene.home().address());
    })
    .await;
}

fn without_rules() -> Plan {
    Plan {
        without_rules: true,
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_hide_vxlan_in_a_later_segment_where_programs_guard_alone() {
    in_modes(HOST_MODES, without_rules(), async |scene| {
        speak_as_far(scene, scene.gateway());
        speak_as_far(scene, scene.home().address());
    })
    .await;
}

/// The attacker on the second node speaks as a third node's container to the first node's.
async fn speak_as_third(to: fn(&Scene) -> Ipv4Addr) {
    let plan = third_is_peer_and_attacker_on_second();
    in_modes(MODES, plan, async |scene| {
        let (attacker, far) = (scene.attacker.netns(), scene.far());
        let listener = Listener::on(far.netns());
        let unspecified = Ipv4Addr::UNSPECIFIED;
        hide(attacker, unspecified, to(scene), THIRD, far.address());
        sees_no(FORGED, &listener, Scene::marker(attacker, far.address()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_hide_vxlan_to_another_nodes_gateway_in_a_later_segment() {
    speak_as_third(|scene| gateway_of(scene.far().address())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_hide_vxlan_to_another_nodes_address_in_a_later_segment() {
    speak_as_third(|scene| scene.away().address()).await;
}

/// Masqueraded, it would come from a peer.
#[tokio::test(flavor = "multi_thread")]
async fn a_masqueraded_container_cannot_hide_vxlan_to_another_node_in_a_later_segment() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, far) = (scene.attacker.netns(), scene.far().address());
        masquerade(scene.home());
        let listener = Listener::on(scene.far().netns());
        let (as_who, to) = (scene.sibling().address(), scene.away().address());
        hide(attacker, Ipv4Addr::UNSPECIFIED, to, as_who, far);
        sees_no(FORGED, &listener, Scene::marker(attacker, far));
    })
    .await;
}

/// A user of the attacker's host.
fn local_user(
    scene: &Scene,
    outer: Ipv4Addr,
    to: Ipv4Addr,
    speaks_as: &Container,
    hears: &Container,
) {
    let host = scene.home().netns();
    let listener = Listener::on(hears.netns());
    hide(host, outer, to, speaks_as.address(), hears.address());
    sees_no(FORGED, &listener, Scene::marker(host, hears.address()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_user_cannot_hide_vxlan_to_127_0_0_1_in_a_later_segment() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let loopback = Ipv4Addr::LOCALHOST;
        local_user(scene, loopback, loopback, scene.far(), scene.sibling());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_user_cannot_hide_vxlan_to_its_own_host_in_a_later_segment() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let own = scene.home().address();
        local_user(scene, own, own, scene.far(), scene.sibling());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_user_cannot_hide_vxlan_to_another_node_in_a_later_segment() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let (own, to) = (scene.home().address(), scene.away().address());
        local_user(scene, own, to, scene.sibling(), scene.far());
    })
    .await;
}

/// A container of another bridge, which the control plane's namespace plays.
async fn from_another_bridge(to: fn(&Scene) -> Ipv4Addr) {
    let plan = Plan {
        prepare: Some(another_bridge),
        ..Plan::default()
    };
    in_modes(HOST_MODES, plan, async |scene| {
        let (far, sibling) = (scene.far(), scene.sibling());
        let attacker = scene.pair.testbed.control().netns();
        let to = to(scene);
        // It has an interface on the underlay, which the container that it plays has not.
        if to == scene.home().address() {
            ip(attacker, &format!("route add {to}/32 via 172.17.0.1"));
        }
        let listener = Listener::on(sibling.netns());
        let from = Ipv4Addr::new(172, 17, 0, 2);
        hide(attacker, from, to, far.address(), sibling.address());
        sees_no(FORGED, &listener, |marker| {
            Scene::marker(scene.home().netns(), sibling.address())(marker);
            Scene::marker(far.netns(), sibling.address())(marker);
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_another_bridge_cannot_hide_vxlan_to_its_gateway_in_a_later_segment() {
    from_another_bridge(|_| Ipv4Addr::new(172, 17, 0, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_another_bridge_cannot_hide_vxlan_to_its_host_in_a_later_segment() {
    from_another_bridge(|scene| scene.home().address()).await;
}

async fn stranger(plan: Plan) {
    in_modes(HOST_MODES, plan, async |scene| {
        let stranger = scene.pair.stranger();
        let (far, sibling) = (scene.far(), scene.sibling());
        let listener = Listener::on(sibling.netns());
        let (from, to) = (stranger.address(), scene.home().address());
        let (netns, as_who) = (stranger.netns(), far.address());
        hide(netns, from, to, as_who, sibling.address());
        let marker = Scene::marker(far.netns(), sibling.address());
        sees_no(FORGED, &listener, marker);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_hide_vxlan_in_a_later_segment() {
    stranger(Plan::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_hide_vxlan_in_a_later_segment_where_programs_guard_alone() {
    stranger(without_rules()).await;
}

/// The measure itself: what a peer sends in this way is taken apart, and the second delivered.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_sends_in_segments_is_taken_apart() {
    in_modes(&[Mode::Off], Plan::default(), async |scene| {
        let (far, sibling) = (scene.far().address(), scene.sibling());
        let mut packet = Forged::proper(far, sibling.address(), PORT, b"second of two");
        let second = packet.bytes();
        packet.payload.fill(0);
        let both = [packet.bytes(), second.clone()].concat();
        let listener = Listener::on(sibling.netns());
        sees(b"second of two", &listener, |_| {
            pinned(scene.away().netns(), || {
                let socket = udp_socket(scene.away().address());
                let to = SocketAddrV4::new(scene.home().address(), VXLAN);
                send_in_segments(&socket, second.len(), &both, to);
            });
        });
    })
    .await;
}
