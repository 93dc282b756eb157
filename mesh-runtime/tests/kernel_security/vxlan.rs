//! Who may send VXLAN to a node: no container, whatever way it takes, and no local user.

use std::net::{Ipv4Addr, SocketAddrV4};

use mesh_testbed::{Container, Host, Testbed};

use crate::{
    inside::{as_nobody, ip, send_or_refused, udp_socket},
    pair::Forged,
    scene::{HOST_MODES, MODES, Plan, Scene, gateway_of, in_modes},
    tables::nft,
    witness::{FORGED, Listener, PORT, TIMES, sees_no},
};

pub(crate) const VXLAN: u16 = mesh_layout::VXLAN_PORT;

/// A container of the third host, which sends nothing itself.
pub(crate) const THIRD: Ipv4Addr = Ipv4Addr::new(10, 42, 3, 2);

/// Sends forged VXLAN as a user without privileges.
fn forge(from: &mesh_testbed::NetNs, outer: Ipv4Addr, to: Ipv4Addr, packet: &Forged) {
    let bytes = packet.bytes();
    as_nobody(from, || {
        let socket = udp_socket(outer);
        for _ in 0..TIMES {
            send_or_refused(&socket, &bytes, SocketAddrV4::new(to, VXLAN));
        }
    });
}

/// The attacker speaks as a container of the other node to its sibling.
fn speak_as_far(scene: &Scene, to: Ipv4Addr, payload: &[u8]) {
    let (far, sibling) = (scene.far(), scene.sibling());
    let listener = Listener::on(sibling.netns());
    let packet = Forged::proper(far.address(), sibling.address(), PORT, payload);
    let attacker = scene.attacker.netns();
    forge(attacker, Ipv4Addr::UNSPECIFIED, to, &packet);
    sees_no(FORGED, &listener, |marker| {
        Scene::marker(attacker, sibling.address())(marker);
        Scene::marker(far.netns(), sibling.address())(marker);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_speak_as_another_nodes_by_way_of_its_gateway() {
    in_modes(MODES, Plan::default(), async |scene| {
        speak_as_far(scene, scene.gateway(), FORGED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_speak_as_another_nodes_by_way_of_its_hosts_address() {
    in_modes(MODES, Plan::default(), async |scene| {
        speak_as_far(scene, scene.home().address(), FORGED);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_speak_as_another_nodes_in_outer_fragments() {
    in_modes(MODES, Plan::default(), async |scene| {
        let large = FORGED.repeat(2000 / FORGED.len());
        speak_as_far(scene, scene.gateway(), &large);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_speak_as_another_nodes_by_a_service_address_of_its_host() {
    in_modes(MODES, Plan::default(), async |scene| {
        ip(scene.home().netns(), "address add 203.0.113.1/32 dev lo");
        speak_as_far(scene, Ipv4Addr::new(203, 0, 113, 1), FORGED);
    })
    .await;
}

pub(crate) fn third_is_peer_and_attacker_on_second() -> Plan {
    Plan {
        on_second_node: true,
        third_is_peer: true,
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_speak_as_a_third_nodes_by_way_of_another_nodes_gateway() {
    in_modes(
        MODES,
        third_is_peer_and_attacker_on_second(),
        async |scene| {
            let (attacker, far) = (scene.attacker.netns(), scene.far());
            let listener = Listener::on(far.netns());
            let packet = Forged::proper(THIRD, far.address(), PORT, FORGED);
            let gateway = gateway_of(far.address());
            forge(attacker, Ipv4Addr::UNSPECIFIED, gateway, &packet);
            sees_no(FORGED, &listener, Scene::marker(attacker, far.address()));
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_speak_as_another_nodes_gateway_to_a_service_on_a_host() {
    in_modes(
        MODES,
        third_is_peer_and_attacker_on_second(),
        async |scene| {
            let (attacker, host) = (scene.attacker.netns(), scene.away());
            let gateway = gateway_of(scene.far().address());
            let listener = Listener::on(host.netns());
            let packet = Forged::proper(gateway_of(THIRD), gateway, PORT, FORGED);
            forge(attacker, Ipv4Addr::UNSPECIFIED, gateway, &packet);
            sees_no(FORGED, &listener, Scene::marker(attacker, gateway));
        },
    )
    .await;
}

/// Containers go out under their host's address, as with any container engine.
pub(crate) fn masquerade(host: &Host) {
    nft(
        host.netns(),
        "table inet engine {
            chain postrouting {
                type nat hook postrouting priority srcnat
                ip saddr 10.42.0.0/16 ip daddr != 10.42.0.0/16 masquerade
            }
        }",
    );
}

/// Masqueraded, the attacker is a peer to the other node, and speaks as its sibling.
fn speak_as_sibling_masqueraded(scene: &Scene, to: Ipv4Addr) {
    let (attacker, far) = (scene.attacker.netns(), scene.far());
    masquerade(scene.home());
    let listener = Listener::on(far.netns());
    let packet = Forged::proper(scene.sibling().address(), far.address(), PORT, FORGED);
    forge(attacker, Ipv4Addr::UNSPECIFIED, to, &packet);
    sees_no(FORGED, &listener, Scene::marker(attacker, far.address()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masqueraded_container_is_no_peer_to_another_node() {
    in_modes(MODES, Plan::default(), async |scene| {
        speak_as_sibling_masqueraded(scene, scene.away().address());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masqueraded_container_is_no_peer_to_a_second_address_of_another_node() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (home, away) = (scene.home(), scene.away());
        ip(away.netns(), "address add 203.0.113.9/32 dev lo");
        let route = format!("route add 203.0.113.9/32 via {}", away.address());
        ip(home.netns(), &route);
        speak_as_sibling_masqueraded(scene, Ipv4Addr::new(203, 0, 113, 9));
    })
    .await;
}

/// Names for who speaks to whom.
fn local_user(
    scene: &Scene,
    outer: Ipv4Addr,
    to: Ipv4Addr,
    speaks_as: &Container,
    hears: &Container,
) {
    let host = scene.home().netns();
    let listener = Listener::on(hears.netns());
    let packet = Forged::proper(speaks_as.address(), hears.address(), PORT, FORGED);
    forge(host, outer, to, &packet);
    sees_no(FORGED, &listener, Scene::marker(host, hears.address()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_user_cannot_send_vxlan_over_loopback_to_its_own_host() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let own = scene.home().address();
        local_user(scene, own, own, scene.far(), scene.sibling());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_user_cannot_send_vxlan_from_127_0_0_1() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let loopback = Ipv4Addr::LOCALHOST;
        local_user(scene, loopback, loopback, scene.far(), scene.sibling());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_user_cannot_send_vxlan_to_the_gateway_of_its_own_host() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let own = scene.gateway();
        local_user(scene, own, own, scene.far(), scene.sibling());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_user_cannot_send_vxlan_to_another_node() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let (own, to) = (scene.home().address(), scene.away().address());
        local_user(scene, own, to, scene.sibling(), scene.far());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_user_cannot_send_vxlan_to_another_nodes_gateway() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let to = gateway_of(scene.far().address());
        let unspecified = Ipv4Addr::UNSPECIFIED;
        local_user(scene, unspecified, to, scene.sibling(), scene.far());
    })
    .await;
}

/// A second bridge on the first host, as another engine has, and a container that the control
/// plane's namespace plays.
pub(crate) fn another_bridge(testbed: &Testbed) {
    let host = testbed.hosts()[0].netns();
    let engine = testbed.control().netns();
    ip(host, "link add docker0 type bridge");
    ip(host, "address add 172.17.0.1/16 dev docker0");
    ip(host, "link set docker0 up");
    ip(host, "link add veth-else type veth peer name else0");
    let netns = engine.path().display().to_string();
    ip(host, &format!("link set else0 netns {netns}"));
    ip(host, "link set veth-else master docker0 up");
    ip(engine, "address add 172.17.0.2/16 dev else0");
    ip(engine, "link set else0 up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_another_bridge_cannot_send_vxlan_to_its_host() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        another_bridge(&scene.pair.testbed);
        let (far, sibling) = (scene.far(), scene.sibling());
        // The control plane's namespace, which does nothing here, plays the container.
        let attacker = scene.pair.testbed.control().netns();
        let listener = Listener::on(sibling.netns());
        let packet = Forged::proper(far.address(), sibling.address(), PORT, FORGED);
        let (from, to) = (Ipv4Addr::new(172, 17, 0, 2), Ipv4Addr::new(172, 17, 0, 1));
        forge(attacker, from, to, &packet);
        sees_no(
            FORGED,
            &listener,
            Scene::marker(scene.home().netns(), sibling.address()),
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masqueraded_container_of_another_bridge_is_no_peer_to_another_node() {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        another_bridge(&scene.pair.testbed);
        let (home, away) = (scene.home(), scene.away());
        nft(
            home.netns(),
            "table inet engine {
                chain postrouting {
                    type nat hook postrouting priority srcnat
                    ip saddr 172.17.0.0/16 oifname != \"docker0\" masquerade
                }
            }",
        );
        let attacker = scene.pair.testbed.control().netns();
        // It has an interface on the underlay, which the container that it plays has not.
        let route = format!("route add {}/32 via 172.17.0.1", away.address());
        ip(attacker, &route);
        let listener = Listener::on(scene.far().netns());
        let packet = Forged::proper(
            scene.sibling().address(),
            scene.far().address(),
            PORT,
            FORGED,
        );
        let from = Ipv4Addr::new(172, 17, 0, 2);
        forge(attacker, from, away.address(), &packet);
        let marker = Scene::marker(home.netns(), scene.far().address());
        sees_no(FORGED, &listener, marker);
    })
    .await;
}
