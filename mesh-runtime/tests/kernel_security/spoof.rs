//! A container that may forge frames, as Docker's may by default, under another's address or
//! MAC: towards another node, and to a container on the same bridge.

use std::net::Ipv4Addr;

use crate::{
    frames::{self, IPV4, Mac},
    inside::mac,
    packet_socket::PacketSocket,
    scene::{LOADING, MODES, Mode, Plan, Scene, in_modes},
    witness::{FORGED, Listener, PORT, TIMES, sees_no},
};

/// What a container says it is.
#[derive(Clone, Copy)]
struct Claim {
    source: Ipv4Addr,
    mac: Mac,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Towards {
    AnotherNode,
    TheBridge,
    TheHost,
}

/// The attacker's own MAC.
fn own_mac(scene: &Scene) -> Mac {
    mac(scene.attacker.netns(), "eth0")
}

fn siblings_address(scene: &Scene) -> Claim {
    Claim {
        source: scene.sibling().address(),
        mac: own_mac(scene),
    }
}

fn siblings_mac(scene: &Scene) -> Claim {
    Claim {
        source: scene.attacker.address(),
        mac: mac(scene.sibling().netns(), "eth0"),
    }
}

fn siblings_address_and_mac(scene: &Scene) -> Claim {
    Claim {
        source: scene.sibling().address(),
        mac: mac(scene.sibling().netns(), "eth0"),
    }
}

fn gateways_address(scene: &Scene) -> Claim {
    Claim {
        source: scene.gateway(),
        mac: own_mac(scene),
    }
}

fn gateways_mac(scene: &Scene) -> Claim {
    Claim {
        source: scene.attacker.address(),
        mac: scene.gateway_mac(),
    }
}

/// A container of the other node.
fn far_address(scene: &Scene) -> Claim {
    Claim {
        source: scene.far().address(),
        mac: own_mac(scene),
    }
}

fn outside_address(scene: &Scene) -> Claim {
    Claim {
        source: Ipv4Addr::new(198, 51, 100, 7),
        mac: own_mac(scene),
    }
}

/// Sends UDP under a claim, and asserts that the target hears only what is genuine.
fn claims(scene: &Scene, claim: Claim, towards: Towards) {
    let (attacker, gateway_mac) = (scene.attacker.netns(), scene.gateway_mac());
    let (netns, target, next_hop) = match towards {
        Towards::AnotherNode => (scene.far().netns(), scene.far().address(), gateway_mac),
        Towards::TheBridge => {
            let other = scene.other.netns();
            (other, scene.other.address(), mac(other, "eth0"))
        }
        Towards::TheHost => (scene.home().netns(), scene.gateway(), gateway_mac),
    };
    let listener = Listener::on(netns);
    let packet = frames::udp_packet((claim.source, 4444), (target, PORT), FORGED);
    let frame = frames::ethernet(next_hop, claim.mac, IPV4, &packet);
    let socket = PacketSocket::open(attacker, "eth0");
    socket.send(attacker, &vec![frame; TIMES]);
    sees_no(FORGED, &listener, Scene::marker(attacker, target));
}

/// In all states: what is claimed belongs to another port, whether the runtime knows the attacker's
/// or not.
async fn never(claim: fn(&Scene) -> Claim, towards: Towards) {
    in_modes(MODES, Plan::default(), async |scene| {
        claims(scene, claim(scene), towards);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_address_does_not_reach_another_node() {
    never(siblings_address, Towards::AnotherNode).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_address_does_not_reach_a_container_on_the_same_bridge() {
    never(siblings_address, Towards::TheBridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_address_does_not_reach_the_host() {
    never(siblings_address, Towards::TheHost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_mac_does_not_reach_another_node() {
    never(siblings_mac, Towards::AnotherNode).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_mac_does_not_reach_a_container_on_the_same_bridge() {
    never(siblings_mac, Towards::TheBridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_address_with_its_mac_does_not_reach_another_node() {
    never(siblings_address_and_mac, Towards::AnotherNode).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_address_with_its_mac_does_not_reach_a_container_on_the_same_bridge() {
    never(siblings_address_and_mac, Towards::TheBridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_mac_does_not_reach_the_host() {
    never(siblings_mac, Towards::TheHost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_address_with_its_mac_does_not_reach_the_host() {
    never(siblings_address_and_mac, Towards::TheHost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_address_does_not_reach_another_node() {
    never(gateways_address, Towards::AnotherNode).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_address_does_not_reach_a_container_on_the_same_bridge() {
    never(gateways_address, Towards::TheBridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_mac_does_not_reach_another_node() {
    never(gateways_mac, Towards::AnotherNode).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_mac_does_not_reach_a_container_on_the_same_bridge() {
    never(gateways_mac, Towards::TheBridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_nodes_address_does_not_reach_that_node() {
    never(far_address, Towards::AnotherNode).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_nodes_address_does_not_reach_a_container_on_the_same_bridge() {
    never(far_address, Towards::TheBridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_nodes_address_does_not_reach_the_host() {
    never(far_address, Towards::TheHost).await;
}

/// What is for an address that no bridge forwards enters the host by the port, where no rule of the
/// bridge's sees it.
#[tokio::test(flavor = "multi_thread")]
async fn no_claim_reaches_the_host_past_the_bridge() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, host) = (scene.attacker.netns(), scene.home());
        let listener = Listener::on(host.netns());
        let socket = PacketSocket::open(attacker, "eth0");
        let claims = [
            siblings_address(scene),
            siblings_mac(scene),
            far_address(scene),
            outside_address(scene),
        ];
        for last in [0x02, 0x03, 0x0e, 0x0f] {
            for Claim { source, mac } in claims {
                for target in [host.address(), scene.gateway()] {
                    let packet = frames::udp_packet((source, 4444), (target, PORT), FORGED);
                    let next_hop = frames::reserved_mac(last);
                    let frame = frames::ethernet(next_hop, mac, IPV4, &packet);
                    socket.send(attacker, &vec![frame; TIMES]);
                }
            }
        }
        sees_no(FORGED, &listener, Scene::marker(attacker, scene.gateway()));
    })
    .await;
}

/// The subnet's own address, and that of everybody in it.
#[tokio::test(flavor = "multi_thread")]
async fn the_addresses_that_mean_the_subnet_reach_nobody() {
    in_modes(MODES, Plan::default(), async |scene| {
        for last in [0, 255] {
            let [a, b, c, _] = scene.gateway().octets();
            let claim = Claim {
                source: Ipv4Addr::new(a, b, c, last),
                mac: own_mac(scene),
            };
            for towards in [Towards::AnotherNode, Towards::TheBridge, Towards::TheHost] {
                claims(scene, claim, towards);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_outside_the_subnet_does_not_reach_a_container_on_the_same_bridge() {
    never(outside_address, Towards::TheBridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_outside_the_subnet_does_not_reach_the_host() {
    never(outside_address, Towards::TheHost).await;
}

/// A sibling's address, its MAC address, and both, towards everybody.
async fn a_sibling_is_impersonated_towards_nobody(modes: &[Mode], plan: Plan) {
    in_modes(modes, plan, async |scene| {
        for claim in [siblings_address, siblings_mac, siblings_address_and_mac] {
            for towards in [Towards::AnotherNode, Towards::TheBridge, Towards::TheHost] {
                claims(scene, claim(scene), towards);
            }
        }
    })
    .await;
}

/// Where the kernel takes no programs, the rules alone hold the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_is_impersonated_towards_nobody_where_rules_guard_alone() {
    let plan = Plan {
        without_programs: true,
        ..Plan::default()
    };
    let modes = [Mode::Fast, Mode::Killed, Mode::MadeWhileDead];
    a_sibling_is_impersonated_towards_nobody(&modes, plan).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_is_impersonated_towards_nobody_while_programs_are_being_loaded() {
    a_sibling_is_impersonated_towards_nobody(LOADING, Plan::default()).await;
}

/// The way in which a sibling's traffic is stolen without a word of IP: the bridge learns the
/// MAC at the attacker's port, and sends there what is the sibling's.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_with_a_siblings_mac_does_not_take_its_traffic_on_the_bridge() {
    in_modes(MODES, Plan::default(), async |scene| {
        let sibling = scene.sibling();
        let mac = mac(sibling.netns(), "eth0");
        let attacker = scene.attacker.netns();
        let socket = PacketSocket::open(attacker, "eth0");
        // A frame that no IP guard has a say in (RFC 5342: for experiments).
        let frame = frames::ethernet(scene.gateway_mac(), mac, 0x88b5, &[0; 46]);
        let listener = Listener::on(sibling.netns());
        for number in 0..TIMES {
            socket.send(attacker, std::slice::from_ref(&frame));
            let marker = Scene::marker(scene.other.netns(), sibling.address());
            let payload = format!("packet {number}");
            marker(payload.as_bytes());
            let got = crate::witness::Witness::next(&listener, crate::pair::SOON);
            assert_eq!(got.as_deref(), Some(payload.as_bytes()), "stolen: {number}");
        }
    })
    .await;
}

/// A packet from 0.0.0.0 is what a container has before it has an address.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_an_address_may_ask_for_one() {
    in_modes(MODES, Plan::default(), async |scene| {
        let attacker = scene.attacker.netns();
        let socket = PacketSocket::open(attacker, "eth0");
        let listener = Listener::on_port(scene.home().netns(), 67);
        let question = (Ipv4Addr::UNSPECIFIED, 68);
        let packet = frames::udp_packet(question, (Ipv4Addr::BROADCAST, 67), b"discover");
        let frame = frames::ethernet(frames::BROADCAST, own_mac(scene), IPV4, &packet);
        crate::witness::sees(b"discover", &listener, |_| {
            socket.send(attacker, std::slice::from_ref(&frame));
        });
    })
    .await;
}

/// An address of the subnet that nobody holds is allowed: a container may have several.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_nobody_holds_is_allowed() {
    in_modes(MODES, Plan::default(), async |scene| {
        let claim = Claim {
            source: Ipv4Addr::new(10, 42, 1, 200),
            mac: own_mac(scene),
        };
        let (attacker, far) = (scene.attacker.netns(), scene.far());
        let packet = frames::udp_packet((claim.source, 4444), (far.address(), PORT), b"unclaimed");
        let frame = frames::ethernet(scene.gateway_mac(), claim.mac, IPV4, &packet);
        let listener = Listener::on(far.netns());
        let socket = PacketSocket::open(attacker, "eth0");
        crate::witness::sees(b"unclaimed", &listener, |_| {
            socket.send(attacker, std::slice::from_ref(&frame));
        });
    })
    .await;
}

/// The same frames under the attacker's own name arrive: what the others show to be dropped is
/// dropped for its claim alone.
#[tokio::test(flavor = "multi_thread")]
async fn genuine_frames_of_the_attacker_arrive_everywhere() {
    in_modes(MODES, Plan::default(), async |scene| {
        assert_ne!(scene.attacker.address(), scene.sibling().address());
        let own = Claim {
            source: scene.attacker.address(),
            mac: own_mac(scene),
        };
        let attacker = scene.attacker.netns();
        let gateway = (scene.home().netns(), scene.gateway(), scene.gateway_mac());
        let far = scene.far();
        let other = scene.other.netns();
        for (netns, target, next_hop) in [
            gateway,
            (far.netns(), far.address(), scene.gateway_mac()),
            (other, scene.other.address(), mac(other, "eth0")),
        ] {
            let packet = frames::udp_packet((own.source, 4444), (target, PORT), b"genuine");
            let frame = frames::ethernet(next_hop, own.mac, IPV4, &packet);
            let listener = Listener::on(netns);
            let socket = PacketSocket::open(attacker, "eth0");
            crate::witness::sees(b"genuine", &listener, |_| {
                socket.send(attacker, std::slice::from_ref(&frame));
            });
        }
    })
    .await;
}

/// No kernel forwards a packet whose header does not add up, and so no program does.
#[tokio::test(flavor = "multi_thread")]
async fn a_packet_with_a_wrong_header_checksum_does_not_reach_another_node() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, far) = (scene.attacker.netns(), scene.far());
        let flow = ((scene.attacker.address(), 4444), (far.address(), PORT));
        let socket = PacketSocket::open(attacker, "eth0");
        let wire = PacketSocket::open(scene.away().netns(), "eth0");
        let marker = Scene::marker(attacker, far.address());
        let _heard = Listener::on(far.netns());
        for (byte, wrong) in [(10, 1), (10, 0x80), (11, 1), (11, 0xff)] {
            let mut packet = frames::udp_packet(flow.0, flow.1, FORGED);
            packet[byte] ^= wrong;
            let frame = frames::ethernet(scene.gateway_mac(), own_mac(scene), IPV4, &packet);
            socket.send(attacker, &vec![frame; TIMES]);
            sees_no(FORGED, &wire, &marker);
        }
    })
    .await;
}
