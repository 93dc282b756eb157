//! A tag of VLAN 0 stands for none, and the kernel takes it off: whoever forges something
//! behind one is held as without.

use crate::{
    frames::{self, ARP, ARP_REPLY, IPV4, tagged},
    inside::mac,
    packet_socket::PacketSocket,
    pair::Forged,
    scene::{MODES, Plan, Scene, in_modes},
    witness::{FORGED, Listener, PORT, TIMES, Witness, sees_no},
};

/// Sends a frame of the attacker behind one tag and behind two; the witness sees neither.
fn unseen(
    scene: &Scene,
    frame: &[u8],
    witness: &impl Witness,
    words: &[u8],
    marker: impl Fn(&[u8]),
) {
    let attacker = scene.attacker.netns();
    let socket = PacketSocket::open(attacker, "eth0");
    let frames = [tagged(frame), tagged(&tagged(frame))];
    for _ in 0..TIMES {
        socket.send(attacker, &frames);
    }
    sees_no(words, witness, marker);
}

#[tokio::test(flavor = "multi_thread")]
async fn vxlan_of_a_container_to_its_gateway_is_not_taken_behind_a_tag() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (far, sibling) = (scene.far(), scene.sibling());
        let inner = Forged::proper(far.address(), sibling.address(), PORT, FORGED);
        let own = (scene.attacker.address(), 50_000);
        let to = (scene.gateway(), mesh_layout::VXLAN_PORT);
        let packet = frames::udp_packet(own, to, &inner.bytes());
        let mac = mac(scene.attacker.netns(), "eth0");
        let frame = frames::ethernet(scene.gateway_mac(), mac, IPV4, &packet);
        let listener = Listener::on(sibling.netns());
        let marker = Scene::marker(scene.attacker.netns(), sibling.address());
        unseen(scene, &frame, &listener, FORGED, marker);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_address_reaches_no_sibling_behind_a_tag() {
    in_modes(MODES, Plan::default(), async |scene| {
        let sibling = scene.sibling();
        let packet = frames::udp_packet((scene.gateway(), 4444), (sibling.address(), PORT), FORGED);
        let own = mac(scene.attacker.netns(), "eth0");
        let frame = frames::ethernet(mac(sibling.netns(), "eth0"), own, IPV4, &packet);
        let listener = Listener::on(sibling.netns());
        let marker = Scene::marker(scene.attacker.netns(), sibling.address());
        unseen(scene, &frame, &listener, FORGED, marker);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_address_reaches_no_other_node_behind_a_tag() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (far, sibling) = (scene.far(), scene.sibling());
        let packet = frames::udp_packet((sibling.address(), 4444), (far.address(), PORT), FORGED);
        let own = mac(scene.attacker.netns(), "eth0");
        let frame = frames::ethernet(scene.gateway_mac(), own, IPV4, &packet);
        let listener = Listener::on(far.netns());
        let marker = Scene::marker(scene.attacker.netns(), far.address());
        unseen(scene, &frame, &listener, FORGED, marker);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_address_is_announced_to_no_sibling_behind_a_tag() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, sibling) = (scene.attacker.netns(), scene.sibling());
        let own = mac(attacker, "eth0");
        let victim = (mac(sibling.netns(), "eth0"), sibling.address());
        let packet = frames::arp(ARP_REPLY, (own, scene.gateway()), victim);
        let frame = frames::ethernet(victim.0, own, ARP, &packet);
        let sniffer = PacketSocket::open(sibling.netns(), "eth0");
        let mut words = own.to_vec();
        words.extend(scene.gateway().octets());
        let marker = Scene::marker(attacker, sibling.address());
        unseen(scene, &frame, &sniffer, &words, marker);
    })
    .await;
}
