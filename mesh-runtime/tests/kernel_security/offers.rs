//! A container that offers itself as a router or as a server (CVE-2020-10749): no sibling
//! hears of it, and the host does not follow.

use std::net::{Ipv4Addr, Ipv6Addr};

use mesh_testbed::{Container, NetNs, Testbed};

use crate::{
    frames::{self, FORGED_PREFIX, ICMPV6, IPV4, IPV6},
    inside::{ip, mac},
    packet_socket::PacketSocket,
    scene::{MODES, Mode, Plan, Scene, in_modes},
    witness::{FORGED, Icmpv6, Listener, TIMES, sees_no},
};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// An extension header of eight bytes whose option is padding.
fn extension(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

const HOP_BY_HOP: u8 = 0;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;

/// How the advertisement is wrapped.
#[derive(Clone, Copy)]
enum Wrapping {
    Plain,
    Behind(&'static [u8]),
    Tagged(usize),
    /// For one of the addresses that no bridge forwards.
    PastTheBridge,
}

/// An advertisement of the attacker to all nodes.
fn advert(attacker: &Container, wrapping: Wrapping) -> Vec<u8> {
    let own = mac(attacker.netns(), "eth0");
    let source = frames::link_local(own);
    let message = frames::icmpv6(source, ALL_NODES, &frames::router_advert());
    let headers = match wrapping {
        Wrapping::Behind(headers) => headers,
        Wrapping::Plain | Wrapping::Tagged(_) | Wrapping::PastTheBridge => &[],
    };
    let (mut next, mut payload) = (ICMPV6, message);
    for &header in headers.iter().rev() {
        let mut wrapped = match header {
            // An "atomic" fragment: the first and the last at once.
            FRAGMENT => vec![next, 0, 0, 0, 0, 0, 0, 1],
            _ => extension(next).to_vec(),
        };
        wrapped.extend(payload);
        (next, payload) = (header, wrapped);
    }
    let packet = frames::ipv6(source, ALL_NODES, next, &payload);
    let mut frame = frames::ethernet(ALL_NODES_MAC, own, IPV6, &packet);
    match wrapping {
        Wrapping::Tagged(tags) => (0..tags).fold(frame, |frame, _| frames::tagged(&frame)),
        Wrapping::PastTheBridge => {
            frame[..6].copy_from_slice(&frames::reserved_mac(0x0e));
            frame
        }
        Wrapping::Plain | Wrapping::Behind(_) => frame,
    }
}

/// IPv6 as a distribution leaves it, and advertisements accepted even by a host that forwards.
fn with_ipv6(testbed: &Testbed) {
    for host in testbed.hosts() {
        for interface in ["all", "default"] {
            for (key, value) in [("disable_ipv6", "0"), ("accept_ra", "2"), ("autoconf", "1")] {
                let key = format!("net/ipv6/conf/{interface}/{key}");
                host.netns().sysctl(&key, value).unwrap();
            }
        }
    }
}

fn plan() -> Plan {
    Plan {
        prepare: Some(with_ipv6),
        ..Plan::default()
    }
}

/// What the host believes of IPv6 routers and of the network they offer.
fn taken(host: &NetNs) -> String {
    let routes = ip(host, "-6 route show default");
    let addresses = ip(host, "-6 address show scope global");
    routes + &addresses
}

/// A frame of ICMPv6 that may arrive, with the words in it.
fn echo(attacker: &Container, words: &[u8]) -> Vec<u8> {
    let own = mac(attacker.netns(), "eth0");
    let source = frames::link_local(own);
    let mut message = vec![128, 0, 0, 0, 0, 1, 0, 1];
    message.extend(words);
    let message = frames::icmpv6(source, ALL_NODES, &message);
    let packet = frames::ipv6(source, ALL_NODES, ICMPV6, &message);
    frames::ethernet(ALL_NODES_MAC, own, IPV6, &packet)
}

/// Sends the frame; neither the siblings nor the host's IPv6 gets to see it.
async fn heard_by_nobody(wrapping: Wrapping) {
    in_modes(MODES, plan(), async |scene| {
        let (attacker, sibling) = (scene.attacker.netns(), scene.sibling());
        let host = scene.home().netns();
        let on_bridge = PacketSocket::open(host, "quilt0");
        let at_sibling = PacketSocket::open(sibling.netns(), "eth0");
        let in_host = Icmpv6::open(host);
        let socket = PacketSocket::open(attacker, "eth0");
        socket.send(attacker, &vec![advert(&scene.attacker, wrapping); TIMES]);
        let marker = |words: &[u8]| {
            socket.send(attacker, &[echo(&scene.attacker, words)]);
        };
        sees_no(&FORGED_PREFIX.octets(), &at_sibling, marker);
        sees_no(&FORGED_PREFIX.octets(), &in_host, marker);
        // The port of a container that was made while the runtime was dead belongs to no set,
        // and what it sends to the host is dropped behind this tap.
        if scene.mode != Mode::MadeWhileDead {
            sees_no(&FORGED_PREFIX.octets(), &on_bridge, marker);
        }
        assert_eq!(taken(host), "");
    })
    .await;
}

/// Sends the frame; the host does not follow, whoever hears it.
async fn followed_by_no_host(wrapping: Wrapping) {
    in_modes(MODES, plan(), async |scene| {
        let (attacker, host) = (scene.attacker.netns(), scene.home().netns());
        let listener = Listener::on(host);
        let socket = PacketSocket::open(attacker, "eth0");
        socket.send(attacker, &vec![advert(&scene.attacker, wrapping); TIMES]);
        sees_no(FORGED, &listener, Scene::marker(attacker, scene.gateway()));
        assert_eq!(taken(host), "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_takes_no_container_for_its_ipv6_router() {
    followed_by_no_host(Wrapping::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_takes_no_container_for_its_ipv6_router_behind_a_tag() {
    followed_by_no_host(Wrapping::Tagged(1)).await;
}

/// By the port: a bridge hands what is for such an address to nobody but its host.
#[tokio::test(flavor = "multi_thread")]
async fn the_host_takes_no_container_for_its_ipv6_router_past_the_bridge() {
    followed_by_no_host(Wrapping::PastTheBridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_advertisement_is_heard_by_nobody() {
    heard_by_nobody(Wrapping::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_advertisement_behind_hop_by_hop_options_is_heard_by_nobody() {
    heard_by_nobody(Wrapping::Behind(&[HOP_BY_HOP])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_advertisement_behind_destination_options_is_heard_by_nobody() {
    heard_by_nobody(Wrapping::Behind(&[DESTINATION_OPTIONS])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_advertisement_behind_several_headers_is_heard_by_nobody() {
    let headers = &[
        HOP_BY_HOP,
        DESTINATION_OPTIONS,
        DESTINATION_OPTIONS,
        DESTINATION_OPTIONS,
    ];
    heard_by_nobody(Wrapping::Behind(headers)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_advertisement_in_a_fragment_is_heard_by_nobody() {
    heard_by_nobody(Wrapping::Behind(&[FRAGMENT])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_advertisement_behind_a_tag_of_vlan_0_is_heard_by_nobody() {
    heard_by_nobody(Wrapping::Tagged(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_advertisement_behind_two_tags_of_vlan_0_is_heard_by_nobody() {
    heard_by_nobody(Wrapping::Tagged(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_interface_of_ours_accepts_advertisements_or_makes_addresses_of_them() {
    in_modes(crate::scene::ALIVE, plan(), async |scene| {
        let host = scene.home().netns();
        for interface in ["quilt0", "vxlan100"] {
            for key in ["accept_ra", "autoconf"] {
                let path = format!("/proc/sys/net/ipv6/conf/{interface}/{key}");
                let value = host.run(|| std::fs::read_to_string(&path)).unwrap();
                assert_eq!(value.unwrap().trim(), "0", "{path}");
            }
        }
    })
    .await;
}

/// Sends a frame of the attacker's; no sibling hears it.
async fn no_sibling_hears(frame: fn(&Scene) -> Vec<u8>, words: &[u8]) {
    in_modes(MODES, plan(), async |scene| {
        let (attacker, sibling) = (scene.attacker.netns(), scene.sibling());
        let sniffer = PacketSocket::open(sibling.netns(), "eth0");
        let socket = PacketSocket::open(attacker, "eth0");
        socket.send(attacker, &vec![frame(scene); TIMES]);
        sees_no(words, &sniffer, Scene::marker(attacker, sibling.address()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_redirect_is_heard_by_no_sibling() {
    let redirect = |scene: &Scene| {
        let own = mac(scene.attacker.netns(), "eth0");
        let source = frames::link_local(own);
        let mut message = vec![137, 0, 0, 0, 0, 0, 0, 0];
        message.extend(source.octets());
        message.extend(FORGED_PREFIX.octets());
        let message = frames::icmpv6(source, ALL_NODES, &message);
        let packet = frames::ipv6(source, ALL_NODES, ICMPV6, &message);
        frames::ethernet(ALL_NODES_MAC, own, IPV6, &packet)
    };
    no_sibling_hears(redirect, &FORGED_PREFIX.octets()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_icmp_redirect_is_heard_by_no_sibling() {
    let redirect = |scene: &Scene| {
        let (attacker, sibling) = (&scene.attacker, scene.sibling());
        let own = attacker.address();
        let flow = (sibling.address(), 4444);
        let body = frames::udp_packet(flow, (Ipv4Addr::new(198, 51, 100, 1), 53), FORGED);
        let message = frames::icmp(5, 1, own.octets(), &body);
        let packet = frames::ipv4(own, sibling.address(), frames::ICMP, &message);
        let to = mac(sibling.netns(), "eth0");
        frames::ethernet(to, mac(attacker.netns(), "eth0"), IPV4, &packet)
    };
    no_sibling_hears(redirect, FORGED).await;
}

/// An offer of DHCP, to everybody.
fn offer_from(scene: &Scene, port: u16) -> Vec<u8> {
    let own = (scene.attacker.address(), port);
    let packet = frames::udp_packet(own, (Ipv4Addr::BROADCAST, 68), FORGED);
    let mac = mac(scene.attacker.netns(), "eth0");
    frames::ethernet(frames::BROADCAST, mac, IPV4, &packet)
}

/// A reply of DHCPv6, to everybody.
fn reply_from(scene: &Scene, port: u16) -> Vec<u8> {
    let own = mac(scene.attacker.netns(), "eth0");
    let source = (frames::link_local(own), port);
    let packet = frames::udp_packet_v6(source, (ALL_NODES, 546), FORGED);
    frames::ethernet(ALL_NODES_MAC, own, IPV6, &packet)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_dhcp_is_heard_by_no_sibling() {
    no_sibling_hears(|scene| offer_from(scene, 67), FORGED).await;
}

/// Clients look at the port they listen on alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_dhcp_from_another_port_is_heard_by_no_sibling() {
    no_sibling_hears(|scene| offer_from(scene, 6767), FORGED).await;
}

/// Clients that listen to all IPv4 do not see the tag that the kernel has taken off.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_dhcp_behind_a_vlan_tag_is_heard_by_no_sibling() {
    no_sibling_hears(|scene| frames::of_vlan(&offer_from(scene, 67), 5), FORGED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_dhcpv6_from_another_port_is_heard_by_no_sibling() {
    no_sibling_hears(|scene| reply_from(scene, 6767), FORGED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_dhcpv6_is_heard_by_no_sibling() {
    no_sibling_hears(|scene| reply_from(scene, 547), FORGED).await;
}
