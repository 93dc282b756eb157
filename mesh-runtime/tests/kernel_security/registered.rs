//! A registered container, root over its own namespace and with raw sockets: address, MAC address and port
//! belong together, whatever it gives its interface.

use std::net::Ipv4Addr;

use mesh_testbed::NetNs;

use crate::{
    frames::{self, ARP, IPV4, IPV6, Mac, announcements},
    inside::{ip, mac, run},
    packet_socket::PacketSocket,
    pair::{SOON, counters},
    register::{ADDRESS, MAC, Registration, printed},
    scene::{ALIVE, HOST_MODES, Mode, Plan, Scene, in_modes},
    taken::nobody_else_speaks_as_it,
    witness::{FORGED, Listener, PORT, TIMES, Witness as _, sees, sees_no},
};

/// An address of the subnet that nobody has.
const FREE: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 200);
/// A MAC address that nobody has.
const MADE_UP: Mac = [0x02, 0, 0, 0, 0, 0x77];

/// With a runtime and without.
pub(crate) const LIVES: &[Mode] = &[Mode::Fast, Mode::Killed];

fn plan() -> Plan {
    Plan {
        registered: Some(Registration::default()),
        ..Plan::default()
    }
}

pub(crate) fn without_programs(plan: Plan) -> Plan {
    Plan {
        without_programs: true,
        ..plan
    }
}

pub(crate) fn without_rules(plan: Plan) -> Plan {
    Plan {
        without_rules: true,
        ..plan
    }
}

/// Sends UDP from an address and a MAC address, to another node, a container on the bridge and the host;
/// none of them hears it.
pub(crate) fn is_heard_nowhere(scene: &Scene, from: &NetNs, source: Ipv4Addr, mac_address: Mac) {
    let gateway_mac = scene.gateway_mac();
    let (other, far) = (&scene.other, scene.far());
    for (netns, target, next_hop) in [
        (far.netns(), far.address(), gateway_mac),
        (other.netns(), other.address(), mac(other.netns(), "eth0")),
        (scene.home().netns(), scene.gateway(), gateway_mac),
    ] {
        let listener = Listener::on(netns);
        let packet = frames::udp_packet((source, 4444), (target, PORT), FORGED);
        let frame = frames::ethernet(next_hop, mac_address, IPV4, &packet);
        let socket = PacketSocket::open(from, "eth0");
        socket.send(from, &vec![frame; TIMES]);
        sees_no(FORGED, &listener, Scene::marker(from, target));
    }
}

/// What an ARP packet says of its sender.
fn words(sender: Mac, address: Ipv4Addr) -> Vec<u8> {
    [&sender[..], &address.octets()].concat()
}

/// Announces an address at a MAC address, in frames of another perhaps; nobody on the bridge hears it.
pub(crate) fn is_announced_to_nobody(
    scene: &Scene,
    from: &NetNs,
    address: Ipv4Addr,
    named: Mac,
    frame_mac: Mac,
) {
    let other = &scene.other;
    let sniffer = PacketSocket::open(other.netns(), "eth0");
    let socket = PacketSocket::open(from, "eth0");
    let victim = (mac(other.netns(), "eth0"), other.address());
    for mut frame in announcements(named, address, victim) {
        frame[6..12].copy_from_slice(&frame_mac);
        socket.send(from, &vec![frame; TIMES]);
    }
    let marker = Scene::marker(from, other.address());
    sees_no(&words(named, address), &sniffer, marker);
}

/// The MAC addresses that the bridge has learnt.
fn bridge_knows(scene: &Scene, mac: Mac) -> bool {
    let entries = run(scene.home().netns(), "bridge", "fdb show br quilt0");
    entries.contains(&printed(mac))
}

pub(crate) fn speaks_only_as_itself(scene: &Scene) {
    let from = scene.registered().netns();
    let sibling = scene.sibling();
    let siblings_mac = mac(sibling.netns(), "eth0");
    for (source, mac) in [
        (sibling.address(), MAC),
        (FREE, MAC),
        (ADDRESS, siblings_mac),
        (ADDRESS, MADE_UP),
        (FREE, MADE_UP),
        (sibling.address(), siblings_mac),
    ] {
        is_heard_nowhere(scene, from, source, mac);
    }
    assert!(!bridge_knows(scene, MADE_UP), "it was learnt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_container_speaks_from_no_other_address_and_with_no_other_mac() {
    in_modes(HOST_MODES, plan(), async |scene| {
        speaks_only_as_itself(scene)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_container_speaks_only_as_itself_where_there_are_no_programs() {
    let plan = without_programs(plan());
    in_modes(LIVES, plan, async |scene| speaks_only_as_itself(scene)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_container_speaks_only_as_itself_where_there_are_no_rules() {
    let plan = without_rules(plan());
    in_modes(LIVES, plan, async |scene| speaks_only_as_itself(scene)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_container_speaks_only_as_itself_after_a_restart_of_the_runtime() {
    in_modes(&[Mode::Killed], plan(), async |scene| {
        scene.revive().await;
        speaks_only_as_itself(scene);
        nobody_else_speaks_as_it(scene);
    })
    .await;
}

pub(crate) fn announces_only_itself(scene: &Scene) {
    let from = scene.registered().netns();
    let sibling = scene.sibling();
    let siblings_mac = mac(sibling.netns(), "eth0");
    for (address, named, frame) in [
        (sibling.address(), MAC, MAC),
        (FREE, MAC, MAC),
        (ADDRESS, siblings_mac, MAC),
        (ADDRESS, MADE_UP, MAC),
        (ADDRESS, MADE_UP, MADE_UP),
    ] {
        is_announced_to_nobody(scene, from, address, named, frame);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_container_announces_no_other_address_and_no_other_mac() {
    in_modes(HOST_MODES, plan(), async |scene| {
        announces_only_itself(scene)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_container_announces_only_itself_where_there_are_no_programs() {
    let plan = without_programs(plan());
    in_modes(LIVES, plan, async |scene| announces_only_itself(scene)).await;
}

/// A frame of any protocol fills the bridge's table, also one that no bridge forwards, and one of LLDP, from which a bridge
/// learns before any rule sees it (`br_handle_frame`).
#[tokio::test(flavor = "multi_thread")]
async fn a_registered_container_has_the_bridge_learn_no_mac_that_it_makes_up() {
    for without_programs in [false, true] {
        let plan = Plan {
            without_programs,
            ..plan()
        };
        in_modes(LIVES, plan, async |scene| {
            let from = scene.registered().netns();
            let socket = PacketSocket::open(from, "eth0");
            let made_up = |last| [0x02, 0, 0, 0, 0x88, last];
            let sent = [
                (frames::BROADCAST, ARP),
                (frames::BROADCAST, IPV6),
                (frames::BROADCAST, 0x88b5),
                (scene.gateway_mac(), 0x88b5),
                (frames::reserved_mac(0x02), 0x88b5),
                (frames::reserved_mac(0x0e), 0x88cc),
            ];
            for (last, &(to, ethertype)) in (0_u8..).zip(&sent) {
                let frame = frames::ethernet(to, made_up(last), ethertype, &[0; 46]);
                let of_vlan = frames::of_vlan(&frame, 7);
                socket.send(from, &vec![frame; TIMES]);
                socket.send(from, &vec![of_vlan; TIMES]);
            }
            // What was sent before it has been judged when this has arrived.
            let listener = Listener::on(scene.home().netns());
            sees(b"after it", &listener, Scene::marker(from, scene.gateway()));
            let learnt: Vec<u8> = (0..6)
                .filter(|last| bridge_knows(scene, made_up(*last)))
                .collect();
            assert!(
                learnt.is_empty(),
                "{learnt:?} with programs missing: {without_programs}"
            );
        })
        .await;
    }
}

/// What it gives its interface counts for nothing, and does not take what it has from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_registered_container_that_changes_its_address_and_mac_inside_has_what_was_registered() {
    in_modes(HOST_MODES, plan(), async |scene| {
        let inside = scene.registered().netns();
        let far = scene.far();
        ip(inside, &format!("address add {FREE}/24 dev eth0"));
        ip(inside, "link set eth0 down");
        ip(
            inside,
            &format!("link set eth0 address {}", printed(MADE_UP)),
        );
        ip(inside, "link set eth0 up");
        ip(inside, "route replace default via 10.42.1.1");
        if scene.mode != Mode::Killed {
            // It has had time to look when it has answered.
            let status = scene.home().status().await.unwrap();
            let wrong = |it: &mesh_proto::mesh::Endpoint| {
                it.address == FREE.to_string() || it.mac == printed(MADE_UP)
            };
            assert!(
                !status.endpoints.iter().any(wrong),
                "{:?}",
                status.endpoints
            );
        }
        let listener = Listener::on(far.netns());
        for source in [ADDRESS, FREE] {
            let socket = inside
                .run(|| std::net::UdpSocket::bind((source, 0)))
                .unwrap()
                .unwrap();
            for _ in 0..TIMES {
                // The kernel may not have found the gateway, of which it hears nothing.
                let _ = socket.send_to(FORGED, (far.address(), PORT));
            }
        }
        let marker = Scene::marker(scene.sibling().netns(), far.address());
        sees_no(FORGED, &listener, marker);
        drop(listener);
        // As it was registered, it speaks again.
        ip(inside, &format!("address del {FREE}/24 dev eth0"));
        ip(inside, "link set eth0 down");
        ip(inside, &format!("link set eth0 address {}", printed(MAC)));
        ip(inside, "link set eth0 up");
        ip(inside, "route replace default via 10.42.1.1");
        let listener = Listener::on(far.netns());
        sees(
            b"itself again",
            &listener,
            Scene::marker(inside, far.address()),
        );
        let listener = Listener::on(inside);
        sees(b"and hears", &listener, Scene::marker(far.netns(), ADDRESS));
    })
    .await;
}

/// What was on its way when nothing had been sent to it, and nothing by it.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_packet_of_a_registered_container_in_either_direction_takes_the_fast_path() {
    let plan = Plan {
        registered: Some(Registration {
            bare: true,
            ..Registration::default()
        }),
        ..Plan::default()
    };
    in_modes(&[Mode::Fast], plan, async |scene| {
        let registered = scene.registered();
        let inside = registered.netns();
        let (home, far) = (scene.home(), scene.far());
        // Nothing of its own but what is sent here: no discovery of neighbours.
        inside
            .sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")
            .unwrap();
        let status = home.status().await.unwrap();
        let endpoint = status
            .endpoints
            .iter()
            .find(|it| it.address == ADDRESS.to_string());
        let endpoint = endpoint.expect("its entry is there before its interface is up");
        assert_eq!(endpoint.mac, printed(MAC));
        registered.bring_up();
        let before = counters(home).await;
        let listener = Listener::on(inside);
        Scene::marker(far.netns(), ADDRESS)(b"the first");
        assert_eq!(
            listener.next(SOON).as_deref(),
            Some(b"the first".as_slice())
        );
        let listener = Listener::on(far.netns());
        Scene::marker(inside, far.address())(b"the first");
        assert_eq!(
            listener.next(SOON).as_deref(),
            Some(b"the first".as_slice())
        );
        let after = counters(home).await;
        let fast = |it: &mesh_proto::mesh::PeerStatus| it.fast_path.unwrap_or_default();
        let kernel = |it: &mesh_proto::mesh::PeerStatus| it.kernel_path.unwrap_or_default();
        assert_eq!(fast(&after).rx_packets, fast(&before).rx_packets + 1);
        assert_eq!(fast(&after).tx_packets, fast(&before).tx_packets + 1);
        assert_eq!(kernel(&after), kernel(&before));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_container_reaches_and_is_reached_as_itself() {
    for without_programs in [false, true] {
        let plan = Plan {
            without_programs,
            ..plan()
        };
        let modes = match without_programs {
            true => LIVES,
            false => HOST_MODES,
        };
        in_modes(modes, plan, async |scene| {
            let inside = scene.registered().netns();
            let (far, other) = (scene.far(), &scene.other);
            for (netns, address) in [
                (far.netns(), far.address()),
                (other.netns(), other.address()),
                (scene.home().netns(), scene.gateway()),
            ] {
                let listener = Listener::on(netns);
                sees(b"from it", &listener, Scene::marker(inside, address));
                let listener = Listener::on(inside);
                sees(b"to it", &listener, Scene::marker(netns, ADDRESS));
            }
            if scene.mode != Mode::Killed {
                let status = scene.home().status().await.unwrap();
                let spoofed = ["spoofed_address", "spoofed_mac"]
                    .map(|reason| status.drops.get(reason).copied().unwrap_or_default());
                assert_eq!(spoofed, [0, 0], "of its own packets");
            }
        })
        .await;
    }
}

/// It may look whether its address is free, and for a DHCP server (RFC 5227, RFC 2131).
#[tokio::test(flavor = "multi_thread")]
async fn a_registered_container_may_ask_before_it_has_an_address() {
    in_modes(ALIVE, plan(), async |scene| {
        let inside = scene.registered().netns();
        let socket = PacketSocket::open(inside, "eth0");
        let listener = Listener::on_port(scene.home().netns(), 67);
        let question = (Ipv4Addr::UNSPECIFIED, 68);
        let packet = frames::udp_packet(question, (Ipv4Addr::BROADCAST, 67), b"discover");
        let frame = frames::ethernet(frames::BROADCAST, MAC, IPV4, &packet);
        sees(b"discover", &listener, |_| {
            socket.send(inside, std::slice::from_ref(&frame));
        });
        let probe = (MAC, Ipv4Addr::UNSPECIFIED);
        let packet = frames::arp(frames::ARP_REQUEST, probe, ([0; 6], ADDRESS));
        let frame = frames::ethernet(frames::BROADCAST, MAC, ARP, &packet);
        let sniffer = PacketSocket::open(scene.other.netns(), "eth0");
        sees(&packet, &sniffer, |_| {
            socket.send(inside, std::slice::from_ref(&frame));
        });
    })
    .await;
}
