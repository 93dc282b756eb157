//! What no container may offer to others: to be their router, or to give them addresses.

use mesh_layout::{DropReason, ETHERNET_LEN, ETHERTYPE_IPV4, PROTOCOL_UDP};

use crate::packet::{ETHERTYPE_IPV6, IPV6_LEN, Ipv4, OUTER_IP, Packet};

const PROTOCOL_ICMPV6: u8 = 58;
/// RFC 4861, section 4.2.
const ICMPV6_ROUTER_ADVERTISEMENT: u8 = 134;
/// RFC 4861, section 4.5.
const ICMPV6_REDIRECT: u8 = 137;
/// Extension headers that are looked behind. RFC 8200 knows eight, each at most once but one; a
/// longer chain hides something.
const MAX_EXTENSIONS: usize = 9;

/// Where clients of DHCP and DHCPv6 listen (RFC 2131; RFC 8415), to whoever speaks to them.
pub(crate) const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;

/// Whether a frame of a VLAN is for clients of DHCP.
#[inline(always)]
pub(crate) fn check_tagged(packet: Packet, ethertype: u16) -> Result<(), DropReason> {
    if ethertype == ETHERTYPE_IPV6.to_be() {
        return match ipv6(packet) {
            Err(DropReason::DhcpAnswer) => Err(DropReason::DhcpAnswer),
            // A router of that network.
            _ => Ok(()),
        };
    }
    if ethertype != ETHERTYPE_IPV4.to_be() {
        return Ok(());
    }
    let Some(ip) = packet.reach::<Ipv4>(OUTER_IP) else {
        return Ok(());
    };
    // SAFETY: `reach` proved that the header is in the packet.
    let ip = unsafe { *ip };
    if ip.protocol == PROTOCOL_UDP
        && !ip.is_later_fragment()
        && let Some([_, destination]) = packet.ports(&ip)
        && destination == DHCP_CLIENT.to_be()
    {
        return Err(DropReason::DhcpAnswer);
    }
    Ok(())
}

/// Router advertisements, redirects and answers of DHCPv6, also behind extension headers. Other
/// IPv6 is the containers' own business: the mesh carries none.
#[inline(always)]
pub(crate) fn ipv6(packet: Packet) -> Result<(), DropReason> {
    /// Hop-by-hop, routing, fragment, destination options, mobility, HIP, Shim6 (RFC 7045).
    const fn extends(header: u8) -> bool {
        matches!(header, 0 | 43 | 44 | 60 | 135 | 139 | 140)
    }
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    let Some([mut next]) = packet.load::<1>(ETHERNET_LEN as u32 + 6) else {
        return Ok(());
    };
    let mut offset = (ETHERNET_LEN + IPV6_LEN) as u32;
    for _ in 0..MAX_EXTENSIONS {
        if !extends(next) && next != AUTHENTICATION {
            break;
        }
        let Some([following, length, high, low]) = packet.load::<4>(offset) else {
            return Ok(());
        };
        if next == FRAGMENT && packet.leaves_checksum() {
            return Err(DropReason::Malformed);
        }
        if next == FRAGMENT && u16::from_be_bytes([high, low]) >> 3 != 0 {
            // Without its first fragment it never becomes whole.
            return Ok(());
        }
        // In units of eight bytes, the first not counted; of four, the first two not counted,
        // for authentication (RFC 4302); of a fixed length for fragments (RFC 8200).
        offset += match next {
            FRAGMENT => 8,
            AUTHENTICATION => (u32::from(length) + 2) * 4,
            _ => (u32::from(length) + 1) * 8,
        };
        next = following;
    }
    match next {
        // No kernel leaves this one to others.
        PROTOCOL_ICMPV6 if packet.leaves_checksum() => Err(DropReason::Malformed),
        PROTOCOL_ICMPV6 => match packet.load::<1>(offset) {
            Some([ICMPV6_ROUTER_ADVERTISEMENT | ICMPV6_REDIRECT]) => Err(DropReason::RouterAdvert),
            _ => Ok(()),
        },
        PROTOCOL_UDP => {
            let Some([high, low]) = packet.load::<2>(offset + 2) else {
                return Ok(());
            };
            if u16::from_be_bytes([high, low]) == DHCPV6_CLIENT {
                Err(DropReason::DhcpAnswer)
            } else {
                Ok(())
            }
        }
        header if extends(header) || header == AUTHENTICATION => Err(DropReason::Malformed),
        _ => Ok(()),
    }
}
