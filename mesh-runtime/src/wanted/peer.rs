//! Which peer sets a sync may bring.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use ipnet::Ipv4Net;

use super::subnet::{Cluster, SubnetError};
use crate::options::underlay_address;

/// Why an address of a node is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NodeAddressError {
    /// Not an address.
    #[error("host_address {0:?} is not an IPv4 address")]
    NotAnAddress(String),
    /// An IPv6 address.
    #[error("host_address {0} is an IPv6 address: the underlay of the overlay is IPv4")]
    Ipv6(String),
    /// An address to which nothing can be sent.
    #[error("host_address {address} cannot be a node's address on the underlay: it is {what}")]
    Unusable {
        /// The address.
        address: Ipv4Addr,
        /// What it is instead.
        what: String,
    },
}

/// Why one peer of a sync is refused; the others are taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PeerError {
    /// Its subnet.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// Its address.
    #[error(transparent)]
    Address(#[from] NodeAddressError),
    /// The address of this node.
    #[error("host_address {0} is this node's own: a peer is another node")]
    OwnAddress(Ipv4Addr),
    /// Named twice.
    #[error("subnet {subnet} is named twice: {first} has it already in this sync")]
    DuplicateSubnet {
        /// The subnet.
        subnet: Ipv4Net,
        /// The address of the peer that was named first.
        first: Ipv4Addr,
    },
    /// Two peers with one address.
    #[error("host_address {address} is named twice: it is that of {first} in this sync")]
    DuplicateAddress {
        /// The address.
        address: Ipv4Addr,
        /// The subnet of the peer that was named first.
        first: Ipv4Net,
    },
}

/// Another node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its address on the underlay.
    pub(crate) address: Ipv4Addr,
    /// For people; empty if unknown.
    pub(crate) hostname: String,
    /// Whether the control plane calls it down although its packets arrive.
    pub(crate) suspect: bool,
}

/// A peer as a sync names it, unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPeer {
    pub(crate) subnet: String,
    pub(crate) host_address: String,
    pub(crate) hostname: String,
    pub(crate) suspect: bool,
}

/// Reads a node's underlay address from a request.
pub(crate) fn parse_address(value: &str, cluster: Ipv4Net) -> Result<Ipv4Addr, NodeAddressError> {
    let Ok(address) = value.parse::<Ipv4Addr>() else {
        return Err(match value.parse::<Ipv6Addr>() {
            Ok(_) => NodeAddressError::Ipv6(value.to_owned()),
            Err(_) => NodeAddressError::NotAnAddress(value.chars().take(64).collect()),
        });
    };
    underlay_address(address, cluster)
        .map_err(|what| NodeAddressError::Unusable { address, what })?;
    Ok(address)
}

/// What is left of a sync's peers after the rules, and which were refused by index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckedPeers {
    pub(crate) peers: BTreeMap<Ipv4Net, Peer>,
    pub(crate) refused: Vec<(usize, PeerError)>,
}

/// Checks each peer of a sync by itself and against those before it.
pub(crate) fn check_peers(
    named: &[NamedPeer],
    cluster: &Cluster,
    own_subnet: Ipv4Net,
    own_address: Ipv4Addr,
) -> CheckedPeers {
    let mut checked = CheckedPeers::default();
    let mut by_address: BTreeMap<Ipv4Addr, Ipv4Net> = BTreeMap::new();
    for (index, peer) in named.iter().enumerate() {
        let result =
            check_peer(peer, cluster, own_subnet, own_address).and_then(|(subnet, address)| {
                if let Some(first) = checked.peers.get(&subnet) {
                    return Err(PeerError::DuplicateSubnet {
                        subnet,
                        first: first.address,
                    });
                }
                if let Some(&first) = by_address.get(&address) {
                    return Err(PeerError::DuplicateAddress { address, first });
                }
                Ok((subnet, address))
            });
        match result {
            Ok((subnet, address)) => {
                by_address.insert(address, subnet);
                checked.peers.insert(
                    subnet,
                    Peer {
                        address,
                        hostname: peer.hostname.clone(),
                        suspect: peer.suspect,
                    },
                );
            }
            Err(error) => checked.refused.push((index, error)),
        }
    }
    checked
}

fn check_peer(
    peer: &NamedPeer,
    cluster: &Cluster,
    own_subnet: Ipv4Net,
    own_address: Ipv4Addr,
) -> Result<(Ipv4Net, Ipv4Addr), PeerError> {
    let subnet = cluster.parse_destination(&peer.subnet, own_subnet)?;
    let address = parse_address(&peer.host_address, cluster.cidr)?;
    if address == own_address {
        return Err(PeerError::OwnAddress(address));
    }
    Ok((subnet, address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: Cluster = Cluster {
        cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16),
        node_prefix: 24,
    };
    const OWN: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 1, 0), 24);
    const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn named(subnet: &str, host_address: &str) -> NamedPeer {
        NamedPeer {
            subnet: subnet.to_owned(),
            host_address: host_address.to_owned(),
            hostname: String::new(),
            suspect: false,
        }
    }

    fn refusals(peers: &[NamedPeer]) -> Vec<(usize, String)> {
        check_peers(peers, &CLUSTER, OWN, HOST)
            .refused
            .into_iter()
            .map(|(index, error)| (index, error.to_string()))
            .collect()
    }

    #[test]
    fn a_bad_peer_does_not_keep_out_the_good_ones() {
        let checked = check_peers(
            &[
                named("10.42.2.0/24", "192.0.2.2"),
                named("10.42.3.0/25", "192.0.2.3"),
                named("10.42.4.0/24", "192.0.2.4"),
            ],
            &CLUSTER,
            OWN,
            HOST,
        );
        assert_eq!(checked.peers.len(), 2);
        assert_eq!(checked.refused.len(), 1);
        assert_eq!(checked.refused[0].0, 1);
    }

    #[test]
    fn bad_addresses_are_refused_naming_value_and_rule() {
        for (address, rule) in [
            ("", "not an IPv4 address"),
            ("host2", "not an IPv4 address"),
            ("192.0.2.300", "not an IPv4 address"),
            ("fd00::2", "IPv6"),
            ("0.0.0.0", "unspecified"),
            ("127.0.0.1", "loopback"),
            ("239.1.1.1", "multicast"),
            ("255.255.255.255", "unicast"),
            ("10.42.9.9", "cluster CIDR"),
            ("192.0.2.1", "this node's own"),
        ] {
            let refused = refusals(&[named("10.42.2.0/24", address)]);
            assert_eq!(refused.len(), 1, "{address}");
            assert!(refused[0].1.contains(rule), "{address}: {}", refused[0].1);
            assert!(refused[0].1.contains(address));
        }
    }

    #[test]
    fn two_nodes_with_one_subnet_or_one_address_are_told_apart() {
        let refused = refusals(&[
            named("10.42.2.0/24", "192.0.2.2"),
            named("10.42.2.0/24", "192.0.2.3"),
            named("10.42.4.0/24", "192.0.2.2"),
        ]);
        assert_eq!(refused.len(), 2);
        assert!(
            refused[0].1.contains("192.0.2.2 has it"),
            "{}",
            refused[0].1
        );
        assert!(refused[1].1.contains("10.42.2.0/24"), "{}", refused[1].1);
    }

    #[test]
    fn this_nodes_own_subnet_is_no_peers() {
        assert_eq!(refusals(&[named("10.42.1.0/24", "192.0.2.2")]).len(), 1);
    }

    proptest! {
        #[test]
        fn every_peer_is_either_taken_or_refused_and_the_taken_ones_are_unique(
            peers in prop::collection::vec((0..6u8, 0..6u8, any::<bool>()), 0..12)
        ) {
            let named: Vec<_> = peers
                .iter()
                .map(|&(subnet, address, v6)| named(
                    &format!("10.42.{subnet}.0/24"),
                    &if v6 { format!("fd00::{address}") } else { format!("192.0.2.{address}") },
                ))
                .collect();
            let checked = check_peers(&named, &CLUSTER, OWN, HOST);
            prop_assert_eq!(checked.peers.len() + checked.refused.len(), named.len());
            let mut addresses: Vec<_> = checked.peers.values().map(|peer| peer.address).collect();
            addresses.sort();
            addresses.dedup();
            prop_assert_eq!(addresses.len(), checked.peers.len());
            prop_assert!(!checked.peers.contains_key(&OWN));
            prop_assert!(checked.peers.values().all(|peer| peer.address != HOST));
        }
    }
}
