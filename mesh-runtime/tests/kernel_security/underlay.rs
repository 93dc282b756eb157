//! VXLAN from a machine on the underlay that is no node, however it comes in.

use std::net::{Ipv4Addr, SocketAddrV4};

use mesh_testbed::NetNs;

use crate::{
    frames::{self, IPV4, tagged},
    inside::{ip, mac, pinned, udp_socket},
    packet_socket::PacketSocket,
    pair::Forged,
    scene::{HOST_MODES, Plan, Scene, in_modes},
    witness::{FORGED, Listener, PORT, TIMES, sees_no},
};

const VXLAN: u16 = mesh_layout::VXLAN_PORT;

/// What the peer's container would send, in the peer's VXLAN.
fn as_far(scene: &Scene, payload: &[u8]) -> Vec<u8> {
    let (far, sibling) = (scene.far().address(), scene.sibling().address());
    Forged::proper(far, sibling, PORT, payload).bytes()
}

/// Runs an attack on a container of the first node, which hears only its peer.
async fn unheard(attack: impl AsyncFn(&Scene)) {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let sibling = scene.sibling();
        let listener = Listener::on(sibling.netns());
        attack(scene).await;
        sees_no(FORGED, &listener, |marker| {
            Scene::marker(scene.far().netns(), sibling.address())(marker);
        });
    })
    .await;
}

fn send(from: &NetNs, to: Ipv4Addr, packet: &[u8]) {
    pinned(from, || {
        let socket = udp_socket(Ipv4Addr::UNSPECIFIED);
        for _ in 0..TIMES {
            socket
                .send_to(packet, SocketAddrV4::new(to, VXLAN))
                .unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn vxlan_of_a_stranger_is_not_taken() {
    unheard(async |scene| {
        let stranger = scene.pair.stranger().netns();
        send(stranger, scene.home().address(), &as_far(scene, FORGED));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vxlan_of_a_stranger_to_the_gateway_is_not_taken() {
    unheard(async |scene| {
        let stranger = scene.pair.stranger().netns();
        let (gateway, via) = (scene.gateway(), scene.home().address());
        ip(stranger, &format!("route add {gateway} via {via}"));
        send(stranger, gateway, &as_far(scene, FORGED));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vxlan_of_a_stranger_in_fragments_is_not_taken() {
    unheard(async |scene| {
        let stranger = scene.pair.stranger().netns();
        let large = FORGED.repeat(2000 / FORGED.len());
        send(stranger, scene.home().address(), &as_far(scene, &large));
    })
    .await;
}

/// A frame of the stranger with VXLAN, to an interface of the first node.
fn frame(scene: &Scene, interface: &str, options: bool) -> Vec<u8> {
    let stranger = scene.pair.stranger();
    let home = scene.home();
    let flow = ((stranger.address(), 50_000), (home.address(), VXLAN));
    let packet = match options {
        true => frames::udp_packet_with_options(flow.0, flow.1, &as_far(scene, FORGED)),
        false => frames::udp_packet(flow.0, flow.1, &as_far(scene, FORGED)),
    };
    let from = mac(stranger.netns(), "eth0");
    frames::ethernet(mac(home.netns(), interface), from, IPV4, &packet)
}

fn send_frames(scene: &Scene, interface: &str, frame: Vec<u8>) {
    let stranger = scene.pair.stranger().netns();
    let socket = PacketSocket::open(stranger, interface);
    socket.send(stranger, &vec![frame; TIMES]);
}

#[tokio::test(flavor = "multi_thread")]
async fn vxlan_of_a_stranger_with_ipv4_options_is_not_taken() {
    unheard(async |scene| send_frames(scene, "eth0", frame(scene, "eth0", true))).await;
}

/// A tag of VLAN 0 stands for none: the kernel takes it off.
#[tokio::test(flavor = "multi_thread")]
async fn vxlan_of_a_stranger_behind_a_tag_of_vlan_0_is_not_taken() {
    unheard(async |scene| send_frames(scene, "eth0", tagged(&frame(scene, "eth0", false)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vxlan_of_a_stranger_behind_two_tags_with_options_is_not_taken() {
    unheard(async |scene| {
        let frame = tagged(&tagged(&frame(scene, "eth0", true)));
        send_frames(scene, "eth0", frame);
    })
    .await;
}

/// A cable from the stranger straight to the first node.
fn cable(scene: &Scene) {
    let (home, stranger) = (scene.home().netns(), scene.pair.stranger().netns());
    ip(home, "link add eth1 type veth peer name eth1-far");
    let far = stranger.path().display().to_string();
    ip(home, &format!("link set eth1-far netns {far}"));
    ip(home, "link set eth1 up");
    ip(stranger, "link set eth1-far up");
}

#[tokio::test(flavor = "multi_thread")]
async fn vxlan_that_arrives_on_an_interface_without_an_address_is_not_taken() {
    unheard(async |scene| {
        cable(scene);
        send_frames(scene, "eth1-far", frame(scene, "eth1", false));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vxlan_that_arrives_on_a_second_interface_is_not_taken() {
    unheard(async |scene| {
        cable(scene);
        ip(scene.home().netns(), "address add 203.0.113.1/24 dev eth1");
        let stranger = scene.pair.stranger().netns();
        ip(stranger, "address add 203.0.113.2/24 dev eth1-far");
        let second = Ipv4Addr::new(203, 0, 113, 1);
        send(stranger, second, &as_far(scene, FORGED));
    })
    .await;
}

/// A bridge with the card as its port carries the address, as on a host of virtual machines.
#[tokio::test(flavor = "multi_thread")]
async fn vxlan_that_arrives_over_a_bridge_of_the_host_is_not_taken() {
    unheard(async |scene| {
        cable(scene);
        let home = scene.home().netns();
        ip(home, "link add br-lan type bridge");
        ip(home, "link set eth1 master br-lan");
        ip(home, "address add 203.0.113.1/24 dev br-lan");
        ip(home, "link set br-lan up");
        let stranger = scene.pair.stranger().netns();
        ip(stranger, "address add 203.0.113.2/24 dev eth1-far");
        let second = Ipv4Addr::new(203, 0, 113, 1);
        send(stranger, second, &as_far(scene, FORGED));
    })
    .await;
}

/// A peer speaks for its own containers only, where programs look inside.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_cannot_speak_as_one_outside_the_cluster() {
    unheard(async |scene| {
        let outside = Ipv4Addr::new(198, 51, 100, 9);
        let packet = Forged::proper(outside, scene.sibling().address(), PORT, FORGED);
        let peer = scene.away().netns();
        send(peer, scene.home().address(), &packet.bytes());
    })
    .await;
}
