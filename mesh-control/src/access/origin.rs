//! Where a request comes from: what its connection carries.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use mesh_credentials::certificate::Presented;
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::own_certificate::OwnCertificate;

/// How the bytes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As plain HTTP.
    Plain,
    /// Over TLS.
    Tls,
    /// Over the Unix socket that only root and the control plane's own user can open.
    AdminSocket,
}

/// What a client has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// A certificate of the mesh.
    Mesh(Presented),
    /// One that an authority of one's own has signed (`--tls-ca`).
    Own(OwnCertificate),
}

impl Certificate {
    /// Its last second, in Unix seconds.
    pub fn not_after(&self) -> i64 {
        match self {
            Self::Mesh(presented) => presented.not_after,
            Self::Own(own) => own.not_after,
        }
    }

    /// By what its node is known: its key, or what stands for it.
    pub fn key(&self) -> KeyDigest {
        match self {
            Self::Mesh(presented) => presented.key,
            Self::Own(own) => own.identity.digest(),
        }
    }
}

/// Whom it is for, as it says.
impl std::fmt::Display for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mesh(presented) => presented.name.fmt(f),
            Self::Own(own) => own.identity.fmt(f),
        }
    }
}

/// What there is to know of a connection.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The other end, where it has an address.
    pub peer: Option<SocketAddr>,
    /// How the bytes come.
    pub way: Way,
    /// What the client has shown, signed by an authority that is trusted. It may have expired.
    pub certificate: Option<Certificate>,
}

impl Origin {
    /// A connection without TLS.
    pub fn plain(peer: SocketAddr) -> Self {
        Self {
            peer: Some(peer),
            way: Way::Plain,
            certificate: None,
        }
    }

    /// A connection to the admin socket.
    pub fn admin() -> Self {
        Self {
            peer: None,
            way: Way::AdminSocket,
            certificate: None,
        }
    }

    /// Whether the other end is on this host, as far as its address tells.
    pub fn is_loopback(&self) -> bool {
        self.peer
            .is_some_and(|peer| peer.ip().to_canonical().is_loopback())
    }

    /// Who is made to wait for what is refused to it.
    pub fn source(&self) -> Option<Source> {
        self.peer.map(|peer| Source::of(peer.ip()))
    }
}

/// Whose addresses count as one: an IPv4 address, or an IPv6 network of 64 bits, which is what a host is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// That of an address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_address_or_what_a_host_is_given_of_ipv6() {
        let source = |text: &str| Source::of(text.parse().unwrap()).to_string();
        assert_eq!(source("192.0.2.7"), "192.0.2.7");
        assert_eq!(source("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(source("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_ne!(source("2001:db8:1:3::"), source("2001:db8:1:2::"));
    }

    #[test]
    fn loopback_is_told_in_every_notation() {
        for (address, expected) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("192.0.2.1:1", false),
            ("[::ffff:192.0.2.1]:1", false),
            ("[fe80::1]:1", false),
        ] {
            let origin = Origin::plain(address.parse().unwrap());
            assert_eq!(origin.is_loopback(), expected, "{address}");
        }
        assert!(!Origin::admin().is_loopback());
    }
}
