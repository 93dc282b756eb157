//! What a container may send.
//!
//! It is known by its port, which it cannot choose. It may speak from any address of the node's
//! subnet that no other container holds, and with any MAC address that is no other container's;
//! never as the gateway, and never as a router, a DHCP server or a VTEP. One that is registered
//! speaks from the addresses and the MAC addresses that its port has, and from no others.

use std::net::Ipv4Addr;

use mesh_layout::{
    DropReason, ENDPOINT_HELD, ETHERNET_LEN, ETHERTYPE_IPV4, PROTOCOL_UDP, PassReason, UDP_LEN,
    VXLAN_LEN,
};

use crate::{
    Arrival, Ethernet, Ipv4, Node, Outcome, Vxlan,
    frames::{ArpFrame, ETHERTYPE_ARP, ETHERTYPE_IPV6, IPV6_LEN},
    header::bytes,
    outcome::Dropped,
};

/// EtherTypes of VLAN tags: IEEE 802.1Q and 802.1ad.
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
/// ICMP type of RFC 792.
const REDIRECT: u8 = 5;
/// ICMPv6 types of RFC 4861, sections 4.2 and 4.5.
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT_V6: u8 = 137;
/// Where clients of DHCP and DHCPv6 listen (RFC 2131; RFC 8415).
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;

/// IPv6 extension headers with a length of their own: hop-by-hop, routing, destination options,
/// mobility, HIP, Shim6 (RFC 7045).
const EXTENSIONS: [u8; 6] = [0, 43, 60, 135, 139, 140];
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
/// A longer chain of extension headers hides something.
const LONGEST_CHAIN: usize = 9;

/// What becomes of a packet that the container behind `port` may not send, or that nobody could
/// read; `None` if the packet may go on. Without a port it is not known who sent it.
pub(crate) fn refuse(node: &Node, arrival: &Arrival<'_>, port: Option<u32>) -> Option<Outcome> {
    let Some(ethernet) = Ethernet::read(arrival.packet) else {
        return Some(Outcome::pass(arrival, PassReason::Unreadable));
    };
    let sender = Sender {
        node,
        port,
        mac: ethernet.source,
        segment_size: arrival.segment_size,
    };
    match sender.may_send(arrival, ethernet.ethertype) {
        Ok(true) => None,
        Ok(false) => Some(Outcome::pass(arrival, PassReason::Unreadable)),
        Err(dropped) => Some(dropped.outcome(arrival)),
    }
}

/// Who a frame says it is from.
#[derive(Clone, Copy)]
struct Sender<'a> {
    node: &'a Node,
    port: Option<u32>,
    mac: [u8; 6],
    /// Of a packet that stands for several datagrams, what each of them carries.
    segment_size: u16,
}

impl Sender<'_> {
    /// Whether the frame can be read as what it says it is, or why it is dropped.
    fn may_send(self, arrival: &Arrival<'_>, ethertype: u16) -> Result<bool, Dropped> {
        let body = &arrival.packet[ETHERNET_LEN..];
        let mac = || self.may_use_its_mac().map_err(Dropped::because);
        let of_hosts = [ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6]
            .iter()
            .chain(&VLAN_TAGS)
            .any(|it| *it == ethertype);
        if is_reserved(arrival.packet) && of_hosts {
            // No bridge forwards it, and the host would take it.
            return Err(Dropped::because(DropReason::Malformed));
        }
        let of_vlan = arrival.vlan_tag.is_some_and(|tag| tag & 0xfff != 0);
        if of_vlan && !self.node.guards_tagged() {
            // A network of its own, of which the node knows no addresses.
            mac()?;
            return offers_address(ethertype, body)
                .map_err(Dropped::because)
                .map(|()| true);
        }
        match ethertype {
            ETHERTYPE_IPV4 => match Ipv4::read(body) {
                Some(ip) => self.ipv4(&ip, body).map(|()| true),
                // Nobody takes the packet, but the bridge learns who sent it.
                None => mac().map(|()| false),
            },
            ETHERTYPE_ARP => {
                mac()?;
                self.arp(body).map(|()| true)
            }
            ETHERTYPE_IPV6 => {
                mac()?;
                ipv6(body).map_err(Dropped::because).map(|()| true)
            }
            // Below a tag of no VLAN, or none that was taken off: it hides what is behind it.
            tag if VLAN_TAGS.contains(&tag) => {
                mac()?;
                Err(Dropped::because(DropReason::Malformed))
            }
            _ => mac().map(|()| true),
        }
    }

    /// Whether the container may use the MAC address.
    fn may_use_its_mac(self) -> Result<(), DropReason> {
        if self.mac == self.node.config.bridge_mac {
            return Err(DropReason::GatewayClaimed);
        }
        let Some(port) = self.port else {
            return Ok(());
        };
        let holder = self.node.port_of(self.mac);
        let own = holder == Some(port);
        let anothers = holder.is_some_and(|it| it != port && self.node.exists(it));
        match anothers || (self.is_registered() && !own) {
            true => Err(DropReason::SpoofedMac),
            false => Ok(()),
        }
    }

    /// Whether the container is a registered one, as far as its port is known.
    fn is_registered(self) -> bool {
        self.port.is_some_and(|port| self.node.is_strict(port))
    }

    /// Whether the container may speak from the address with its MAC address.
    fn may_speak_from(self, address: Ipv4Addr) -> Result<(), DropReason> {
        let entry = self.node.endpoint(address);
        if entry.is_some_and(|it| Some(it.link) == self.port && it.mac == self.mac) {
            // Whoever wrote the entry has bound all three together, whatever else it wrote.
            return Ok(());
        }
        self.may_use_its_mac()?;
        if address == self.node.gateway() {
            return Err(DropReason::GatewayClaimed);
        }
        if address == Ipv4Addr::UNSPECIFIED {
            // Nobody yet: a DHCP client, or an ARP probe (RFC 5227).
            return Ok(());
        }
        if !self.node.owns(address) || self.node.is_everybodys(address) {
            return Err(DropReason::SpoofedAddress);
        }
        if self.is_registered() {
            // Also what nobody has is not its own.
            return Err(DropReason::SpoofedAddress);
        }
        let Some(entry) = entry.filter(|it| it.flags & ENDPOINT_HELD != 0) else {
            return Ok(());
        };
        let anothers = match self.port {
            Some(port) => entry.link != port,
            // Where the port is not known, the MAC address stands for it.
            None => entry.mac != self.mac,
        };
        match anothers && self.node.exists(entry.link) {
            true => Err(DropReason::SpoofedAddress),
            false => Ok(()),
        }
    }

    fn ipv4(self, ip: &Ipv4, packet: &[u8]) -> Result<(), Dropped> {
        if ip.destination.is_loopback() {
            // No wire carries it, and a host that routes it would take it for its own.
            return Err(Dropped::because(DropReason::Malformed));
        }
        let verdict = self
            .may_speak_from(ip.source)
            .and_then(|()| beyond_ipv4(self.node, self.segment_size, ip, packet));
        verdict.map_err(|reason| Dropped {
            inner: Some((ip.source, ip.destination)),
            inner_at: Some(ETHERNET_LEN),
            ..Dropped::because(reason)
        })
    }

    fn arp(self, message: &[u8]) -> Result<(), Dropped> {
        let Some((sender, target)) = ArpFrame::addresses(message) else {
            // Nobody takes it.
            return Ok(());
        };
        let verdict = self.may_speak_from(sender).and_then(|()| {
            // Neighbours believe the message, not the frame around it.
            let named = ArpFrame::sender_mac(message) == Some(self.mac);
            match named || !self.is_registered() {
                true => Ok(()),
                false => Err(DropReason::SpoofedMac),
            }
        });
        verdict.map_err(|reason| Dropped {
            inner: Some((sender, target)),
            ..Dropped::because(reason)
        })
    }
}

/// Whether the frame is for one of the addresses that bridges keep to themselves (IEEE 802.1Q, 8.6.3).
fn is_reserved(packet: &[u8]) -> bool {
    packet.starts_with(&[0x01, 0x80, 0xc2, 0, 0]) && packet.get(5).is_some_and(|last| *last < 16)
}

/// Whether a frame of another VLAN is for clients of DHCP, who do not always look at its tag.
fn offers_address(ethertype: u16, body: &[u8]) -> Result<(), DropReason> {
    match ethertype {
        ETHERTYPE_IPV6 => match ipv6(body) {
            Err(DropReason::DhcpAnswer) => Err(DropReason::DhcpAnswer),
            // A router of that network.
            _ => Ok(()),
        },
        ETHERTYPE_IPV4 => {
            let client = Ipv4::read(body)
                .filter(|ip| ip.protocol == PROTOCOL_UDP && ip.fragment_offset == 0)
                .and_then(|ip| ports(body.get(ip.length()..)?))
                .is_some_and(|[_, to]| to == DHCP_CLIENT);
            match client {
                true => Err(DropReason::DhcpAnswer),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// What no container may send behind an IPv4 header.
fn beyond_ipv4(node: &Node, segment_size: u16, ip: &Ipv4, packet: &[u8]) -> Result<(), DropReason> {
    if ip.fragment_offset != 0 {
        // Without its first fragment it never becomes whole.
        return Ok(());
    }
    let transport = packet.get(ip.length()..).unwrap_or_default();
    match ip.protocol {
        PROTOCOL_UDP => match ports(transport) {
            Some([_, to]) if u32::from(to) == node.config.port => {
                vxlan(node, segment_size, ip, transport)
            }
            Some([_, DHCP_CLIENT]) => Err(DropReason::DhcpAnswer),
            _ => Ok(()),
        },
        PROTOCOL_ICMP if transport.first() == Some(&REDIRECT) => Err(DropReason::RouterAdvert),
        _ => Ok(()),
    }
}

/// UDP to the port of VXLAN is between containers their own business. To anybody else it would be
/// taken for a node's, if it is of our network or its header comes in a later fragment.
fn vxlan(node: &Node, segment_size: u16, ip: &Ipv4, udp: &[u8]) -> Result<(), DropReason> {
    // What follows a packet's own length is padding of the link.
    let data = udp.get(UDP_LEN..).unwrap_or_default();
    let whole = usize::from(ip.total_length) >= ip.length() + UDP_LEN + VXLAN_LEN
        && data.len() >= VXLAN_LEN;
    let ours = ip.is_fragment() && !whole || any_is_ours(node, segment_size, data);
    match ours && !node.may_be_a_container(ip.destination) {
        true => Err(DropReason::ContainerVxlan),
        false => Ok(()),
    }
}

/// Whether any of the datagrams that the data of a UDP packet will be cut into is VXLAN of our
/// network.
pub(crate) fn any_is_ours(node: &Node, segment_size: u16, mut data: &[u8]) -> bool {
    /// What the kernel makes of one packet at most.
    const MAX_DATAGRAMS: usize = 128;
    for _ in 0..MAX_DATAGRAMS {
        let Some(header) = Vxlan::read(data) else {
            return false;
        };
        if header.has_vni() && header.vni == node.config.vni {
            return true;
        }
        if segment_size == 0 {
            return false;
        }
        data = data.get(usize::from(segment_size)..).unwrap_or_default();
    }
    true
}

/// What no container may send over IPv6, of which the mesh carries none: what only routers and
/// DHCP servers say.
fn ipv6(packet: &[u8]) -> Result<(), DropReason> {
    let Some([mut next]) = bytes(packet, 6) else {
        return Ok(());
    };
    let mut rest = packet.get(IPV6_LEN..).unwrap_or_default();
    for _ in 0..LONGEST_CHAIN {
        if !extends(next) {
            break;
        }
        let Some([following, length, high, low]) = bytes(rest, 0) else {
            return Ok(());
        };
        let length = usize::from(length);
        let long = match next {
            FRAGMENT if u16::from_be_bytes([high, low]) >> 3 != 0 => {
                // Without its first fragment it never becomes whole.
                return Ok(());
            }
            FRAGMENT => 8,
            AUTHENTICATION => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        next = following;
        rest = rest.get(long..).unwrap_or_default();
    }
    match next {
        PROTOCOL_ICMPV6 => match rest.first() {
            Some(&(ROUTER_ADVERTISEMENT | REDIRECT_V6)) => Err(DropReason::RouterAdvert),
            _ => Ok(()),
        },
        PROTOCOL_UDP if ports(rest).is_some_and(|[_, to]| to == DHCPV6_CLIENT) => {
            Err(DropReason::DhcpAnswer)
        }
        other if extends(other) => Err(DropReason::Malformed),
        _ => Ok(()),
    }
}

/// Whether a header of this kind says what follows it.
fn extends(kind: u8) -> bool {
    EXTENSIONS.contains(&kind) || [FRAGMENT, AUTHENTICATION].contains(&kind)
}

/// Source and destination port of a UDP header.
fn ports(udp: &[u8]) -> Option<[u16; 2]> {
    Some([bytes(udp, 0)?, bytes(udp, 2)?].map(u16::from_be_bytes))
}
