//! Which peer somebody means.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::peer::Peer;

/// Nobody is meant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PeerNameError {
    /// No peer has it.
    #[error(
        "{0:?} is no peer: neither a host's name, nor a peer's subnet or underlay address, nor an address in a peer's \
         subnet"
    )]
    Nobody(String),
    /// Several have it.
    #[error("{name:?} is the name of several peers, {first} and {second}: name one by its subnet")]
    Several {
        /// The name.
        name: String,
        /// Two of them.
        first: Ipv4Net,
        /// See `first`.
        second: Ipv4Net,
    },
}

/// The peer that is meant by its host's name, its subnet, its underlay address, or an address in its subnet.
///
/// # Errors
///
/// [`PeerNameError`].
pub(crate) fn peer_named(
    text: &str,
    peers: &BTreeMap<Ipv4Net, Peer>,
) -> Result<Ipv4Net, PeerNameError> {
    if let Ok(subnet) = text.parse::<Ipv4Net>()
        && peers.contains_key(&subnet)
    {
        return Ok(subnet);
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        let is_meant = |(subnet, peer): &(&Ipv4Net, &Peer)| {
            peer.address == address || subnet.contains(&address)
        };
        if let Some((subnet, _)) = peers.iter().find(is_meant) {
            return Ok(*subnet);
        }
    }
    let mut named = peers
        .iter()
        .filter(|(_, peer)| !text.is_empty() && peer.hostname == text);
    match (named.next(), named.next()) {
        (Some((subnet, _)), None) => Ok(*subnet),
        (Some((first, _)), Some((second, _))) => Err(PeerNameError::Several {
            name: text.to_owned(),
            first: *first,
            second: *second,
        }),
        (None, _) => Err(PeerNameError::Nobody(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> BTreeMap<Ipv4Net, Peer> {
        let peer = |last: u8, hostname: &str| {
            let subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, last, 0), 24);
            let peer = Peer {
                address: Ipv4Addr::new(192, 0, 2, last + 1),
                hostname: hostname.to_owned(),
                suspect: false,
                mtu: None,
            };
            (subnet, peer)
        };
        [
            peer(2, "host2"),
            peer(3, "twin"),
            peer(4, "twin"),
            peer(5, ""),
        ]
        .into()
    }

    #[test]
    fn a_peer_is_meant_by_whatever_it_alone_has() {
        for text in ["host2", "10.42.2.0/24", "192.0.2.3", "10.42.2.77"] {
            let meant = peer_named(text, &peers()).unwrap();
            assert_eq!(meant.to_string(), "10.42.2.0/24", "{text}");
        }
    }

    #[test]
    fn what_nobody_has_and_what_several_have_is_said_to_be_so() {
        for text in ["", "host9", "10.42.2.0/25", "192.0.2.99", "10.42.1.2"] {
            let error = peer_named(text, &peers()).unwrap_err();
            assert_eq!(error, PeerNameError::Nobody(text.to_owned()));
        }
        let error = peer_named("twin", &peers()).unwrap_err().to_string();
        assert!(error.contains("10.42.3.0/24 and 10.42.4.0/24"), "{error}");
    }
}
