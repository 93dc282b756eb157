//! Container → peer.

use std::net::Ipv4Addr;

use mesh_layout::PassReason::{
    LeftToKernel, NoNextHop, NotPeer, NotRouted, SourceNotOurs, TooBig, TtlExpired, Unreadable,
};
use mesh_layout::{
    ENDPOINT_PORT_KERNEL, PEER_KERNEL, PEER_MULTIPATH, PORT_KERNEL, Peer, PortKey, StrictPort,
};
use mesh_model::{Frame, Ipv4, Program, Redirect, Verdict};

use super::{Cases, pass, with, with_options};
use crate::harness::node::{
    ELSEWHERE, NARROW, NARROW_MTU, NOWHERE, OTHER_REMOTE, OVERLAY_MTU, PEER, PORT, UNDERLAY,
    UNDERLAY_GATEWAY, UNKNOWN_CONTAINER, from_container,
};

const IP: usize = 14;
/// Data that makes the inner IPv4 packet as large as the overlay's MTU.
const LARGEST: usize = OVERLAY_MTU as usize - 28;

fn with_ip(change: impl FnOnce(&mut Ipv4)) -> Vec<u8> {
    let mut frame = from_container(b"data");
    change(&mut frame.ip);
    frame.bytes()
}

pub(crate) fn cases(cases: &mut Cases<'_>) {
    let mut case = |name, packet, verdict| {
        cases.add(Program::Encapsulate, name, packet, verdict);
    };
    let proper = || from_container(b"data").bytes();
    let to_peer = Verdict::Redirect(Redirect::Neighbour {
        link: UNDERLAY,
        next_hop: PEER,
    });
    let to_gateway = Verdict::Redirect(Redirect::Neighbour {
        link: UNDERLAY,
        next_hop: UNDERLAY_GATEWAY,
    });

    case(
        "a datagram to a peer's container is encapsulated",
        proper(),
        to_peer,
    );
    case(
        "a packet for a peer behind a gateway goes to the gateway",
        with_ip(|ip| ip.destination = OTHER_REMOTE),
        to_gateway,
    );
    case(
        "two hops to live are enough",
        with_ip(|ip| ip.ttl = 2),
        to_peer,
    );
    for (name, mark) in [
        (
            "a sender that takes no part in congestion marking gets no mark",
            0,
        ),
        ("the mark ECT(1) is copied outwards", 1),
        ("the mark ECT(0) is copied outwards", 2),
        ("congestion met before the tunnel stays inside it", 3),
    ] {
        case(name, with_ip(|ip| ip.tos = 0b1011_1000 | mark), to_peer);
    }
    case(
        "the first fragment of an inner packet is encapsulated",
        with_ip(|ip| ip.more_fragments = true),
        to_peer,
    );
    case(
        "a later fragment of an inner packet is encapsulated",
        with_ip(|ip| ip.fragment_offset = 100),
        to_peer,
    );
    case(
        "a packet as large as the overlay's MTU is encapsulated",
        from_container(&[7; LARGEST]).bytes(),
        to_peer,
    );
    case(
        "a packet of a protocol without ports is encapsulated",
        with_ip(|ip| ip.protocol = 50),
        to_peer,
    );
    case(
        "a bare IPv4 header is encapsulated",
        proper()[..IP + 20].to_vec(),
        to_peer,
    );
    case(
        "a packet with a wrong checksum is the kernel's to drop",
        with(proper(), IP + 10, &[0xde, 0xad]),
        pass(Unreadable),
    );

    case(
        "a frame of no network layer we know is the bridge's business",
        with(proper(), 12, &[0x88, 0xcc]),
        pass(NotRouted),
    );
    case(
        "a frame to a neighbour on the bridge is the bridge's business",
        with(proper(), 0, &[0x0a, 0, 0, 0, 0, 3]),
        pass(NotRouted),
    );
    case(
        "a broadcast is the bridge's business",
        with(proper(), 0, &[0xff; 6]),
        pass(NotRouted),
    );
    case(
        "a packet to a destination outside the cluster is the kernel's",
        with_ip(|ip| ip.destination = Ipv4Addr::new(203, 0, 113, 1)),
        pass(NotPeer),
    );
    case(
        "a packet to a subnet that no node holds is the kernel's",
        with_ip(|ip| ip.destination = Ipv4Addr::new(10, 42, 9, 9)),
        pass(NotPeer),
    );
    case(
        "a packet to this node's own subnet is the kernel's",
        with_ip(|ip| ip.destination = UNKNOWN_CONTAINER),
        pass(NotPeer),
    );
    case(
        "IPv4 options are the kernel's to read",
        with_options(proper(), IP, 1),
        pass(Unreadable),
    );
    case(
        "a header of four words is the kernel's to refuse",
        with(proper(), IP, &[0x44]),
        pass(Unreadable),
    );
    case(
        "a version that does not match the EtherType is the kernel's to refuse",
        with(proper(), IP, &[0x65]),
        pass(Unreadable),
    );
    case(
        "a source that is none yet, to a peer, is the kernel's to judge",
        with_ip(|ip| ip.source = Ipv4Addr::UNSPECIFIED),
        pass(SourceNotOurs),
    );
    for (name, ttl) in [
        ("a packet on its last hop is answered by the kernel", 1),
        ("a packet without hops to live is answered by the kernel", 0),
    ] {
        case(name, with_ip(|ip| ip.ttl = ttl), pass(TtlExpired));
    }
    case(
        "a packet one byte larger than the overlay's MTU is answered by the kernel",
        from_container(&[7; LARGEST + 1]).bytes(),
        pass(TooBig),
    );
    let forbidden = {
        let frame = from_container(&[7; LARGEST + 1]);
        let ip = Ipv4 {
            dont_fragment: true,
            ..frame.ip
        };
        Frame { ip, ..frame }.bytes()
    };
    case(
        "a packet that is too large and must not be fragmented is answered by the kernel",
        forbidden,
        pass(TooBig),
    );

    the_way(cases);
    what_is_left(cases);
    cases.add(
        Program::Encapsulate,
        "the MTU of the entry counts before the way's",
        from_container(&[7; LARGEST]).bytes(),
        pass(TooBig),
    );
    cases.on(|node| node.config.overlay_mtu = 1449);
    cases.add(
        Program::Encapsulate,
        "a packet that the kernel would not know how to segment inside a tunnel is left to it",
        proper(),
        pass(Unreadable),
    );
    cases.in_segments_of(8);
    cases.add(
        Program::Encapsulate,
        "a node without peers leaves everything to the kernel",
        proper(),
        pass(NotPeer),
    );
    cases.on(|node| node.peers.clear());
}

/// Peers that are elsewhere than the node's own.
fn the_way(cases: &mut Cases<'_>) {
    let proper = || from_container(b"data").bytes();
    let inner_mtu = NARROW_MTU as usize - 50;
    let narrow = |over: usize| from_container(&vec![7; inner_mtu - 28 + over]).bytes();
    let to = |next_hop| {
        Verdict::Redirect(Redirect::Neighbour {
            link: UNDERLAY,
            next_hop,
        })
    };
    for (name, address, packet, verdict) in [
        (
            "without a route to the peer the kernel has the packet",
            NOWHERE,
            proper(),
            pass(NoNextHop),
        ),
        (
            "a way over an interface that is none of the underlay's is the kernel's",
            ELSEWHERE,
            proper(),
            pass(NoNextHop),
        ),
        (
            "a packet as large as the way to its peer takes is encapsulated",
            NARROW,
            narrow(0),
            to(NARROW),
        ),
        (
            "a packet one byte larger than the way takes is left to the kernel",
            NARROW,
            narrow(1),
            pass(TooBig),
        ),
    ] {
        cases.add(Program::Encapsulate, name, packet, verdict);
        cases.on(|node| {
            node.ways
                .extend(crate::harness::ways(node.config.overlay_link, [address]));
            node.peers
                .values_mut()
                .for_each(|peer| peer.address = address.octets());
        });
    }
    cases.add(
        Program::Encapsulate,
        "an entry without the overlay's MTU lets the way decide what fits",
        from_container(&[7; LARGEST]).bytes(),
        to(PEER),
    );
    cases.on(|node| node.config.overlay_mtu = 0);
    cases.add(
        Program::Encapsulate,
        "an entry without the overlay's MTU lets the way decide what does not",
        from_container(&[7; LARGEST + 1]).bytes(),
        pass(TooBig),
    );
    cases.on(|node| node.config.overlay_mtu = 0);
    for (name, mtu, verdict) in [
        (
            "a packet as large as the peer takes is encapsulated",
            1000,
            to(PEER),
        ),
        (
            "a packet larger than the peer takes is left to the kernel",
            999,
            pass(TooBig),
        ),
    ] {
        cases.add(
            Program::Encapsulate,
            name,
            from_container(&[7; 1000 - 28]).bytes(),
            verdict,
        );
        cases.on(|node| node.peers.values_mut().for_each(|peer| peer.mtu = mtu));
    }
    cases.add(
        Program::Encapsulate,
        "a peer over several ways gets its packet",
        proper(),
        to(PEER),
    );
    cases.on(|node| {
        node.peers
            .values_mut()
            .for_each(|peer| peer.flags = PEER_MULTIPATH);
    });
    cases.add(
        Program::Encapsulate,
        "a packet whose segments are too large for the overlay is left to the kernel",
        from_container(&[7; LARGEST + 100]).bytes(),
        pass(TooBig),
    );
    cases.in_segments_of(u16::try_from(LARGEST + 1).unwrap());
    cases.add(
        Program::Encapsulate,
        "a packet that is too large, and whose segments are not, is not left to the kernel for that",
        from_container(&[7; LARGEST + 100]).bytes(),
        pass(Unreadable),
    );
    cases.in_segments_of(u16::try_from(LARGEST).unwrap());
}

/// What the kernel path has because the runtime says so.
fn what_is_left(cases: &mut Cases<'_>) {
    let proper = || from_container(b"data").bytes();
    let on_peers = |change: fn(&mut Peer)| {
        move |node: &mut mesh_model::Node| node.peers.values_mut().for_each(change)
    };
    cases.add(
        Program::Encapsulate,
        "a packet for a peer that is left to the kernel is the kernel's",
        proper(),
        pass(LeftToKernel),
    );
    cases.on(on_peers(|peer| peer.flags = PEER_KERNEL));
    cases.add(
        Program::Encapsulate,
        "a packet for a peer that is reached otherwise than by VXLAN is the kernel's",
        proper(),
        pass(LeftToKernel),
    );
    cases.on(on_peers(|peer| peer.transport = 1));
    cases.add(
        Program::Encapsulate,
        "a packet from a port that is left to the kernel is the kernel's",
        proper(),
        pass(LeftToKernel),
    );
    // Past the port it is as any other.
    cases.only_at_port();
    cases.on(|node| {
        node.endpoints
            .values_mut()
            .for_each(|it| it.flags |= ENDPOINT_PORT_KERNEL);
    });
    cases.add(
        Program::Encapsulate,
        "a packet from an address that nobody is known to hold is the kernel's by its port's entry",
        with_ip(|ip| ip.source = UNKNOWN_CONTAINER),
        pass(LeftToKernel),
    );
    cases.only_at_port();
    cases.on(|node| {
        let port = StrictPort { flags: PORT_KERNEL };
        node.strict_ports.insert(PortKey { link: PORT }, port);
    });
}
