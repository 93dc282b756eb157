//! What a registered container may send: what is registered of it, and nothing else, also of what is nobody's.

use std::net::Ipv4Addr;

use mesh_layout::{
    DropReason::{GatewayClaimed, SpoofedAddress, SpoofedMac},
    PORT_STRICT,
    PassReason::{NotRouted, SourceNotOurs},
    PortKey, StrictPort,
};
use mesh_model::{ArpFrame, Frame, Ipv6Frame, Node, Program, Verdict, tagged};

use super::{Cases, drop, pass, ports::to_peer};
use crate::harness::node::{
    CONTAINER, CONTAINER_MAC, GATEWAY, PORT, SIBLING, SIBLING_MAC, SIBLING_PORT, UNKNOWN_CONTAINER,
    from_container,
};

/// A MAC address of no container.
const MADE_UP: [u8; 6] = [0x0a, 0, 0, 0, 0, 0x77];
const BROADCAST_MAC: [u8; 6] = [0xff; 6];

/// The container at the port is registered; its sibling was attached by hand.
fn registered(node: &mut Node) {
    let key = PortKey { link: PORT };
    node.strict_ports
        .insert(key, StrictPort { flags: PORT_STRICT });
}

/// The other way round.
fn sibling_registered(node: &mut Node) {
    let key = PortKey { link: SIBLING_PORT };
    node.strict_ports
        .insert(key, StrictPort { flags: PORT_STRICT });
}

/// The sibling's port is gone, and its entries stay.
fn sibling_gone(node: &mut Node) {
    registered(node);
    node.links.remove(&SIBLING_PORT);
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

fn udp(mac: [u8; 6], source: Ipv4Addr) -> Vec<u8> {
    let mut frame: Frame = from_container(b"data");
    frame.ethernet.source = mac;
    frame.ip.source = source;
    frame.bytes()
}

/// An announcement: by the frame of one, of the MAC address of perhaps another.
fn arp(mac: [u8; 6], named: [u8; 6], sender: Ipv4Addr) -> Vec<u8> {
    ArpFrame {
        macs: [BROADCAST_MAC, mac],
        operation: 2,
        sender: (named, sender),
        target: ([0; 6], SIBLING),
    }
    .bytes()
}

fn ipv6(mac: [u8; 6]) -> Vec<u8> {
    Ipv6Frame {
        macs: [BROADCAST_MAC, mac],
        extensions: Vec::new(),
        protocol: 59,
        payload: Vec::new(),
    }
    .bytes()
}

pub(crate) fn cases(cases: &mut Cases<'_>) {
    itself(cases);
    free(cases);
    others(cases);
    nobody_else(cases);
}

fn add(cases: &mut Cases<'_>, all: impl IntoIterator<Item = (&'static str, Vec<u8>, Verdict)>) {
    for (name, packet, verdict) in all {
        cases.add(Program::Encapsulate, name, packet, verdict);
        cases.on(registered);
        // Who it is, the port alone tells.
        if let Verdict::Drop(SpoofedAddress | SpoofedMac) = verdict {
            cases.only_at_port();
        }
    }
}

fn itself(cases: &mut Cases<'_>) {
    let unspecified = Ipv4Addr::UNSPECIFIED;
    add(
        cases,
        [
            (
                "a registered container is sent on with its address and its MAC address",
                udp(CONTAINER_MAC, CONTAINER),
                to_peer(),
            ),
            (
                "a registered container answers ARP for its address",
                arp(CONTAINER_MAC, CONTAINER_MAC, CONTAINER),
                pass(NotRouted),
            ),
            (
                "a registered container may probe for an address",
                arp(CONTAINER_MAC, CONTAINER_MAC, unspecified),
                pass(NotRouted),
            ),
            (
                "a registered container may look for a DHCP server",
                udp(CONTAINER_MAC, unspecified),
                pass(SourceNotOurs),
            ),
            (
                "a registered container may speak IPv6 with its MAC address",
                ipv6(CONTAINER_MAC),
                pass(NotRouted),
            ),
        ],
    );
}

fn free(cases: &mut Cases<'_>) {
    add(
        cases,
        [
            (
                "a registered container takes no address that is free",
                udp(CONTAINER_MAC, UNKNOWN_CONTAINER),
                drop(SpoofedAddress),
            ),
            (
                "a registered container announces no address that is free",
                arp(CONTAINER_MAC, CONTAINER_MAC, UNKNOWN_CONTAINER),
                drop(SpoofedAddress),
            ),
            (
                "a registered container makes up no MAC address",
                udp(MADE_UP, CONTAINER),
                drop(SpoofedMac),
            ),
            (
                "a registered container makes up neither",
                udp(MADE_UP, UNKNOWN_CONTAINER),
                drop(SpoofedMac),
            ),
            (
                "a registered container without an address makes up no MAC address",
                udp(MADE_UP, Ipv4Addr::UNSPECIFIED),
                drop(SpoofedMac),
            ),
            (
                "a registered container makes up no MAC address for ARP",
                arp(MADE_UP, MADE_UP, CONTAINER),
                drop(SpoofedMac),
            ),
            (
                "a registered container names no MAC address that it made up",
                arp(CONTAINER_MAC, MADE_UP, CONTAINER),
                drop(SpoofedMac),
            ),
            (
                "a registered container makes up no MAC address for a probe either",
                arp(CONTAINER_MAC, MADE_UP, Ipv4Addr::UNSPECIFIED),
                drop(SpoofedMac),
            ),
            (
                "a registered container makes up no MAC address for IPv6",
                ipv6(MADE_UP),
                drop(SpoofedMac),
            ),
            (
                "a registered container makes up no MAC address behind a tag of no VLAN",
                tagged(&ipv6(MADE_UP), &[(0x8100, 0)]),
                drop(SpoofedMac),
            ),
        ],
    );
}

fn others(cases: &mut Cases<'_>) {
    add(
        cases,
        [
            (
                "a registered container is not its sibling",
                udp(CONTAINER_MAC, SIBLING),
                drop(SpoofedAddress),
            ),
            (
                "a registered container has not its sibling's MAC address",
                udp(SIBLING_MAC, CONTAINER),
                drop(SpoofedMac),
            ),
            (
                "a registered container announces not its sibling's address",
                arp(CONTAINER_MAC, CONTAINER_MAC, SIBLING),
                drop(SpoofedAddress),
            ),
            (
                "a registered container names not its sibling's MAC address",
                arp(CONTAINER_MAC, SIBLING_MAC, CONTAINER),
                drop(SpoofedMac),
            ),
            (
                "a registered container is not its gateway",
                udp(CONTAINER_MAC, GATEWAY),
                drop(GatewayClaimed),
            ),
        ],
    );
    for (name, packet, verdict) in [
        (
            "a registered container is no successor of a sibling that is gone",
            udp(CONTAINER_MAC, SIBLING),
            drop(SpoofedAddress),
        ),
        (
            "a registered container has not the MAC address of a sibling that is gone",
            udp(SIBLING_MAC, CONTAINER),
            drop(SpoofedMac),
        ),
    ] {
        cases.add(Program::Encapsulate, name, packet, verdict);
        cases.on(sibling_gone);
        cases.only_at_port();
    }
}

fn nobody_else(cases: &mut Cases<'_>) {
    for (name, packet, verdict) in [
        (
            "the address of a registered container is nobody else's",
            udp(CONTAINER_MAC, SIBLING),
            drop(SpoofedAddress),
        ),
        (
            "the MAC address of a registered container is nobody else's",
            udp(SIBLING_MAC, UNKNOWN_CONTAINER),
            drop(SpoofedMac),
        ),
        (
            "beside a registered container others take addresses that are free",
            udp(CONTAINER_MAC, UNKNOWN_CONTAINER),
            to_peer(),
        ),
        (
            "beside a registered container others have more MAC addresses",
            arp(MADE_UP, CONTAINER_MAC, UNKNOWN_CONTAINER),
            pass(NotRouted),
        ),
    ] {
        cases.add(Program::Encapsulate, name, packet, verdict);
        cases.on(sibling_registered);
        cases.only_at_port();
    }
}
