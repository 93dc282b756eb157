//! What must hold of the model itself, whatever the packet: if it were wrong in the same way
//! as the programs, comparing the two would show nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{cell::Cell, net::Ipv4Addr};

use mesh_layout::{
    CONFIG_GUARD_ONLY, DropReason, ENDPOINT_HELD, ETHERNET_LEN, IPV4_LEN, PROTOCOL_UDP, PassReason,
    UDP_LEN,
};
use mesh_model::{
    Arrival, Ethernet, Ipv4, Node, Outcome, Program, Redirect, SOURCE_PORTS, Udp, Verdict, Vxlan,
    Way, catch_all, decapsulate, encapsulate,
    generate::{Devices, Generated, Random, node, packet, peer_addresses},
    header_checksum,
};
use proptest::prelude::*;

#[allow(dead_code, reason = "the kernel's tests use the rest")]
#[path = "harness/node.rs"]
mod two_nodes;
use two_nodes::{
    CONTAINER, CONTAINER_MAC, GATEWAY_MAC, HOST, OTHER_REMOTE, OVERLAY_MTU, PEER, PORT, REMOTE,
    SIBLING_PORT, UNDERLAY, UNDERLAY_MTU, from_container, the_peers_node, two_peers,
};

fn arrival(packet: &[u8], flow_port: u16) -> Arrival<'_> {
    Arrival {
        flow_port,
        ..Arrival::single(packet, PORT)
    }
}

proptest! {
    #[test]
    fn a_packet_through_the_tunnel_is_the_same_two_hops_later_and_from_the_gateway(
        data in prop::collection::vec(any::<u8>(), 0..1400),
        tos: u8,
        ttl in 3_u8..,
        protocol: u8,
        identification: u16,
        dont_fragment: bool,
        flow_port in SOURCE_PORTS,
    ) {
        let mut frame = from_container(&data);
        frame.ip = Ipv4 { tos, ttl, protocol, identification, dont_fragment, ..frame.ip };
        let sent = frame.bytes();
        let (a, b) = (two_peers(2), the_peers_node(2));

        let out = encapsulate(&a, &arrival(&sent, flow_port));
        prop_assert_eq!(
            out.verdict,
            Verdict::Redirect(Redirect::Neighbour { link: UNDERLAY, next_hop: PEER })
        );
        let arrived = decapsulate(&b, &arrival(&out.packet, 0));
        prop_assert_eq!(arrived.verdict, Verdict::Redirect(Redirect::Container { link: PORT }));

        frame.ip.ttl -= 2;
        frame.ethernet = Ethernet {
            destination: CONTAINER_MAC,
            source: b.config.bridge_mac,
            ..frame.ethernet
        };
        prop_assert_eq!(&arrived.packet, &frame.bytes());
        let (sent, received) = (out.counted.unwrap().add, arrived.counted.unwrap().add);
        prop_assert_eq!(sent.tx_packets, received.rx_packets);
        prop_assert_eq!(sent.tx_bytes, received.rx_bytes);
    }

    #[test]
    fn what_goes_to_the_underlay_is_valid_vxlan_no_larger_than_its_mtu(
        data in prop::collection::vec(any::<u8>(), 0..=OVERLAY_MTU as usize - 28),
        tos: u8,
        flow_port in SOURCE_PORTS,
    ) {
        let mut frame = from_container(&data);
        frame.ip.tos = tos;
        let out = encapsulate(&two_peers(2), &arrival(&frame.bytes(), flow_port)).packet;

        let outer = &out[ETHERNET_LEN..];
        prop_assert!(outer.len() <= OVERLAY_MTU as usize + 50);
        let ip = Ipv4::read(outer).unwrap();
        prop_assert!(ip.is_valid() && !ip.has_options() && !ip.is_fragment());
        prop_assert_eq!(usize::from(ip.total_length), outer.len());
        prop_assert_eq!(header_checksum(&outer[..IPV4_LEN]), 0);
        prop_assert_eq!((ip.source, ip.destination, ip.protocol), (HOST, PEER, PROTOCOL_UDP));
        let udp = Udp::read(&outer[IPV4_LEN..]).unwrap();
        prop_assert_eq!(usize::from(udp.length), outer.len() - IPV4_LEN);
        prop_assert_eq!((udp.source, udp.destination, udp.checksum), (flow_port, 4789, 0));
        let vxlan = Vxlan::read(&outer[IPV4_LEN + UDP_LEN..]).unwrap();
        prop_assert_eq!((vxlan.flags, vxlan.vni), (0x08, 100));
    }
}

/// Runs `look` over generated packets, whatever programs they are meant for, on nodes whose
/// list of VTEPs agrees with their peers.
fn over_generated(look: impl Fn(&Node, &Generated)) {
    let devices = Devices {
        overlays: vec![(2, 1450)],
        ports: vec![PORT, SIBLING_PORT],
        underlay: UNDERLAY,
        ways: peer_addresses()
            .map(|next_hop| {
                let way = Way {
                    link: UNDERLAY,
                    next_hop,
                    mtu: UNDERLAY_MTU,
                };
                (next_hop, way)
            })
            .collect(),
    };
    let mut random = Random::new(0x70_726f_7065_7274);
    for _ in 0..400 {
        let mut node = node(&mut random, &devices);
        for peer in node.peers.values() {
            let key = mesh_layout::VtepKey {
                address: peer.address,
            };
            let counters = peer.counters;
            node.vteps.insert(key, mesh_layout::Vtep { counters });
        }
        for _ in 0..250 {
            look(&node, &packet(&mut random, &node));
        }
    }
}

/// The kernel's own VXLAN receiver, which accepts its VNI from anybody, with IPv4 options or
/// without: the outer source and what the inner headers say, if it would take the packet.
fn kernel_takes(node: &Node, packet: &[u8]) -> Option<(Ipv4Addr, Option<Ipv4>)> {
    Ethernet::read(packet).filter(|it| it.ethertype == 0x0800)?;
    let outer = Ipv4::read(&packet[ETHERNET_LEN..])?;
    let whole = outer.is_valid() && outer.fragment_offset == 0 && outer.protocol == PROTOCOL_UDP;
    let udp = packet
        .get(ETHERNET_LEN + outer.length()..)
        .filter(|_| whole)?;
    let vxlan = Vxlan::read(udp.get(UDP_LEN..)?)?;
    let ours = !node.forwards(outer.destination)
        && u32::from(Udp::read(udp)?.destination) == node.config.port
        && vxlan.has_vni()
        && vxlan.vni == node.config.vni;
    let inner = udp.get(16 + ETHERNET_LEN..).and_then(Ipv4::read);
    ours.then_some((outer.source, inner))
}

#[test]
fn nothing_that_the_kernels_vxlan_would_take_gets_past_the_guards() {
    over_generated(|node, Generated { packet, link, .. }| {
        let verdict = decapsulate(node, &Arrival::single(packet, *link)).verdict;
        let let_in = matches!(verdict, Verdict::Pass(_) | Verdict::Redirect(_));
        if let (true, Some((outer_source, inner))) = (let_in, kernel_takes(node, packet)) {
            let inner = inner.expect("nothing is let in unread");
            let sender = node.peer(inner.source).expect("a peer's subnet");
            assert_eq!(Ipv4Addr::from(sender.address), outer_source);
            assert!(node.owns(inner.destination));
        }
    });
}

#[test]
fn what_is_delivered_was_ours_to_deliver() {
    over_generated(|node, Generated { packet, link, .. }| {
        let outcome = decapsulate(node, &Arrival::single(packet, *link));
        if let Verdict::Redirect(_) = outcome.verdict {
            let (source, inner) = kernel_takes(node, packet).expect("VXLAN to us");
            let inner = inner.expect("an inner packet");
            assert_eq!(
                Some(source.octets()),
                node.peer(inner.source).map(|it| it.address)
            );
            assert!(node.endpoint(inner.destination).is_some());
            let delivered = Ipv4::read(&outcome.packet[ETHERNET_LEN..]).unwrap();
            assert_eq!(delivered.ttl, inner.ttl - 1);
        }
    });
}

#[test]
fn what_is_not_redirected_is_not_changed() {
    over_generated(|node, Generated { packet, link, .. }| {
        for program in Program::ALL {
            let Outcome {
                verdict,
                packet: after,
                ..
            } = program.judge(node, &Arrival::single(packet, *link));
            if !matches!(verdict, Verdict::Redirect(_)) {
                assert_eq!(&after, packet, "{program:?} {verdict:?}");
            }
        }
    });
}

/// What leaves a container's port, by the fast path or the kernel's: the bridge and this host's
/// own stack see only that.
fn let_out(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Pass(_) | Verdict::Redirect(_) | Verdict::Continue
    )
}

#[test]
fn nobody_speaks_as_a_sibling_that_is_there_or_as_the_gateway() {
    over_generated(|node, Generated { packet, link, .. }| {
        let arrival = Arrival::single(packet, *link);
        let Some(ethernet) = Ethernet::read(packet) else {
            return;
        };
        let ip = Ipv4::read(&packet[ETHERNET_LEN..]).filter(|_| ethernet.ethertype == 0x0800);
        if let_out(encapsulate(node, &arrival).verdict) {
            assert_ne!(ethernet.source, node.config.bridge_mac);
            if let Some(ip) = ip {
                assert_ne!(ip.source, node.gateway());
                let others = node.endpoint(ip.source).is_some_and(|it| {
                    it.link != *link && it.flags & ENDPOINT_HELD != 0 && node.exists(it.link)
                });
                assert!(!others, "{} from port {link}", ip.source);
                let nobodys = ip.source == Ipv4Addr::UNSPECIFIED;
                assert!(nobodys || node.owns(ip.source), "{}", ip.source);
            }
        }
        if let_out(catch_all(node, &arrival).verdict) {
            assert_ne!(ethernet.source, node.config.bridge_mac);
            if let Some(ip) = ip {
                assert_ne!(ip.source, node.gateway());
                let others = node.endpoint(ip.source).is_some_and(|it| {
                    it.mac != ethernet.source
                        && it.flags & ENDPOINT_HELD != 0
                        && node.exists(it.link)
                });
                assert!(!others, "{} with {:?}", ip.source, ethernet.source);
            }
        }
    });
}

#[test]
fn a_mac_address_that_is_a_siblings_gets_no_frame_out_but_where_an_entry_says_otherwise() {
    over_generated(|node, Generated { packet, link, .. }| {
        let Some(ethernet) = Ethernet::read(packet) else {
            return;
        };
        let siblings = node
            .port_of(ethernet.source)
            .is_some_and(|port| port != *link && node.exists(port));
        let bound = node
            .endpoints
            .values()
            .any(|it| it.link == *link && it.mac == ethernet.source);
        if siblings && !bound {
            let verdict = encapsulate(node, &Arrival::single(packet, *link)).verdict;
            assert!(!let_out(verdict), "{verdict:?}");
        }
    });
}

/// Whatever the node knows of others, and of addresses that are nobody's.
#[test]
fn a_registered_container_speaks_with_what_an_entry_has_for_its_port_or_from_nowhere() {
    let spoke = Cell::new(0);
    over_generated(|node, Generated { packet, link, .. }| {
        let arrival = Arrival::single(packet, *link);
        let Some(ethernet) = Ethernet::read(packet) else {
            return;
        };
        if !node.is_strict(*link) || !let_out(encapsulate(node, &arrival).verdict) {
            return;
        }
        spoke.set(spoke.get() + 1);
        let source = match ethernet.ethertype {
            0x0800 => Ipv4::read(&packet[ETHERNET_LEN..]).map(|ip| ip.source),
            0x0806 => packet
                .get(ETHERNET_LEN + 14..ETHERNET_LEN + 28)
                .and_then(|it| it.first_chunk::<4>())
                .map(|it| Ipv4Addr::from(*it)),
            _ => None,
        };
        let has_mac = node.port_of(ethernet.source) == Some(*link);
        let is_bound = |source| {
            node.endpoint(source)
                .is_some_and(|it| it.link == *link && it.mac == ethernet.source)
        };
        match source {
            Some(Ipv4Addr::UNSPECIFIED) | None => assert!(has_mac, "{:?}", ethernet.source),
            Some(source) => assert!(is_bound(source), "{source} with {:?}", ethernet.source),
        }
        if ethernet.ethertype == 0x0806 && source.is_some() {
            assert_eq!(packet[22..28], ethernet.source);
        }
    });
    assert!(spoke.get() > 100, "{spoke:?}");
}

#[test]
fn with_forwarding_off_nothing_is_redirected_and_as_much_is_dropped() {
    over_generated(|node, Generated { packet, link, .. }| {
        let mut forwarding = node.clone();
        forwarding.config.flags = 0;
        let mut guarding = node.clone();
        guarding.config.flags = CONFIG_GUARD_ONLY;
        let arrival = Arrival::single(packet, *link);
        for program in Program::ALL {
            let [on, off] =
                [&forwarding, &guarding].map(|node| program.judge(node, &arrival).verdict);
            assert!(!matches!(off, Verdict::Redirect(_)), "{program:?}");
            if on == Verdict::Drop(DropReason::CongestionUntold) {
                // No guard's: whoever takes the outer header off does it, the kernel then.
                assert_eq!(off, Verdict::Pass(PassReason::ForwardingOff), "{program:?}");
            } else if let Verdict::Drop(_) = on {
                assert_eq!(on, off, "{program:?}");
            } else {
                assert!(
                    !matches!(off, Verdict::Drop(_)),
                    "{program:?} {on:?} {off:?}"
                );
            }
        }
    });
}

#[test]
fn the_two_nodes_of_these_tests_are_each_others_peers() {
    let (a, b) = (two_peers(2), the_peers_node(2));
    assert_eq!(a.peer(REMOTE).unwrap().address, b.config.host_address);
    assert_eq!(b.peer(CONTAINER).unwrap().address, a.config.host_address);
    assert!(b.owns(REMOTE) && !b.owns(OTHER_REMOTE));
    assert_eq!(a.config.bridge_mac, GATEWAY_MAC);
}
