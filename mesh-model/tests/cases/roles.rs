//! What containers may not be, whoever they say they are: routers, DHCP servers, VTEPs.

use std::net::Ipv4Addr;

use mesh_layout::{
    DropReason::{ContainerVxlan, DhcpAnswer, Malformed, RouterAdvert},
    PassReason::{NotPeer, NotRouted},
};
use mesh_model::{Extension, Frame, Ipv6Frame, Program, Verdict, VxlanFrame, tagged};

use super::{Cases, drop, pass, ports::to_peer};
use crate::harness::node::{
    CONTAINER, CONTAINER_MAC, GATEWAY, GATEWAY_MAC, HOST, REMOTE, SIBLING, from_container,
    from_peer,
};

const BROADCAST_MAC: [u8; 6] = [0xff; 6];
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ICMPV6: u8 = 58;
const UDP: u8 = 17;
const ADVERTISEMENT: &[u8] = &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];

pub(crate) fn cases(cases: &mut Cases<'_>) {
    routers(cases);
    dhcp_servers(cases);
    vteps(cases);
}

fn ipv6(extensions: Vec<Extension>, protocol: u8, payload: &[u8]) -> Vec<u8> {
    Ipv6Frame {
        macs: [ALL_NODES_MAC, CONTAINER_MAC],
        extensions,
        protocol,
        payload: payload.to_vec(),
    }
    .bytes()
}

fn chain(count: usize) -> Vec<Extension> {
    vec![Extension::padded(60, 0); count]
}

fn routers(cases: &mut Cases<'_>) {
    let advertised = |extensions| ipv6(extensions, ICMPV6, ADVERTISEMENT);
    let plain = advertised(Vec::new());
    let redirect = with_protocol(1, &[5, 1, 0, 0, 0, 0, 0, 0]);
    for (name, packet, verdict) in [
        (
            "a router advertisement is dropped",
            plain.clone(),
            drop(RouterAdvert),
        ),
        (
            "a router advertisement behind a hop-by-hop header is dropped",
            advertised(vec![Extension::padded(0, 0)]),
            drop(RouterAdvert),
        ),
        (
            "a router advertisement behind a long authentication header is dropped",
            advertised(vec![Extension::padded(51, 5)]),
            drop(RouterAdvert),
        ),
        (
            "a router advertisement behind one of each extension header is dropped",
            advertised(
                [0, 43, 44, 51, 60, 135, 139, 140, 60]
                    .map(|kind| Extension::padded(kind, 1))
                    .into(),
            ),
            drop(RouterAdvert),
        ),
        (
            "a chain of ten extension headers hides something",
            advertised(chain(10)),
            drop(Malformed),
        ),
        (
            "the first fragment of a router advertisement is dropped",
            advertised(vec![Extension::fragment(0, true)]),
            drop(RouterAdvert),
        ),
        (
            "a later fragment is no router advertisement, whatever it begins with",
            advertised(vec![Extension::fragment(1, false)]),
            pass(NotRouted),
        ),
        (
            "an IPv6 redirect is dropped",
            ipv6(Vec::new(), ICMPV6, &[137; 40]),
            drop(RouterAdvert),
        ),
        ("an IPv4 redirect is dropped", redirect, drop(RouterAdvert)),
        (
            "a neighbour advertisement is the bridge's business",
            ipv6(Vec::new(), ICMPV6, &[136; 24]),
            pass(NotRouted),
        ),
        (
            "nine extension headers before an echo are the bridge's business",
            ipv6(chain(9), ICMPV6, &[128; 8]),
            pass(NotRouted),
        ),
        (
            "an IPv6 packet that is cut says nothing",
            plain[..54].to_vec(),
            pass(NotRouted),
        ),
        (
            "a VLAN tag below another, or below none, hides what is behind it",
            tagged(&plain, &[(0x8100, 0)]),
            drop(Malformed),
        ),
        (
            "a provider's VLAN tag hides what is behind it",
            tagged(&plain, &[(0x88a8, 7)]),
            drop(Malformed),
        ),
    ] {
        cases.add(Program::Encapsulate, name, packet, verdict);
    }
}

fn with_protocol(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = from_container(b"");
    frame.ip.protocol = protocol;
    frame.payload = payload.to_vec();
    frame.bytes()
}

fn dhcp(source: Ipv4Addr, ports: [u16; 2]) -> Frame {
    let macs = [CONTAINER_MAC, BROADCAST_MAC];
    Frame::udp(macs, [source, Ipv4Addr::BROADCAST], ports, &[0; 240])
}

fn dhcp_servers(cases: &mut Cases<'_>) {
    let answer = || dhcp(CONTAINER, [67, 68]);
    let changed = |change: fn(&mut Frame)| {
        let mut frame = answer();
        change(&mut frame);
        frame.bytes()
    };
    for (name, packet, verdict) in [
        (
            "a DHCP server's answer is dropped",
            answer().bytes(),
            drop(DhcpAnswer),
        ),
        (
            "a DHCP server's answer behind options is dropped",
            changed(|frame| frame.options = vec![1; 40]),
            drop(DhcpAnswer),
        ),
        (
            "what a DHCP client takes from another port than a server's is dropped",
            dhcp(CONTAINER, [6767, 68]).bytes(),
            drop(DhcpAnswer),
        ),
        (
            "what a DHCPv6 client takes from another port than a server's is dropped",
            ipv6(Vec::new(), UDP, &[26, 111, 2, 34, 0, 8, 0, 0]),
            drop(DhcpAnswer),
        ),
        (
            "the first fragment of a DHCP server's answer is dropped",
            changed(|frame| frame.ip.more_fragments = true),
            drop(DhcpAnswer),
        ),
        (
            "a later fragment is no DHCP server's answer, whatever it begins with",
            changed(|frame| frame.ip.fragment_offset = 1),
            pass(NotRouted),
        ),
        (
            "a DHCP client's question is the bridge's business",
            dhcp(Ipv4Addr::UNSPECIFIED, [68, 67]).bytes(),
            pass(NotRouted),
        ),
        (
            "a DHCPv6 server's answer is dropped",
            ipv6(Vec::new(), UDP, &[2, 35, 2, 34, 0, 8, 0, 0]),
            drop(DhcpAnswer),
        ),
        (
            "a DHCPv6 client's question is the bridge's business",
            ipv6(Vec::new(), UDP, &[2, 34, 2, 35, 0, 8, 0, 0]),
            pass(NotRouted),
        ),
    ] {
        cases.add(Program::Encapsulate, name, packet, verdict);
    }
}

fn vxlan_to(destination: Ipv4Addr) -> VxlanFrame {
    let macs = [CONTAINER_MAC, GATEWAY_MAC];
    VxlanFrame::proper(macs, [CONTAINER, destination], from_peer(b"forged").bytes())
}

fn vteps(cases: &mut Cases<'_>) {
    let gateway = |change: fn(&mut VxlanFrame)| {
        let mut frame = vxlan_to(GATEWAY);
        change(&mut frame);
        frame.bytes()
    };
    let address = Ipv4Addr::new;
    let mut case = |name, packet, verdict: Verdict| {
        cases.add(Program::Encapsulate, name, packet, verdict);
    };
    for (name, destination, verdict) in [
        (
            "VXLAN to the gateway is dropped",
            GATEWAY,
            drop(ContainerVxlan),
        ),
        ("VXLAN to the host is dropped", HOST, drop(ContainerVxlan)),
        (
            "VXLAN to a peer's gateway is dropped",
            address(10, 42, 2, 1),
            drop(ContainerVxlan),
        ),
        (
            "VXLAN to everybody in the subnet, the host among them, is dropped",
            address(10, 42, 1, 255),
            drop(ContainerVxlan),
        ),
        (
            "VXLAN to everybody in a peer's subnet is dropped",
            address(10, 42, 2, 255),
            drop(ContainerVxlan),
        ),
        (
            "VXLAN to the name of the subnet is dropped",
            address(10, 42, 1, 0),
            drop(ContainerVxlan),
        ),
        (
            "VXLAN to a host outside is dropped",
            address(203, 0, 113, 1),
            drop(ContainerVxlan),
        ),
        (
            "VXLAN to a sibling is the containers' business",
            SIBLING,
            pass(NotPeer),
        ),
        (
            "VXLAN to a peer's container is the containers' business",
            REMOTE,
            to_peer(),
        ),
    ] {
        case(name, vxlan_to(destination).bytes(), verdict);
    }
    for (name, packet, verdict) in [
        (
            "VXLAN behind options is dropped",
            gateway(|frame| frame.outer.options = vec![1; 40]),
            drop(ContainerVxlan),
        ),
        (
            "a first fragment without the VXLAN header is dropped",
            gateway(|frame| frame.outer.ip.more_fragments = true)[..42].to_vec(),
            drop(ContainerVxlan),
        ),
        (
            "a whole packet without a VXLAN header is nobody's VXLAN",
            gateway(|_| {})[..42].to_vec(),
            pass(NotPeer),
        ),
        (
            "VXLAN of another network is not ours",
            gateway(|frame| frame.vxlan.vni = 101),
            pass(NotPeer),
        ),
        (
            "VXLAN without a network is not ours",
            gateway(|frame| frame.vxlan.flags = 0),
            pass(NotPeer),
        ),
        (
            "UDP to another port is no VXLAN",
            gateway(|frame| frame.udp.destination = 4790),
            pass(NotPeer),
        ),
    ] {
        case(name, packet, verdict);
    }
}
