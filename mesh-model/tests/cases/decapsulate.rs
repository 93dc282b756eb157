//! Peer → container: what is delivered, and what of a peer's packets the kernel does.

use std::net::Ipv4Addr;

use mesh_layout::{
    DropReason::{CongestionUntold, ForeignSource, UnknownVtep},
    ENDPOINT_KERNEL, PEER_KERNEL,
    PassReason::{LeftToKernel, NoEndpoint, OuterChecksum, OuterFragment, TtlExpired, Unreadable},
};
use mesh_model::Program;

use super::{
    Cases, delivered, drop, pass,
    underlay::{INNER_ETHERNET, INNER_IP, IP, marked, proper, with_inner, with_outer},
    with,
};
use crate::harness::node::{PEER, UNKNOWN_CONTAINER, from_peer, vxlan_from};

pub(crate) fn cases(cases: &mut Cases<'_>) {
    what_is_delivered(cases);
    what_the_kernel_does(cases);
}

fn what_is_delivered(cases: &mut Cases<'_>) {
    let mut case = |name, packet| cases.add(Program::Decapsulate, name, packet, delivered());
    case(
        "a peer's packet is delivered to the container",
        proper().bytes(),
    );
    case(
        "two hops to live are enough to be delivered",
        with_inner(PEER, |ip| ip.ttl = 2),
    );
    case(
        "a fragment of an inner packet is delivered",
        with_inner(PEER, |ip| ip.fragment_offset = 100),
    );
    let optional = {
        let mut frame = from_peer(b"data");
        frame.options = vec![1; 8];
        vxlan_from(PEER, &frame).bytes()
    };
    case("inner options are the container's to read", optional);
    let bare = {
        let mut frame = from_peer(b"");
        frame.payload.clear();
        vxlan_from(PEER, &frame).bytes()
    };
    case("a bare inner IPv4 header is delivered", bare);
    case(
        "reserved bits of the VXLAN header are ignored",
        with(proper().bytes(), 42, &[0xff, 0xff, 0xff, 0xff]),
    );
    case(
        "the inner destination MAC address is not asked for",
        with(proper().bytes(), INNER_ETHERNET, &[0x0a, 9, 9, 9, 9, 9]),
    );
    case(
        "length fields that promise more than there is are the container's to find",
        with(proper().bytes(), INNER_IP + 2, &[0xff, 0xff]),
    );
    for (name, outer, inner) in [
        (
            "a sender that takes no part may pass a marking underlay",
            2,
            0,
        ),
        ("the same mark inside and outside is no congestion", 2, 2),
        ("ECT(1) inside and outside is no congestion", 1, 1),
        ("congestion met before the tunnel arrives", 2, 3),
        (
            "an underlay that cleared the mark leaves the inner one",
            0,
            2,
        ),
        ("congestion on the way reaches who takes part", 3, 2),
        (
            "congestion on the way reaches who takes part otherwise",
            3,
            1,
        ),
        ("congestion met twice is met once", 3, 3),
        ("ECT(1) over ECT(0) moves inwards", 1, 2),
        ("ECT(1) does not undo congestion met before", 1, 3),
    ] {
        case(name, marked(outer, inner));
    }
}

fn what_the_kernel_does(cases: &mut Cases<'_>) {
    let mut case = |name, packet, reason| {
        cases.add(Program::Decapsulate, name, packet, pass(reason));
    };
    case(
        "a peer's first fragment is the kernel's to put together",
        with_outer(|frame| frame.outer.ip.more_fragments = true),
        OuterFragment,
    );
    case(
        "a later fragment is the kernel's to put together",
        with_outer(|frame| frame.outer.ip.fragment_offset = 100),
        OuterFragment,
    );
    case(
        "a later fragment with IPv4 options is the kernel's to put together",
        with_outer(|frame| {
            frame.outer.ip.fragment_offset = 100;
            frame.outer.options = vec![1; 4];
        }),
        OuterFragment,
    );
    case(
        "an outer UDP checksum is the kernel's to verify",
        with_outer(|frame| frame.udp.checksum = 0x1234),
        OuterChecksum,
    );
    for (name, at, bytes) in [
        (
            "a wrong outer header checksum is the kernel's to drop",
            IP + 10,
            [0xde, 0xad],
        ),
        (
            "an outer header with one bit flipped on its way is the kernel's to drop",
            IP + 4,
            [0x01, 0x00],
        ),
    ] {
        case(name, with(proper().bytes(), at, &bytes), OuterChecksum);
    }
    let trailed = [&proper().bytes()[..], &[0; 6]].concat();
    case(
        "a trailer behind the outer packet is the kernel's to cut off",
        trailed,
        Unreadable,
    );
    case(
        "a packet shorter than its outer header says is the kernel's to drop",
        proper().bytes()[..INNER_IP + 21].to_vec(),
        Unreadable,
    );
    case(
        "a UDP length that is not the rest of the packet is the kernel's to judge",
        with(proper().bytes(), IP + 24, &[0, 60]),
        Unreadable,
    );
    for (name, ttl) in [
        ("a packet on its last hop here is answered by the kernel", 1),
        (
            "a packet that arrives without hops to live is answered by the kernel",
            0,
        ),
    ] {
        case(name, with_inner(PEER, |ip| ip.ttl = ttl), TtlExpired);
    }
    for (name, destination) in [
        (
            "a container whose interface is unknown gets its packet from the bridge",
            UNKNOWN_CONTAINER,
        ),
        (
            "the gateway's packets are the kernel's",
            Ipv4Addr::new(10, 42, 1, 1),
        ),
        (
            "the subnet's broadcast is the kernel's",
            Ipv4Addr::new(10, 42, 1, 255),
        ),
    ] {
        case(
            name,
            with_inner(PEER, |ip| ip.destination = destination),
            NoEndpoint,
        );
    }
    case(
        "a merged packet that the kernel would not know how to take apart is left to it",
        proper().bytes(),
        Unreadable,
    );
    cases.in_segments_of(8);
    cases.add(
        Program::Decapsulate,
        "congestion drops the packet of who cannot be told",
        marked(3, 0),
        drop(CongestionUntold),
    );
    cases.add(
        Program::Decapsulate,
        "the packet of a peer that is left to the kernel is the kernel's once it is guarded",
        proper().bytes(),
        pass(LeftToKernel),
    );
    cases.on(|node| {
        node.peers
            .values_mut()
            .for_each(|peer| peer.flags = PEER_KERNEL);
    });
    cases.add(
        Program::Decapsulate,
        "a container to which the kernel delivers gets its packet from the bridge",
        proper().bytes(),
        pass(LeftToKernel),
    );
    cases.on(|node| {
        node.endpoints
            .values_mut()
            .for_each(|it| it.flags |= ENDPOINT_KERNEL);
    });
    cases.add(
        Program::Decapsulate,
        "a node that knows no peers drops what they send",
        proper().bytes(),
        drop(UnknownVtep),
    );
    cases.on(|node| {
        node.peers.clear();
        node.vteps.clear();
    });
    cases.add(
        Program::Decapsulate,
        "the peer set decides who a peer is, whatever the list of VTEPs still says",
        proper().bytes(),
        drop(ForeignSource),
    );
    cases.on(|node| node.peers.clear());
    cases.add(
        Program::Decapsulate,
        "a port and a VNI of the operator's choice are used",
        with_outer(|frame| {
            frame.udp.destination = 8472;
            frame.vxlan.vni = 0xff_ffff;
        }),
        delivered(),
    );
    cases.on(|node| {
        node.config.port = 8472;
        node.config.vni = 0xff_ffff;
    });
}
