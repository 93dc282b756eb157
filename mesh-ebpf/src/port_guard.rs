//! What a container may send, checked before anybody else sees the frame.
//!
//! A container is known by its port, which it cannot choose. It may speak from any address of the
//! node's subnet that no other container holds, and with any MAC address that is no other
//! container's; never as the gateway, and never as a router, a DHCP server or a VTEP. A registered
//! container, whose port is a strict one, speaks from what is registered alone.

use mesh_layout::{
    CONFIG_GUARD_TAGGED, Config, DropReason, ENDPOINT_HELD, ENDPOINT_PORT_KERNEL, ETHERNET_LEN,
    ETHERTYPE_IPV4, EndpointKey, MacKey, PORT_KERNEL, PORT_STRICT, PROTOCOL_UDP, PassReason,
    PeerKey, PortKey, UDP_LEN, VXLAN_LEN,
};

use crate::{
    maps::{ENDPOINTS, MACS, PEERS, STRICT_PORTS},
    offers,
    packet::{ETHERTYPE_ARP, ETHERTYPE_IPV6, Ethernet, Ipv4, Mac, OUTER_IP, Packet, mac},
    verdict::{Dropped, Verdict},
};

/// The port of a frame that came up to the bridge, where it is no longer known.
pub(crate) const ANY_PORT: u32 = 0;
/// The port of a frame that came up to the bridge by another port than the one whose address or MAC
/// address it claims. No interface has that index.
pub(crate) const ANOTHER_PORT: u32 = u32::MAX;

/// A VLAN tag (IEEE 802.1Q).
const ETHERTYPE_VLAN: u16 = 0x8100;
/// A provider's VLAN tag (IEEE 802.1ad).
const ETHERTYPE_PROVIDER_VLAN: u16 = 0x88a8;

const PROTOCOL_ICMP: u8 = 1;
const ICMP_REDIRECT: u8 = 5;

/// The network of loopback, of which nothing is on a wire (RFC 1122, 3.2.1.3).
const LOOPBACK: u32 = u32::from_ne_bytes([127, 0, 0, 0]);
const LOOPBACK_MASK: u32 = u32::from_ne_bytes([255, 0, 0, 0]);

/// What bridges keep to themselves and do not forward (IEEE 802.1Q, 8.6.3): 01:80:c2:00:00:00 to :0f. A
/// frame for them enters the host by the port itself, not by the bridge.
const RESERVED_MAC: [u16; 2] = [0x0180_u16.to_be(), 0xc200_u16.to_be()];
const RESERVED_MAC_MASK: u16 = 0xfff0_u16.to_be();

/// An ARP message between IPv4 and Ethernet addresses (RFC 826).
#[repr(C)]
#[derive(Clone, Copy)]
struct Arp {
    hardware: u16,
    protocol: u16,
    lengths: [u8; 2],
    operation: u16,
    sender_mac: [u16; 3],
    sender: [u16; 2],
    target_mac: [u16; 3],
    target: [u16; 2],
}

/// Who a frame says it is from.
#[derive(Clone, Copy)]
struct Sender {
    /// Index of the port, or [`ANY_PORT`].
    port: u32,
    mac: Mac,
    /// Whether the packet filter may have translated its destination before it came here.
    may_be_translated: bool,
}

/// Lets the frame through, or says what becomes of it. `port` is the port it came in by, or
/// [`ANY_PORT`]; `may_be_translated` is whether its destination may be another than the container sent it to. Pointers
/// into the packet are void afterwards.
///
/// Returns whether the port is one whose packets are left to the kernel path; of frames that are
/// no IPv4, and so are its anyway, `false`.
#[inline(always)]
pub(crate) fn check(
    packet: Packet,
    config: &Config,
    port: u32,
    may_be_translated: bool,
) -> Result<bool, Verdict> {
    let Some(ethernet) = packet.at::<Ethernet>(0) else {
        return Err(Verdict::Pass(PassReason::Unreadable));
    };
    // SAFETY: `at` proved that the header is in the packet.
    let Ethernet {
        destination,
        source,
        ethertype,
    } = unsafe { *ethernet };
    let sender = Sender {
        port,
        mac: source,
        may_be_translated,
    };
    if is_reserved(destination) && is_of_hosts(ethertype) {
        return Err(because(DropReason::Malformed));
    }
    if packet.vlan() != 0 && config.flags & CONFIG_GUARD_TAGGED == 0 {
        // A network of its own inside the bridge, of which we know no addresses. But who looks for a
        // DHCP server does not always look at the tag.
        sender.check_mac(packet, config).map_err(because)?;
        return offers::check_tagged(packet, ethertype)
            .map(|()| false)
            .map_err(because);
    }
    if ethertype == ETHERTYPE_IPV4.to_be() {
        return ipv4(packet, config, sender);
    }
    sender.check_mac(packet, config).map_err(because)?;
    if ethertype == ETHERTYPE_ARP.to_be() {
        return arp(packet, config, sender).map(|()| false);
    }
    if ethertype == ETHERTYPE_IPV6.to_be() {
        return offers::ipv6(packet).map(|()| false).map_err(because);
    }
    if ethertype == ETHERTYPE_VLAN.to_be() || ethertype == ETHERTYPE_PROVIDER_VLAN.to_be() {
        // Below a tag that says nothing (VLAN 0): the kernel would look behind both, and so
        // would what is hidden there.
        return Err(because(DropReason::Malformed));
    }
    Ok(false)
}

/// Whether the address is one of those that bridges keep to themselves.
#[inline(always)]
fn is_reserved([a, b, c]: Mac) -> bool {
    [a, b] == RESERVED_MAC && c & RESERVED_MAC_MASK == 0
}

/// Whether hosts speak that with each other, and not bridges.
#[inline(always)]
fn is_of_hosts(ethertype: u16) -> bool {
    [
        ETHERTYPE_IPV4,
        ETHERTYPE_ARP,
        ETHERTYPE_IPV6,
        ETHERTYPE_VLAN,
        ETHERTYPE_PROVIDER_VLAN,
    ]
    .into_iter()
    .any(|it| ethertype == it.to_be())
}

fn because(reason: DropReason) -> Verdict {
    Verdict::Drop(Dropped::because(reason))
}

impl Sender {
    /// Whether the container may speak from `address`; and if so, whether its port is left to the kernel path.
    #[inline(always)]
    fn check(self, packet: Packet, config: &Config, address: u32) -> Result<bool, DropReason> {
        let key = EndpointKey {
            address: address.to_ne_bytes(),
        };
        // SAFETY: the entry may change under us; a packet judged by the old one is one that
        // came a moment earlier.
        let endpoint = unsafe { ENDPOINTS.get(&key) };
        // Nearly always: this entry binds the address, the MAC address and the port together.
        if let Some(endpoint) = endpoint
            && endpoint.link == self.port
            && mac(&endpoint.mac) == self.mac
        {
            return Ok(endpoint.flags & ENDPOINT_PORT_KERNEL != 0);
        }
        self.check_mac(packet, config)?;
        if address == gateway(config) {
            return Err(DropReason::GatewayClaimed);
        }
        if address == 0 {
            // It has none yet: a DHCP client, or an ARP probe (RFC 5227).
            return Ok(false);
        }
        let mask = u32::from_ne_bytes(config.mask);
        if address & mask != u32::from_ne_bytes(config.subnet) {
            return Err(DropReason::SpoofedAddress);
        }
        let host = address & !mask;
        if host == 0 || host == !mask {
            // The subnet's own, and everybody's in it.
            return Err(DropReason::SpoofedAddress);
        }
        let flags = self.port_flags();
        if flags & PORT_STRICT != 0 {
            // Its own are bound to it by their entries.
            return Err(DropReason::SpoofedAddress);
        }
        let is_left = flags & PORT_KERNEL != 0;
        let Some(endpoint) = endpoint else {
            return Ok(is_left);
        };
        let others = match self.port {
            ANY_PORT => mac(&endpoint.mac) != self.mac,
            port => endpoint.link != port,
        };
        if others && endpoint.flags & ENDPOINT_HELD != 0 && packet.has_link(endpoint.link) {
            return Err(DropReason::SpoofedAddress);
        }
        Ok(is_left)
    }

    /// Whether the container may speak with its MAC address.
    #[inline(always)]
    fn check_mac(self, packet: Packet, config: &Config) -> Result<(), DropReason> {
        if self.mac == mac(&config.bridge_mac) {
            return Err(DropReason::GatewayClaimed);
        }
        if self.port == ANY_PORT {
            return Ok(());
        }
        let key = MacKey {
            // SAFETY: six bytes either way, in the order they have in the packet.
            mac: unsafe { core::mem::transmute::<Mac, [u8; 6]>(self.mac) },
            pad: [0; 2],
        };
        // SAFETY: the entry may change under us, see above.
        match unsafe { MACS.get(&key) } {
            Some(holder) if holder.link == self.port => Ok(()),
            Some(holder) if packet.has_link(holder.link) => Err(DropReason::SpoofedMac),
            _ if self.is_strict() => Err(DropReason::SpoofedMac),
            _ => Ok(()),
        }
    }

    /// Whether the MAC address that an ARP message names as the sender's is the container's, as its
    /// neighbours will believe.
    #[inline(always)]
    fn check_named_mac(self, named: Mac) -> Result<(), DropReason> {
        if named != self.mac && self.is_strict() {
            return Err(DropReason::SpoofedMac);
        }
        Ok(())
    }

    /// Whether a registered container is behind the port.
    #[inline(always)]
    fn is_strict(self) -> bool {
        self.port_flags() & PORT_STRICT != 0
    }

    /// What is special about the port.
    #[inline(always)]
    fn port_flags(self) -> u32 {
        if self.port == ANY_PORT {
            return 0;
        }
        let key = PortKey { link: self.port };
        // SAFETY: the entry may change under us, see above.
        match unsafe { STRICT_PORTS.get(&key) } {
            Some(port) => port.flags,
            None => 0,
        }
    }
}

/// The address of the containers' gateway: the first of the node's subnet.
#[inline(always)]
fn gateway(config: &Config) -> u32 {
    (u32::from_be_bytes(config.subnet) + 1).to_be()
}

#[inline(always)]
fn ipv4(packet: Packet, config: &Config, sender: Sender) -> Result<bool, Verdict> {
    let Some(ip) = packet.reach::<Ipv4>(OUTER_IP) else {
        // Too short for a header: nobody takes it, but the bridge learns its MAC address.
        sender.check_mac(packet, config).map_err(because)?;
        return Err(Verdict::Pass(PassReason::Unreadable));
    };
    // SAFETY: `reach` proved that the header is in the packet.
    let ip = unsafe { *ip };
    if ip.destination & LOOPBACK_MASK == LOOPBACK && !sender.may_be_translated {
        // The rules drop it, too. But the bridge may route this network, so that published ports are reached by it,
        // and the rules may be flushed while no runtime writes them anew. The answers of published ports are for
        // the gateway until they are translated.
        return Err(because(DropReason::Malformed));
    }
    // Before the kernel cuts a packet up, it writes the checksum that is left to it, and makes the header
    // right afterwards. Whoever may send raw frames says where that is (`PACKET_VNET_HDR`, packet(7)): over
    // the source address, for one.
    if (ip.is_fragment() || ip.may_be_fragmented()) && packet.leaves_checksum() {
        if ip.is_fragment() {
            // No kernel cuts a packet up whose checksum is missing; put together on its way it would have
            // one.
            return Err(because(DropReason::Malformed));
        }
        if would_be_cut_for_sibling(packet, config, &ip) {
            // Nobody looks at it once more, as the overlay's program does.
            return Err(because(DropReason::Malformed));
        }
        packet.remember_source(&ip);
    }
    let verdict = sender
        .check(packet, config, ip.source)
        .and_then(|is_left| transport(packet, config, &ip).map(|()| is_left));
    verdict.map_err(|reason| {
        Verdict::Drop(Dropped {
            inner_at: OUTER_IP as u32,
            inner_source: ip.source,
            inner_destination: ip.destination,
            ..Dropped::because(reason)
        })
    })
}

/// Whether the packet is for another container of this node and longer than the bridge takes, which it is cut up
/// for by whoever routes it there, and by the bridge where that filters its traffic as IP.
#[inline(always)]
fn would_be_cut_for_sibling(packet: Packet, config: &Config, ip: &Ipv4) -> bool {
    ip.destination & u32::from_ne_bytes(config.mask) == u32::from_ne_bytes(config.subnet)
        && ip.destination != gateway(config)
        && packet.len() > config.overlay_mtu + ETHERNET_LEN as u32
        && !packet.is_to_be_segmented()
}

/// Whether an address lies in a peer's subnet.
#[inline(always)]
fn is_peers(config: &Config, address: u32) -> bool {
    let key = PeerKey {
        subnet: (address & u32::from_ne_bytes(config.mask)).to_ne_bytes(),
    };
    // SAFETY: only whether the entry exists counts.
    unsafe { PEERS.get(&key) }.is_some()
}

/// What of IPv4 a container may not send, whoever it says it is.
#[inline(always)]
fn transport(packet: Packet, config: &Config, ip: &Ipv4) -> Result<(), DropReason> {
    if ip.is_later_fragment() {
        // Without its first fragment it never becomes whole.
        return Ok(());
    }
    let offset = OUTER_IP + ip.header_len();
    if ip.protocol == PROTOCOL_UDP {
        let Some([_, destination]) = packet.ports(ip) else {
            return Ok(());
        };
        if destination == (config.port as u16).to_be() {
            return vxlan(packet, config, ip, offset as u32);
        }
        if destination == offers::DHCP_CLIENT.to_be() {
            return Err(DropReason::DhcpAnswer);
        }
    } else if ip.protocol == PROTOCOL_ICMP
        && let Some([ICMP_REDIRECT]) = packet.load(offset as u32)
    {
        return Err(DropReason::RouterAdvert);
    }
    Ok(())
}

/// UDP to the port of VXLAN. Between containers it is their business; to this host, another node
/// or anything else it would be taken for a node's.
#[inline(always)]
fn vxlan(packet: Packet, config: &Config, ip: &Ipv4, udp: u32) -> Result<(), DropReason> {
    let header = udp + UDP_LEN as u32;
    let end = header + VXLAN_LEN as u32;
    // What follows a packet's own length is padding of the link.
    let whole = (OUTER_IP + ip.total_len()) as u32 >= end && packet.len() >= end;
    let ours = if ip.is_fragment() && !whole {
        // The header comes in the next fragment.
        true
    } else {
        packet.any_has_vni(header, config.vni)
    };
    if ours && !is_container(config, ip.destination) {
        return Err(DropReason::ContainerVxlan);
    }
    Ok(())
}

/// Whether an address is one that a container of the mesh may have.
#[inline(always)]
fn is_container(config: &Config, address: u32) -> bool {
    let mask = u32::from_ne_bytes(config.mask);
    let (host, last) = (u32::from_be(address & !mask), u32::from_be(!mask));
    if host <= 1 || host == last {
        // A node's own, or everybody's there, the node among them: its VTEP takes broadcasts.
        return false;
    }
    address & mask == u32::from_ne_bytes(config.subnet) || is_peers(config, address)
}

#[inline(always)]
fn arp(packet: Packet, config: &Config, sender: Sender) -> Result<(), Verdict> {
    if packet.leaves_checksum() {
        // It has none: this is to change it once it is through.
        return Err(because(DropReason::Malformed));
    }
    let Some(arp) = packet.reach::<Arp>(ETHERNET_LEN) else {
        return Ok(());
    };
    // SAFETY: `reach` proved that the message is in the packet.
    let (from, named, to) = unsafe { ((*arp).sender, (*arp).sender_mac, (*arp).target) };
    let address = |[high, low]: [u16; 2]| {
        let ([a, b], [c, d]) = (high.to_ne_bytes(), low.to_ne_bytes());
        u32::from_ne_bytes([a, b, c, d])
    };
    sender
        .check(packet, config, address(from))
        .and_then(|_| sender.check_named_mac(named))
        .map_err(|reason| {
            Verdict::Drop(Dropped {
                inner_source: address(from),
                inner_destination: address(to),
                ..Dropped::because(reason)
            })
        })
}

const _: () = assert!(size_of::<Arp>() == 28);
