//! Peer → container: what is not for us, and what is dropped.

use std::net::Ipv4Addr;

use mesh_layout::{
    DropReason::{ForeignSource, ForeignTarget, Malformed, NotIpv4, UnknownVtep},
    PassReason::{NotVxlan, OtherVni, Unreadable},
};
use mesh_model::{Program, VxlanFrame, generate::OTHER_ADDRESS};

use super::{
    Cases, drop, pass,
    underlay::{INNER_ETHERNET, INNER_IP, IP, proper, with_inner, with_outer},
    with,
};
use crate::harness::node::{
    OTHER_PEER, OTHER_REMOTE, PEER, STRANGER, UNKNOWN_CONTAINER, from_peer, vxlan_from,
};

pub(crate) fn cases(cases: &mut Cases<'_>) {
    what_is_not_ours(cases);
    what_is_dropped(cases);
}

fn what_is_not_ours(cases: &mut Cases<'_>) {
    let mut case = |name, packet, reason| {
        cases.add(Program::Decapsulate, name, packet, pass(reason));
    };
    case(
        "ARP on the underlay is the host's",
        with(proper().bytes(), 12, &[0x08, 0x06]),
        NotVxlan,
    );
    case(
        "a frame of nothing but an Ethernet header is the host's",
        with(proper().bytes()[..IP].to_vec(), 12, &[0x08, 0x06]),
        NotVxlan,
    );
    case(
        "TCP is the host's",
        with_outer(|frame| frame.outer.ip.protocol = 6),
        NotVxlan,
    );
    case(
        "a packet cut before the end of its UDP header is the host's",
        proper().bytes()[..41].to_vec(),
        NotVxlan,
    );
    case(
        "UDP to another port is the host's",
        with_outer(|frame| frame.udp.destination = 53),
        NotVxlan,
    );
    case(
        "VXLAN to another host is forwarded, not opened",
        with_outer(|frame| frame.outer.ip.destination = Ipv4Addr::new(192, 0, 2, 7)),
        NotVxlan,
    );
    for (name, change) in [
        (
            "a peer's VXLAN to another address of the host is the kernel's",
            (|_| {}) as fn(&mut VxlanFrame),
        ),
        (
            "another VNI to another address of the host is the kernel's",
            |frame| frame.vxlan.vni = 101,
        ),
        (
            "another port of another address of the host is the kernel's",
            |frame| frame.udp.destination = 53,
        ),
        (
            "a later fragment to another address of the host is the kernel's",
            |frame| frame.outer.ip.fragment_offset = 100,
        ),
        (
            "a first fragment from a peer to another address of the host is the kernel's",
            |frame| frame.outer.ip.more_fragments = true,
        ),
        (
            "another port behind options to another address of the host is the kernel's",
            |frame| {
                frame.udp.destination = 53;
                frame.outer.options = vec![1; 4];
            },
        ),
    ] {
        let packet = with_outer(|frame| {
            frame.outer.ip.destination = OTHER_ADDRESS;
            change(frame);
        });
        case(name, packet, NotVxlan);
    }
    case(
        "a stranger's VXLAN to another host is forwarded, not judged",
        with_outer(|frame| {
            frame.outer.ip.source = STRANGER;
            frame.outer.ip.destination = Ipv4Addr::new(192, 0, 2, 7);
        }),
        NotVxlan,
    );
    for (name, vni) in [
        ("another VNI is another overlay's", 101),
        (
            "a VNI that agrees in its lower byte only is another overlay's",
            0x1_0064,
        ),
    ] {
        case(name, with_outer(|frame| frame.vxlan.vni = vni), OtherVni);
    }
    case(
        "a stranger's packet of another VNI is another overlay's",
        with_outer(|frame| {
            frame.vxlan.vni = 101;
            frame.outer.ip.source = STRANGER;
        }),
        OtherVni,
    );
    case(
        "another VNI behind IPv4 options is another overlay's",
        with_outer(|frame| {
            frame.vxlan.vni = 101;
            frame.outer.options = vec![1; 4];
        }),
        OtherVni,
    );
    case(
        "UDP to another port behind IPv4 options is the host's",
        with_outer(|frame| {
            frame.udp.destination = 53;
            frame.outer.options = vec![1; 4];
        }),
        Unreadable,
    );
    case(
        "an outer header of four words is the host's to refuse",
        with(proper().bytes(), IP, &[0x44]),
        Unreadable,
    );
    case(
        "an outer version of six is the host's to refuse",
        with(proper().bytes(), IP, &[0x65]),
        Unreadable,
    );
}

fn what_is_dropped(cases: &mut Cases<'_>) {
    let mut case = |name, packet, reason| {
        cases.add(Program::Decapsulate, name, packet, drop(reason));
    };
    case(
        "a stranger's packet is dropped",
        vxlan_from(STRANGER, &from_peer(b"data")).bytes(),
        UnknownVtep,
    );
    case(
        "a stranger's first fragment is dropped, so that its packet never becomes whole",
        with_outer(|frame| {
            frame.outer.ip.source = STRANGER;
            frame.outer.ip.more_fragments = true;
        }),
        UnknownVtep,
    );
    case(
        "a stranger's checksummed packet is dropped and not handed to the kernel",
        with_outer(|frame| {
            frame.outer.ip.source = STRANGER;
            frame.udp.checksum = 0x1234;
        }),
        UnknownVtep,
    );
    case(
        "a stranger that claims congestion is dropped and not handed to the kernel",
        with_outer(|frame| {
            frame.outer.ip.source = STRANGER;
            frame.outer.ip.tos = 3;
        }),
        UnknownVtep,
    );
    for (name, words) in [
        ("a stranger cannot hide behind one word of IPv4 options", 1),
        (
            "a stranger cannot hide behind ten words of IPv4 options",
            10,
        ),
    ] {
        let packet = with_outer(|frame| {
            frame.outer.ip.source = STRANGER;
            frame.outer.options = vec![1; words * 4];
        });
        case(name, packet, Malformed);
    }
    case(
        "a stranger's first fragment cannot hide behind IPv4 options",
        with_outer(|frame| {
            frame.outer.ip.source = STRANGER;
            frame.outer.ip.more_fragments = true;
            frame.outer.options = vec![1; 4];
        }),
        Malformed,
    );
    for (name, address) in [
        (
            "a stranger cannot come in by another address of the host",
            OTHER_ADDRESS,
        ),
        (
            "a stranger cannot come in by broadcast",
            Ipv4Addr::BROADCAST,
        ),
        (
            "a stranger cannot come in by multicast",
            Ipv4Addr::new(224, 0, 0, 1),
        ),
        (
            "a stranger cannot come in by the address of nobody",
            Ipv4Addr::UNSPECIFIED,
        ),
        (
            "a stranger cannot come in by the loopback address",
            Ipv4Addr::LOCALHOST,
        ),
    ] {
        let mut frame = vxlan_from(STRANGER, &from_peer(b"data"));
        frame.outer.ip.destination = address;
        case(name, frame.bytes(), UnknownVtep);
    }
    case(
        "a peer may not send from another subnet to another address of the host either",
        {
            let mut frame = from_peer(b"data");
            frame.ip.source = OTHER_REMOTE;
            let mut frame = vxlan_from(PEER, &frame);
            frame.outer.ip.destination = OTHER_ADDRESS;
            frame.bytes()
        },
        ForeignSource,
    );
    case(
        "options and another address together hide nobody",
        with_outer(|frame| {
            frame.outer.ip.destination = OTHER_ADDRESS;
            frame.outer.options = vec![1; 4];
        }),
        Malformed,
    );
    case(
        "a peer that sends IPv4 options could claim any inner source, and is not believed",
        with_outer(|frame| frame.outer.options = vec![1; 4]),
        Malformed,
    );
    case(
        "a peer that sends from another peer's subnet is dropped and charged",
        with_inner(PEER, |ip| ip.source = OTHER_REMOTE),
        ForeignSource,
    );
    case(
        "a peer that sends from this node's subnet is dropped and charged",
        with_inner(PEER, |ip| ip.source = UNKNOWN_CONTAINER),
        ForeignSource,
    );
    case(
        "a peer that sends from nobody's subnet is dropped and charged",
        with_inner(OTHER_PEER, |ip| ip.source = Ipv4Addr::new(10, 42, 9, 9)),
        ForeignSource,
    );
    for (name, destination) in [
        (
            "a peer may not reach through us to another peer",
            OTHER_REMOTE,
        ),
        (
            "a peer may not reach through us to the host",
            Ipv4Addr::new(192, 0, 2, 2),
        ),
        (
            "a peer may not reach through us to the Internet",
            Ipv4Addr::new(203, 0, 113, 1),
        ),
        ("a peer may not send multicast", Ipv4Addr::new(224, 0, 0, 1)),
        ("a peer may not send to everybody", Ipv4Addr::BROADCAST),
    ] {
        case(
            name,
            with_inner(PEER, |ip| ip.destination = destination),
            ForeignTarget,
        );
    }
    case(
        "a VXLAN header without a valid VNI is dropped",
        with_outer(|frame| frame.vxlan.flags = 0xf7),
        Malformed,
    );
    for (name, length) in [
        ("a packet that ends with its UDP header is dropped", 42),
        ("a packet that ends inside its VXLAN header is dropped", 49),
        ("a packet that ends with its VXLAN header is dropped", 50),
        (
            "a packet that ends inside its inner Ethernet header is dropped",
            63,
        ),
        (
            "a packet that ends with its inner Ethernet header is dropped",
            64,
        ),
        (
            "a packet that ends inside its inner IPv4 header is dropped",
            83,
        ),
    ] {
        case(name, proper().bytes()[..length].to_vec(), Malformed);
    }
    case(
        "an inner version of six is dropped",
        with(proper().bytes(), INNER_IP, &[0x65]),
        Malformed,
    );
    case(
        "an inner header of four words is dropped",
        with(proper().bytes(), INNER_IP, &[0x44]),
        Malformed,
    );
    for (name, ethertype) in [
        ("inner ARP is dropped", [0x08, 0x06]),
        ("inner IPv6 is dropped", [0x86, 0xdd]),
        ("an inner VLAN tag is dropped", [0x81, 0x00]),
    ] {
        case(
            name,
            with(proper().bytes(), INNER_ETHERNET + 12, &ethertype),
            NotIpv4,
        );
    }
}
