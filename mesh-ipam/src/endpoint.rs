//! What was made for a container that has a lease: its interface, and the ports it is published by.

use std::{fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::NetworkNamespace;

/// The most ports that one endpoint is published by, ranges counted port by port.
pub const MAX_PUBLISHED: usize = 1024;

/// The MAC address that follows from an address: `02:53` and its four octets. It is administered
/// locally and of one station (IEEE 802, bits 1 and 0 of the first octet), and the second octet tells
/// those of this project from what other programs make up.
pub fn endpoint_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x53, a, b, c, d]
}

/// The interface that was made for a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name of the host's end of its veth pair.
    pub link: String,
    /// MAC address of the container's end.
    pub mac: [u8; 6],
    /// The most that the container sends at once, in bytes of IPv4.
    pub mtu: u32,
    /// Whether the container's default route leads through it.
    #[serde(default)]
    pub default_route: bool,
    /// The ports of the host by which it is reached.
    #[serde(default)]
    pub published: Vec<Published>,
    /// Whether all of it was made. Of what was begun and never finished nothing stays.
    #[serde(default)]
    pub settled: bool,
    /// The container's network namespace: the interface goes with it.
    #[serde(default)]
    pub namespace: Option<NetworkNamespace>,
    /// Whether the engine moves the container's end into a namespace that is not known here: it is made on the host.
    #[serde(default)]
    pub moved_by_engine: bool,
    /// Whether the address was leased along with it, and is released along with it.
    #[serde(default)]
    pub leased_along: bool,
}

/// A transport protocol whose ports are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Whether an address of the host is one of those that are meant where none is named: 127.0.0.1, and none else of
/// loopback, where a resolver of the host's own may answer.
#[must_use]
pub fn is_of_all(address: Ipv4Addr) -> bool {
    !address.is_loopback() || address == Ipv4Addr::LOCALHOST
}

/// A range of the host's ports by which a container is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Published {
    /// The protocol.
    pub protocol: Protocol,
    /// The host's address; `None` for all of its own, of those of loopback 127.0.0.1 alone. By one of loopback the
    /// container is reached from its own host, and from nowhere else.
    pub host_address: Option<Ipv4Addr>,
    /// The first port of the host.
    pub host_port: u16,
    /// The first port of the container.
    pub container_port: u16,
    /// How many ports follow each other, at least one.
    pub count: u16,
}

/// A range of ports that cannot be published. Each names the value and the rule.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PublishedError {
    /// No port, or more than there are.
    #[error(
        "published ports {0}: a range lies between 1 and 65535, on the host and in the container"
    )]
    Range(Published),
    /// An address that is no host's.
    #[error(
        "published ports {0}: that address is no host's: name one of the host's, or none for all of them"
    )]
    HostAddress(Published),
    /// Two ranges of one endpoint share a port of the host.
    #[error("published ports {0} and {1} share a port of the host")]
    Overlap(Published, Published),
    /// Too many.
    #[error(
        "{0} ports are published, at most {MAX_PUBLISHED} are taken: publish a range on a proxy instead"
    )]
    TooMany(usize),
}

impl Published {
    /// Whether the ports are those of that address, if it is the host's.
    #[must_use]
    pub fn is_of(&self, address: Ipv4Addr) -> bool {
        match self.host_address {
            Some(one) => one == address,
            None => is_of_all(address),
        }
    }

    /// Whether both share a port of the host.
    pub fn overlaps(&self, other: &Self) -> bool {
        let addresses = match (self.host_address, other.host_address) {
            (Some(one), Some(another)) => one == another,
            (Some(one), None) | (None, Some(one)) => is_of_all(one),
            (None, None) => true,
        };
        let end = |it: &Self| u32::from(it.host_port) + u32::from(it.count);
        let starts_before = |one: &Self, another: &Self| u32::from(one.host_port) < end(another);
        addresses
            && self.protocol == other.protocol
            && starts_before(self, other)
            && starts_before(other, self)
    }

    /// Checks what one endpoint is published by.
    ///
    /// # Errors
    ///
    /// The first range that breaks a rule, with the rule.
    pub fn check_all(all: &[Self]) -> Result<(), PublishedError> {
        for (position, range) in all.iter().enumerate() {
            let last = |first: u16| u32::from(first) + u32::from(range.count) - 1;
            if range.count == 0
                || range.host_port == 0
                || range.container_port == 0
                || last(range.host_port) > 65535
                || last(range.container_port) > 65535
            {
                return Err(PublishedError::Range(range.clone()));
            }
            if range.host_address.is_some_and(|address| {
                address.is_multicast() || address.is_broadcast() || address.is_unspecified()
            }) {
                return Err(PublishedError::HostAddress(range.clone()));
            }
            if let Some(other) = all[..position].iter().find(|other| other.overlaps(range)) {
                return Err(PublishedError::Overlap(other.clone(), range.clone()));
            }
        }
        let ports = all.iter().map(|range| usize::from(range.count)).sum();
        if ports > MAX_PUBLISHED {
            return Err(PublishedError::TooMany(ports));
        }
        Ok(())
    }
}

impl fmt::Display for Published {
    /// As engines write it: `192.0.2.11:8000-8009:80-89/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.host_address {
            write!(f, "{address}:")?;
        }
        let range = |f: &mut fmt::Formatter<'_>, first: u16| match self.count {
            0 | 1 => write!(f, "{first}"),
            count => write!(f, "{first}-{}", u32::from(first) + u32::from(count) - 1),
        };
        range(f, self.host_port)?;
        f.write_str(":")?;
        range(f, self.container_port)?;
        write!(f, "/{}", self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(host_address: Option<&str>, host_port: u16, count: u16) -> Published {
        Published {
            protocol: Protocol::Tcp,
            host_address: host_address.map(|text| text.parse().unwrap()),
            host_port,
            container_port: 80,
            count,
        }
    }

    #[test]
    fn ranges_are_written_as_engines_write_them() {
        assert_eq!(range(None, 8080, 1).to_string(), "8080:80/tcp");
        assert_eq!(
            range(Some("192.0.2.11"), 8000, 10).to_string(),
            "192.0.2.11:8000-8009:80-89/tcp"
        );
    }

    #[test]
    fn ranges_of_one_address_share_no_port_and_those_of_two_may() {
        let check = |ranges: &[Published]| Published::check_all(ranges);
        assert!(matches!(
            check(&[range(None, 8000, 10), range(Some("192.0.2.1"), 8009, 1)]),
            Err(PublishedError::Overlap(..))
        ));
        assert!(matches!(
            check(&[range(None, 8000, 1), range(Some("127.0.0.1"), 8000, 1)]),
            Err(PublishedError::Overlap(..))
        ));
        // Of loopback only 127.0.0.1 is one of all.
        assert_eq!(
            check(&[range(None, 8000, 1), range(Some("127.0.0.2"), 8000, 1)]),
            Ok(())
        );
        assert_eq!(
            check(&[range(None, 8000, 10), range(None, 8010, 1)]),
            Ok(())
        );
        let (one, another) = (Some("192.0.2.1"), Some("192.0.2.2"));
        assert_eq!(
            check(&[range(one, 8000, 1), range(another, 8000, 1)]),
            Ok(())
        );
    }

    #[test]
    fn what_is_no_port_or_no_address_of_a_host_is_refused_by_name() {
        for bad in [
            range(None, 0, 1),
            range(None, 8080, 0),
            range(None, 65530, 7),
        ] {
            let error = Published::check_all(&[bad]).unwrap_err();
            assert!(matches!(error, PublishedError::Range(_)), "{error}");
        }
        for address in ["0.0.0.0", "224.0.0.1", "255.255.255.255"] {
            let error = Published::check_all(&[range(Some(address), 80, 1)]).unwrap_err();
            assert!(error.to_string().contains(address), "{error}");
        }
        let loopback = range(Some("127.0.0.1"), 80, 1);
        assert_eq!(Published::check_all(&[loopback]), Ok(()));
        let error = Published::check_all(&[range(None, 1000, 1025)]).unwrap_err();
        assert_eq!(error, PublishedError::TooMany(1025));
    }
}
