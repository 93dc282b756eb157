//! The overlay device in both directions.

use std::net::Ipv4Addr;

use mesh_layout::{
    DropReason::{ForeignSource, ForeignTarget, Malformed, NotIpv4},
    ENDPOINT_KERNEL,
    PassReason::{LeftToKernel, NoEndpoint, TtlExpired, Unreadable},
};
use mesh_model::{Ipv4, Program, Verdict};

use super::{Cases, delivered, drop, pass, with, with_options};
use crate::harness::node::{OTHER_REMOTE, UNKNOWN_CONTAINER, from_container, from_peer};

const IP: usize = 14;

fn with_ip(change: impl FnOnce(&mut Ipv4)) -> Vec<u8> {
    let mut frame = from_peer(b"data");
    change(&mut frame.ip);
    frame.bytes()
}

pub(crate) fn cases(cases: &mut Cases<'_>) {
    ingress(cases);
    egress(cases);
}

fn ingress(cases: &mut Cases<'_>) {
    let proper = || from_peer(b"data").bytes();
    let mut case = |name, packet, verdict| {
        cases.add(Program::SafetyNet, name, packet, verdict);
    };
    case(
        "what the kernel decapsulated is delivered",
        proper(),
        delivered(),
    );
    case(
        "what the kernel put together from fragments is delivered",
        from_peer(&[7; 1400]).bytes(),
        delivered(),
    );
    case(
        "a fragment of an inner packet is delivered by the safety net",
        with_ip(|ip| ip.more_fragments = true),
        delivered(),
    );
    case(
        "any peer's subnet is as good as another where the outer source is gone",
        with_ip(|ip| ip.source = OTHER_REMOTE),
        delivered(),
    );
    case(
        "a source in nobody's subnet is dropped",
        with_ip(|ip| ip.source = Ipv4Addr::new(10, 42, 9, 9)),
        drop(ForeignSource),
    );
    case(
        "a source in this node's subnet is dropped",
        with_ip(|ip| ip.source = UNKNOWN_CONTAINER),
        drop(ForeignSource),
    );
    case(
        "a destination in another peer's subnet is dropped and charged",
        with_ip(|ip| ip.destination = OTHER_REMOTE),
        drop(ForeignTarget),
    );
    case(
        "ARP over the overlay is dropped",
        with(proper(), 12, &[0x08, 0x06]),
        drop(NotIpv4),
    );
    case(
        "IPv6 over the overlay is dropped",
        with(from_peer(&[0; 40]).bytes(), 12, &[0x86, 0xdd]),
        drop(NotIpv4),
    );
    case(
        "a frame too short for an IPv4 header is dropped",
        with(proper()[..IP + 19].to_vec(), 12, &[0x08, 0x06]),
        drop(Malformed),
    );
    case(
        "a version that does not match the EtherType is dropped",
        with(proper(), IP, &[0x65]),
        drop(Malformed),
    );
    case(
        "a header of four words is dropped",
        with(proper(), IP, &[0x44]),
        drop(Malformed),
    );
    for (name, ttl) in [
        (
            "a packet that ends its life here is answered by the kernel",
            1,
        ),
        (
            "a packet that ended its life before is answered by the kernel",
            0,
        ),
    ] {
        case(name, with_ip(|ip| ip.ttl = ttl), pass(TtlExpired));
    }
    case(
        "IPv4 options on the overlay are the kernel's to read",
        with_options(proper(), IP, 3),
        pass(Unreadable),
    );
    for (name, destination) in [
        (
            "a container whose interface is unknown is the bridge's to find",
            UNKNOWN_CONTAINER,
        ),
        (
            "the gateway itself is reached through the kernel",
            Ipv4Addr::new(10, 42, 1, 1),
        ),
    ] {
        case(
            name,
            with_ip(|ip| ip.destination = destination),
            pass(NoEndpoint),
        );
    }
    case(
        "a container to which the kernel delivers gets its packet from the bridge here too",
        proper(),
        pass(LeftToKernel),
    );
    cases.on(|node| {
        node.endpoints
            .values_mut()
            .for_each(|it| it.flags |= ENDPOINT_KERNEL);
    });
    let mut case = |name, packet, verdict| {
        cases.add(Program::SafetyNet, name, packet, verdict);
    };
    // 100 bytes of data and a UDP header: 13 segments of 8.
    case(
        "a merged packet counts as the packets it was on the wire",
        from_peer(&[7; 100]).bytes(),
        delivered(),
    );
    cases.in_segments_of(8);
}

fn egress(cases: &mut Cases<'_>) {
    let proper = || from_container(b"data").bytes();
    let mut case = |name, packet| {
        cases.add(Program::CountEgress, name, packet, Verdict::Continue);
    };
    case("what the kernel sends to a peer is counted", proper());
    case(
        "what the kernel sends elsewhere is not counted",
        from_peer(b"data").bytes(),
    );
    case(
        "what is not IPv4 is not counted",
        with(proper(), 12, &[0x08, 0x06]),
    );
    case(
        "what is too short for an IPv4 header is not counted",
        with(proper()[..IP + 19].to_vec(), 12, &[0x08, 0x06]),
    );
    // A TCP header of ten words, which the segment count has to leave out.
    let tcp = {
        let mut frame = from_container(&[7; 200]);
        frame.ip.protocol = 6;
        frame.payload[12] = 0xa0;
        frame
    };
    case(
        "a packet to be segmented counts as its segments",
        tcp.bytes(),
    );
    cases.in_segments_of(21);
    let mut optional = tcp;
    optional.options = vec![1; 20];
    cases.add(
        Program::CountEgress,
        "IPv4 options are in every segment and do not count as data",
        optional.bytes(),
        Verdict::Continue,
    );
    cases.in_segments_of(21);
    let mut other = from_container(&[7; 200]);
    other.ip.protocol = 132;
    cases.add(
        Program::CountEgress,
        "a packet whose segments the kernel does not tell counts as one",
        other.bytes(),
        Verdict::Continue,
    );
    cases.in_segments_of(21);
}
