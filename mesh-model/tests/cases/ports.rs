//! What containers may send, and what not.

use std::net::Ipv4Addr;

use mesh_layout::{
    CONFIG_GUARD_ONLY,
    DropReason::{GatewayClaimed, Malformed, SpoofedAddress, SpoofedMac, UnknownVtep},
    PassReason::{ForwardingOff, NotRouted, SourceNotOurs},
};
use mesh_model::{ArpFrame, Frame, Ipv6Frame, Node, Program, Redirect, Verdict, tagged};

use super::{Cases, drop, pass, with};
use crate::harness::node::{
    CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, OTHER_REMOTE, PEER, SIBLING, SIBLING_MAC,
    SIBLING_PORT, STRANGER, UNDERLAY, UNKNOWN_CONTAINER, from_container, from_peer, vxlan_from,
};

/// A MAC address of no container.
const NEW_MAC: [u8; 6] = [0x0a, 0, 0, 0, 0, 0x77];
const BROADCAST_MAC: [u8; 6] = [0xff; 6];

pub(super) fn to_peer() -> Verdict {
    Verdict::Redirect(Redirect::Neighbour {
        link: UNDERLAY,
        next_hop: PEER,
    })
}

fn with_frame(change: impl FnOnce(&mut Frame)) -> Vec<u8> {
    let mut frame = from_container(b"data");
    change(&mut frame);
    frame.bytes()
}

fn from_address(address: Ipv4Addr) -> Vec<u8> {
    with_frame(|frame| frame.ip.source = address)
}

fn from_mac(mac: [u8; 6]) -> Vec<u8> {
    with_frame(|frame| frame.ethernet.source = mac)
}

fn arp_from(sender: Ipv4Addr) -> Vec<u8> {
    ArpFrame {
        macs: [BROADCAST_MAC, CONTAINER_MAC],
        operation: 2,
        sender: (CONTAINER_MAC, sender),
        target: ([0; 6], SIBLING),
    }
    .bytes()
}

/// Has the sibling's entries say that they were learnt, not held.
fn learnt(node: &mut Node) {
    node.endpoints.values_mut().for_each(|it| it.flags = 0);
}

/// The sibling's port goes, and its entries stay.
fn sibling_gone(node: &mut Node) {
    const GONE: u32 = 5000;
    for endpoint in node.endpoints.values_mut() {
        if endpoint.link == SIBLING_PORT {
            endpoint.link = GONE;
        }
    }
    for holder in node.macs.values_mut() {
        if holder.link == SIBLING_PORT {
            holder.link = GONE;
        }
    }
}

pub(crate) fn cases(cases: &mut Cases<'_>) {
    addresses(cases);
    macs(cases);
    arp(cases);
    claims_of_others(cases);
    reserved(cases);
    guarding_only(cases);
}

/// Frames to the addresses that bridges keep to themselves, and to those that hosts do.
fn reserved(cases: &mut Cases<'_>) {
    let reserved = |last| [0x01, 0x80, 0xc2, 0, 0, last];
    let port = Program::Encapsulate;
    // The destination's address is behind 14 and 16 bytes.
    let to_loopback = with(from_address(CONTAINER), 30, &[127, 0, 0, 53]);
    let name = "IPv4 to loopback is on no wire";
    cases.add(port, name, to_loopback, drop(Malformed));
    for (name, packet) in [
        (
            "IPv4 to where no bridge forwards would be the host's",
            with(from_address(CONTAINER), 0, &reserved(0x0e)),
        ),
        (
            "ARP to where no bridge forwards would be the host's",
            with(arp_from(CONTAINER), 0, &reserved(0x02)),
        ),
        (
            "a tagged frame to where no bridge forwards would be the host's",
            with(
                tagged(&from_address(CONTAINER), &[(0x8100, 0)]),
                0,
                &reserved(0x0f),
            ),
        ),
    ] {
        cases.add(port, name, packet, drop(Malformed));
    }
    let advertisement = Ipv6Frame {
        macs: [reserved(0), CONTAINER_MAC],
        extensions: Vec::new(),
        protocol: 58,
        payload: vec![128; 8],
    };
    cases.add(
        port,
        "IPv6 to where no bridge forwards would be the host's",
        advertisement.bytes(),
        drop(Malformed),
    );
    cases.add(
        port,
        "what bridges tell each other is the bridge's business",
        with(
            with(from_address(CONTAINER), 0, &reserved(0x0e)),
            12,
            &[0x88, 0xcc],
        ),
        pass(NotRouted),
    );
    cases.add(
        port,
        "an address after those that bridges keep to themselves is one like others",
        with(from_address(CONTAINER), 0, &reserved(0x10)),
        pass(NotRouted),
    );
}

/// Frames that the packet filter has marked: they came by none of the ports that hold what they claim.
fn claims_of_others(cases: &mut Cases<'_>) {
    let bridge = Program::CatchAll;
    let spoofed = |frame: &mut Frame| {
        frame.ethernet.source = NEW_MAC;
        frame.ip.source = SIBLING;
    };
    for (name, packet, verdict) in [
        (
            "a marked frame from the address of a sibling is spoofed, whatever its MAC address",
            with_frame(spoofed),
            drop(SpoofedAddress),
        ),
        (
            "a marked frame with the address and the MAC address of a container is spoofed",
            from_address(CONTAINER),
            drop(SpoofedMac),
        ),
        (
            "a marked frame with the MAC address of a sibling is spoofed, whatever its address",
            with_frame(|frame| {
                frame.ethernet.source = SIBLING_MAC;
                frame.ip.source = UNKNOWN_CONTAINER;
            }),
            drop(SpoofedMac),
        ),
        (
            "a marked ARP message from the address of a container is spoofed",
            with(arp_from(CONTAINER), 6, &NEW_MAC),
            drop(SpoofedAddress),
        ),
        (
            "a marked frame that claims nothing is sent on",
            with_frame(|frame| {
                frame.ethernet.source = NEW_MAC;
                frame.ip.source = UNKNOWN_CONTAINER;
            }),
            to_peer(),
        ),
    ] {
        cases.add(bridge, name, packet, verdict);
        cases.claiming_anothers();
    }
    cases.add(
        bridge,
        "a marked frame from the address of a sibling that is gone is its successor's",
        with_frame(spoofed),
        to_peer(),
    );
    cases.claiming_anothers();
    cases.on(sibling_gone);
}

fn addresses(cases: &mut Cases<'_>) {
    let port = Program::Encapsulate;
    cases.add(
        port,
        "the address that a sibling holds is the sibling's",
        from_address(SIBLING),
        drop(SpoofedAddress),
    );
    cases.add(
        port,
        "an address that a sibling was only seen with may move",
        from_address(SIBLING),
        to_peer(),
    );
    cases.on(learnt);
    cases.add(
        port,
        "the address of a sibling that is gone is its successor's",
        from_address(SIBLING),
        to_peer(),
    );
    cases.on(sibling_gone);
    for (name, source, verdict) in [
        (
            "an address of the subnet that nobody is known to have may be had",
            UNKNOWN_CONTAINER,
            to_peer(),
        ),
        (
            "an address of a peer's subnet is spoofed",
            OTHER_REMOTE,
            drop(SpoofedAddress),
        ),
        (
            "an address outside the cluster is spoofed",
            Ipv4Addr::new(203, 0, 113, 1),
            drop(SpoofedAddress),
        ),
        (
            "the subnet's own address is nobody's",
            Ipv4Addr::new(10, 42, 1, 0),
            drop(SpoofedAddress),
        ),
        (
            "the address of everybody in the subnet is nobody's",
            Ipv4Addr::new(10, 42, 1, 255),
            drop(SpoofedAddress),
        ),
        (
            "the gateway's address is the gateway's",
            GATEWAY,
            drop(GatewayClaimed),
        ),
        (
            "no address yet is no other container's",
            Ipv4Addr::UNSPECIFIED,
            pass(SourceNotOurs),
        ),
    ] {
        cases.add(port, name, from_address(source), verdict);
    }
}

fn macs(cases: &mut Cases<'_>) {
    let port = Program::Encapsulate;
    cases.add(
        port,
        "a sibling's MAC address is the sibling's",
        from_mac(SIBLING_MAC),
        drop(SpoofedMac),
    );
    cases.without_port(drop(SpoofedAddress));
    cases.add(
        port,
        "a sibling's MAC and IP address together are the sibling's",
        with_frame(|frame| {
            frame.ethernet.source = SIBLING_MAC;
            frame.ip.source = SIBLING;
        }),
        drop(SpoofedMac),
    );
    // They are as the sibling itself would send them.
    cases.without_port(to_peer());
    cases.add(
        port,
        "the MAC address of a sibling that is gone is its successor's",
        from_mac(SIBLING_MAC),
        to_peer(),
    );
    cases.on(sibling_gone);
    cases.without_port(drop(SpoofedAddress));
    cases.add(
        port,
        "a container may have a bridge of its own, with more MAC addresses",
        from_mac(NEW_MAC),
        to_peer(),
    );
    cases.without_port(drop(SpoofedAddress));
    cases.add(
        port,
        "the bridge's MAC address is the gateway's",
        from_mac(GATEWAY_MAC),
        drop(GatewayClaimed),
    );
    for (name, ethertype) in [
        (
            "a sibling's MAC address is the sibling's over IPv6 too",
            0x86dd_u16,
        ),
        (
            "a sibling's MAC address is the sibling's in any frame",
            0x88cc,
        ),
    ] {
        let mut packet = Ipv6Frame {
            macs: [BROADCAST_MAC, SIBLING_MAC],
            extensions: Vec::new(),
            protocol: 59,
            payload: Vec::new(),
        }
        .bytes();
        packet[12..14].copy_from_slice(&ethertype.to_be_bytes());
        cases.add(port, name, packet, drop(SpoofedMac));
        cases.without_port(pass(NotRouted));
    }
}

fn arp(cases: &mut Cases<'_>) {
    let port = Program::Encapsulate;
    for (name, packet, verdict) in [
        (
            "ARP from the container's address is the bridge's business",
            arp_from(CONTAINER),
            pass(NotRouted),
        ),
        (
            "an ARP probe is the bridge's business",
            arp_from(Ipv4Addr::UNSPECIFIED),
            pass(NotRouted),
        ),
        (
            "ARP that says to be the gateway is dropped",
            arp_from(GATEWAY),
            drop(GatewayClaimed),
        ),
        (
            "ARP that says to be a sibling is dropped",
            arp_from(SIBLING),
            drop(SpoofedAddress),
        ),
        (
            "ARP that says to be from elsewhere is dropped",
            arp_from(OTHER_REMOTE),
            drop(SpoofedAddress),
        ),
        (
            "a cut ARP message says nothing",
            arp_from(GATEWAY)[..41].to_vec(),
            pass(NotRouted),
        ),
    ] {
        cases.add(port, name, packet, verdict);
    }
}

fn guarding_only(cases: &mut Cases<'_>) {
    let sent = || from_container(b"data").bytes();
    let arrived = || vxlan_from(PEER, &from_peer(b"data")).bytes();
    for (name, program, packet, verdict) in [
        (
            "with forwarding off a container's packet is the kernel's",
            Program::Encapsulate,
            sent(),
            pass(ForwardingOff),
        ),
        (
            "with forwarding off a spoofed address is dropped all the same",
            Program::Encapsulate,
            from_address(SIBLING),
            drop(SpoofedAddress),
        ),
        (
            "with forwarding off a peer's packet is the kernel's",
            Program::Decapsulate,
            arrived(),
            pass(ForwardingOff),
        ),
        (
            "with forwarding off a stranger's packet is dropped all the same",
            Program::Decapsulate,
            vxlan_from(STRANGER, &from_peer(b"data")).bytes(),
            drop(UnknownVtep),
        ),
        (
            "with forwarding off the overlay device's packet is counted and the kernel's",
            Program::SafetyNet,
            from_peer(b"data").bytes(),
            pass(ForwardingOff),
        ),
    ] {
        cases.add(program, name, packet, verdict);
        cases.on(|node| node.config.flags = CONFIG_GUARD_ONLY);
    }
}
