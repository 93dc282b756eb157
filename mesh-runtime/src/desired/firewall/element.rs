//! Elements of named sets and maps: as nft writes them, and as the kernel compares them.

use std::{fmt, net::Ipv4Addr};

use super::{published::Publication, text::class};
use crate::{diff::change::DisplayMac, ebpf::Mac};

/// An element as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    /// What it is compared by.
    pub(crate) key: Vec<u8>,
    /// What a map leads to; of a set nothing.
    pub(crate) data: Vec<u8>,
}

impl Raw {
    /// All of it, as it is compared with what the kernel shows.
    pub(crate) fn whole(&self) -> Vec<u8> {
        [&self.key[..], &self.data].concat()
    }
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    Address(Ipv4Addr),
    Interface(String),
    Port(u32),
    Holder(u32, Ipv4Addr),
    Mac(Mac),
    MacHolder(u32, Mac),
    /// A priority.
    Mark(u32),
    /// An element of a map.
    Door(Publication, Option<Ipv4Addr>),
}

impl Element {
    pub(super) fn raw(&self) -> Raw {
        let data = match self {
            Self::Door(publication, _) => publication.to(),
            _ => Vec::new(),
        };
        Raw {
            key: self.key(),
            data,
        }
    }

    /// As the kernel compares it: an address in network byte order, a name filled up with zeros
    /// (`IFNAMSIZ`), an index and a mark in the host's byte order; of several, each filled up to four bytes.
    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Self::Port(number) | Self::Mark(number) => number.to_ne_bytes().to_vec(),
            Self::Holder(port, address) => [port.to_ne_bytes(), address.octets()].concat(),
            Self::Mac(mac) => mac.to_vec(),
            Self::MacHolder(port, mac) => [&port.to_ne_bytes()[..], mac, &[0; 2]].concat(),
            Self::Address(address) => address.octets().to_vec(),
            Self::Door(publication, None) => publication.from(),
            Self::Door(publication, Some(address)) => {
                [&address.octets()[..], &publication.from()].concat()
            }
            Self::Interface(name) => {
                let mut key = name.as_bytes().to_vec();
                key.resize(16, 0);
                key
            }
        }
    }
}

/// An index in nft's language. nft takes a number for the name of an interface where there is one of that
/// name, also between quotation marks; but no interface's name begins with a space, and before a number nft passes
/// over it (`ifindex_type_parse`).
pub(super) struct Index(pub(super) u32);

/// The number of no interface: where a packet is the host's own.
pub(super) const NOWHERE: Index = Index(0);

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\" {}\"", self.0)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Interface(name) => write!(f, "\"{name}\""),
            Self::Port(port) => write!(f, "{}", Index(*port)),
            Self::Holder(port, address) => write!(f, "{} . {address}", Index(*port)),
            Self::Mac(mac) => write!(f, "{}", DisplayMac(*mac)),
            Self::MacHolder(port, mac) => write!(f, "{} . {}", Index(*port), DisplayMac(*mac)),
            Self::Mark(mark) => f.write_str(&class(*mark)),
            Self::Door(publication, address) => {
                if let Some(address) = address {
                    write!(f, "{address} . ")?;
                }
                write!(f, "{} . {} : ", publication.protocol, publication.host_port)?;
                write!(
                    f,
                    "{} . {}",
                    publication.container, publication.container_port
                )
            }
        }
    }
}
