//! A container that says by ARP that it is the gateway, or its sibling.

use std::net::Ipv4Addr;

use mesh_testbed::{PingOptions, ping};

use crate::{
    frames::{self, Mac, announcements},
    inside::{ip, mac},
    packet_socket::PacketSocket,
    pair::SOON,
    scene::{MODES, Plan, Scene, in_modes},
    witness::{Listener, PORT, TIMES, Witness as _, sees_no},
};

/// What an ARP packet says of its sender: what a forged one is recognised by.
fn words(sender: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut words = sender.to_vec();
    words.extend(address.octets());
    words
}

/// The MAC that a namespace has for an address, as `ip neighbour` prints it.
fn neighbour(netns: &mesh_testbed::NetNs, interface: &str, address: Ipv4Addr) -> String {
    ip(netns, &format!("neighbour show {address} dev {interface}"))
}

fn printed(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The attacker announces `address` as its own; nobody on the bridge hears it.
fn announced_to_nobody(scene: &Scene, address: Ipv4Addr, to: &mesh_testbed::Container) {
    let attacker = scene.attacker.netns();
    let own = mac(attacker, "eth0");
    let sniffer = PacketSocket::open(to.netns(), "eth0");
    let socket = PacketSocket::open(attacker, "eth0");
    // The victim knows the true one, which is what an announcement would overwrite.
    let victim = (mac(to.netns(), "eth0"), to.address());
    for _ in 0..TIMES {
        socket.send(attacker, &announcements(own, address, victim));
    }
    let marker = Scene::marker(attacker, to.address());
    sees_no(&words(own, address), &sniffer, marker);
    let known = neighbour(to.netns(), "eth0", address);
    assert!(!known.contains(&printed(own)), "{known}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_address_is_announced_to_no_sibling() {
    in_modes(MODES, Plan::default(), async |scene| {
        announced_to_nobody(scene, scene.gateway(), scene.sibling());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_packets_to_other_nodes_all_arrive_while_the_gateway_is_announced() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, sibling) = (scene.attacker.netns(), scene.sibling());
        let own = mac(attacker, "eth0");
        let socket = PacketSocket::open(attacker, "eth0");
        let victim = (mac(sibling.netns(), "eth0"), sibling.address());
        let frames = announcements(own, scene.gateway(), victim);
        let once = PingOptions {
            count: 1,
            ..PingOptions::default()
        };
        for number in 0..TIMES {
            socket.send(attacker, &frames);
            let report = ping(sibling.netns(), scene.far().address(), once).await;
            assert!(report.unwrap().is_complete(), "packet {number} was lost");
        }
    })
    .await;
}

/// A reply under the gateway's own MAC, from the wrong port: the bridge would learn it there.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_address_with_its_mac_is_announced_to_no_sibling() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, sibling) = (scene.attacker.netns(), scene.sibling());
        let gateway = (scene.gateway_mac(), scene.gateway());
        let needle = words(gateway.0, gateway.1);
        // The gateway speaks for itself now and then: told apart by the target.
        let target = ([0; 6], Ipv4Addr::new(10, 42, 1, 254));
        let packet = frames::arp(frames::ARP_REPLY, gateway, target);
        let frame = frames::ethernet(frames::BROADCAST, gateway.0, frames::ARP, &packet);
        let mut whole = needle;
        whole.extend(target.0);
        whole.extend(target.1.octets());
        let sniffer = PacketSocket::open(sibling.netns(), "eth0");
        let socket = PacketSocket::open(attacker, "eth0");
        socket.send(attacker, &vec![frame; TIMES]);
        sees_no(&whole, &sniffer, Scene::marker(attacker, sibling.address()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_address_is_announced_to_nobody_on_the_bridge() {
    in_modes(MODES, Plan::default(), async |scene| {
        announced_to_nobody(scene, scene.sibling().address(), &scene.other);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_does_not_learn_a_siblings_address_from_the_attacker() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (host, attacker) = (scene.home().netns(), scene.attacker.netns());
        let own = mac(attacker, "eth0");
        let socket = PacketSocket::open(attacker, "eth0");
        let gateway = (scene.gateway_mac(), scene.gateway());
        let frames = announcements(own, scene.sibling().address(), gateway);
        for _ in 0..TIMES {
            socket.send(attacker, &frames);
        }
        let listener = Listener::on(host);
        let marker = Scene::marker(attacker, scene.gateway());
        sees_no(b"nothing of this kind", &listener, marker);
        let known = neighbour(host, "quilt0", scene.sibling().address());
        assert!(!known.contains(&printed(own)), "{known}");
    })
    .await;
}

/// An address outside the subnet, with which the attacker would be another network's router.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_outside_the_subnet_is_announced_to_no_sibling() {
    in_modes(MODES, Plan::default(), async |scene| {
        let outside = Ipv4Addr::new(192, 0, 2, 3);
        announced_to_nobody(scene, outside, scene.sibling());
    })
    .await;
}

/// The attacker has its sibling's address too, answers for it and announces it; what another
/// node sends to the address is the sibling's all the same.
#[tokio::test(flavor = "multi_thread")]
async fn who_adds_a_siblings_address_gets_nothing_from_another_node() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, sibling) = (scene.attacker.netns(), scene.sibling());
        let stolen = sibling.address();
        ip(attacker, &format!("address add {stolen}/24 dev eth0"));
        let own = mac(attacker, "eth0");
        let gateway = (scene.gateway_mac(), scene.gateway());
        let socket = PacketSocket::open(attacker, "eth0");
        let thief = Listener::on(attacker);
        let owner = Listener::on(sibling.netns());
        let send = Scene::marker(scene.far().netns(), stolen);
        for number in 0..4 * TIMES {
            socket.send(attacker, &announcements(own, stolen, gateway));
            // The announcement has been taken in when this has.
            Scene::marker(attacker, scene.gateway())(b"after it");
            let payload = format!("packet {number}");
            send(payload.as_bytes());
            let got = owner.next(SOON / 10);
            let stolen = thief.next(std::time::Duration::from_millis(1));
            assert_eq!(stolen, None, "the thief got it");
            assert_eq!(got.as_deref(), Some(payload.as_bytes()));
        }
    })
    .await;
}

/// The same for what comes from the host itself, and from a container on the bridge.
#[tokio::test(flavor = "multi_thread")]
async fn who_adds_a_siblings_address_gets_nothing_from_its_host_and_its_bridge() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, sibling) = (scene.attacker.netns(), scene.sibling());
        let stolen = sibling.address();
        ip(attacker, &format!("address add {stolen}/24 dev eth0"));
        let own = mac(attacker, "eth0");
        let socket = PacketSocket::open(attacker, "eth0");
        let thief = Listener::on_port(attacker, PORT);
        let owner = Listener::on(sibling.netns());
        let neighbours = [
            (scene.home().netns(), scene.gateway_mac(), scene.gateway()),
            (
                scene.other.netns(),
                mac(scene.other.netns(), "eth0"),
                scene.other.address(),
            ),
        ];
        for number in 0..2 * TIMES {
            for (from, mac, address) in neighbours {
                socket.send(attacker, &announcements(own, stolen, (mac, address)));
                let payload = format!("packet {number} of {address}");
                Scene::marker(from, stolen)(payload.as_bytes());
                let got = owner.next(SOON / 10);
                let stolen = thief.next(std::time::Duration::from_millis(1));
                assert_eq!(stolen, None, "the thief got it");
                assert_eq!(got.as_deref(), Some(payload.as_bytes()));
            }
        }
    })
    .await;
}
