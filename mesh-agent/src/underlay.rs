//! The node's address on the underlay.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// Why an address cannot be a node's underlay address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnderlayAddressError {
    /// Not IPv4 in dotted notation.
    #[error("it is not an IPv4 address such as 192.0.2.12")]
    Notation,
    /// 0.0.0.0 and the rest of 0.0.0.0/8 (RFC 1122 section 3.2.1.3).
    #[error("0.0.0.0/8 means \"this host\" and cannot be a destination")]
    Unspecified,
    /// 224.0.0.0/4 (RFC 1112).
    #[error("it is a multicast address; a node has a unicast address")]
    Multicast,
    /// 255.255.255.255 (RFC 919).
    #[error("it is the broadcast address; a node has a unicast address")]
    Broadcast,
}

/// Reads a node's address on the underlay: IPv4 unicast. Loopback passes, for clusters that
/// live on one machine.
///
/// # Errors
/// If the text is not an IPv4 address, or not a unicast one.
pub fn parse_underlay_address(text: &str) -> Result<Ipv4Addr, UnderlayAddressError> {
    let address: Ipv4Addr = text.parse().map_err(|_| UnderlayAddressError::Notation)?;
    if address.octets()[0] == 0 {
        Err(UnderlayAddressError::Unspecified)
    } else if address.is_multicast() {
        Err(UnderlayAddressError::Multicast)
    } else if address.is_broadcast() {
        Err(UnderlayAddressError::Broadcast)
    } else {
        Ok(address)
    }
}

/// Why no source address could be found.
#[derive(Debug, thiserror::Error)]
pub enum SourceAddressError {
    /// The kernel has no IPv4 route, or no permission for a socket.
    #[error("no IPv4 route to {remote}: {source}")]
    NoRoute {
        /// Where the route was to lead.
        remote: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The control plane is reached over IPv6 only.
    #[error("{remote} is an IPv6 address, and the underlay is IPv4")]
    NotIpv4 {
        /// The control plane's address.
        remote: SocketAddr,
    },
}

/// The source address that the kernel would use to reach `remote`. Connecting a UDP socket
/// makes the kernel choose route and source; no packet is sent.
///
/// # Errors
/// If `remote` is not IPv4, or there is no route to it.
pub fn source_address_towards(remote: SocketAddr) -> Result<Ipv4Addr, SourceAddressError> {
    let no_route = |source| SourceAddressError::NoRoute { remote, source };
    if !remote.is_ipv4() {
        return Err(SourceAddressError::NotIpv4 { remote });
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(no_route)?;
    socket.connect(remote).map_err(no_route)?;
    match socket.local_addr().map_err(no_route)?.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(SourceAddressError::NotIpv4 { remote }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_underlay_address_is_ipv4_unicast() {
        assert_eq!(
            parse_underlay_address("192.0.2.12"),
            Ok(Ipv4Addr::new(192, 0, 2, 12))
        );
        for (text, error) in [
            ("", UnderlayAddressError::Notation),
            ("node1", UnderlayAddressError::Notation),
            ("192.0.2.12/24", UnderlayAddressError::Notation),
            ("2001:db8::1", UnderlayAddressError::Notation),
            ("0.0.0.0", UnderlayAddressError::Unspecified),
            ("0.1.2.3", UnderlayAddressError::Unspecified),
            ("224.0.0.1", UnderlayAddressError::Multicast),
            ("255.255.255.255", UnderlayAddressError::Broadcast),
        ] {
            assert_eq!(parse_underlay_address(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_source_towards_loopback_is_loopback() {
        let remote = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1), 9));
        assert_eq!(
            source_address_towards(remote).unwrap(),
            Ipv4Addr::new(127, 0, 0, 1)
        );
    }

    #[test]
    fn an_ipv6_control_plane_names_no_ipv4_source() {
        let remote = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 9));
        let error = source_address_towards(remote).unwrap_err();
        assert!(
            matches!(error, SourceAddressError::NotIpv4 { .. }),
            "{error}"
        );
    }
}
