//! Sizes and constants of the headers on the wire.

/// Length of an Ethernet header without a VLAN tag (IEEE 802.3).
pub const ETHERNET_LEN: usize = 14;
/// Length of an IPv4 header without options (RFC 791).
pub const IPV4_LEN: usize = 20;
/// Length of a UDP header (RFC 768).
pub const UDP_LEN: usize = 8;
/// Length of a VXLAN header (RFC 7348, section 5).
pub const VXLAN_LEN: usize = 8;

/// What encapsulation puts before an inner IPv4 packet, behind the outer Ethernet header:
/// outer IPv4, UDP, VXLAN and the inner Ethernet header. Also what the overlay's MTU is
/// smaller than the underlay's.
pub const ENCAPSULATION_LEN: usize = IPV4_LEN + UDP_LEN + VXLAN_LEN + ETHERNET_LEN;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// First byte of a VXLAN header whose VNI is valid (RFC 7348: the I flag).
pub const VXLAN_FLAG_VNI: u8 = 0x08;
/// The UDP port IANA gave VXLAN.
pub const VXLAN_PORT: u16 = 4789;
/// The VNI of the overlay.
pub const VNI: u32 = 100;

/// The MAC address of the overlay device of the node that owns `subnet` (its network
/// address, network byte order): `02:51` and the four bytes of the address.
///
/// Locally administered, unicast, and a function of the subnet alone, so that every node
/// knows every peer's without asking. It is given in the message that creates the device,
/// because systemd rewrites one that the kernel chose.
pub const fn overlay_mac(subnet: [u8; 4]) -> [u8; 6] {
    [0x02, 0x51, subnet[0], subnet[1], subnet[2], subnet[3]]
}

/// The MAC address of the bridge of the node that owns `subnet`: `02:52` and the address.
pub const fn bridge_mac(subnet: [u8; 4]) -> [u8; 6] {
    [0x02, 0x52, subnet[0], subnet[1], subnet[2], subnet[3]]
}
