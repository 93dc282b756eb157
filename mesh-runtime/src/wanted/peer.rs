//! A peer, and which of them a sync may bring.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use ipnet::Ipv4Net;
use mesh_layout::overlay_mac;
use mesh_proto::mesh as wire;

use super::subnet::{Cluster, SubnetError};
use crate::{diff::change::DisplayMac, options::underlay_address};

/// The smallest MTU that IPv4 allows (RFC 791), and the largest packet there is.
pub(crate) const MTU_RANGE: RangeInclusive<u32> = 68..=65_535;

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
    /// The first of its subnets is not its subnet.
    #[error("subnets begins with {first:?}: the first of a peer's subnets is its subnet, {subnet}")]
    FirstSubnet {
        /// The first one.
        first: String,
        /// Its subnet.
        subnet: Ipv4Net,
    },
    /// The first of its addresses is not its address.
    #[error(
        "host_addresses begins with {first:?}: the first of a peer's addresses is its host_address, {address}"
    )]
    FirstAddress {
        /// The first one.
        first: String,
        /// Its address.
        address: Ipv4Addr,
    },
    /// Its overlay device has a MAC address of its own.
    #[error(
        "mac {given:?} is not {derived}, which follows from the subnet: this runtime reaches no \
         overlay device with another"
    )]
    Mac {
        /// The address.
        given: String,
        /// The one that follows from the subnet.
        derived: String,
    },
    /// A transport of a later version.
    #[error("transport {0} is none that this runtime knows: upgrade quilt-runtime on this node")]
    Transport(i32),
    /// No MTU.
    #[error("mtu {0} is not one of {first} to {last}", first = MTU_RANGE.start(), last = MTU_RANGE.end())]
    Mtu(u32),
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
    /// The largest packet of a container that it takes out of the overlay, in bytes, if it has
    /// told: within [`MTU_RANGE`].
    pub(crate) mtu: Option<u32>,
}

impl Peer {
    /// Reads a peer of a sync, and the subnet that it is known by.
    fn read(
        message: &wire::Peer,
        cluster: &Cluster,
        own_subnet: Ipv4Net,
        own_address: Ipv4Addr,
    ) -> Result<(Ipv4Net, Self), PeerError> {
        let subnet = cluster.parse_destination(&message.subnet, own_subnet)?;
        let address = parse_address(&message.host_address, cluster.cidr)?;
        if address == own_address {
            return Err(PeerError::OwnAddress(address));
        }
        // The others, if any, are of families that are not served here.
        if let Some(first) = message.subnets.first()
            && *first != message.subnet
        {
            let first = shortened(first);
            return Err(PeerError::FirstSubnet { first, subnet });
        }
        if let Some(first) = message.host_addresses.first()
            && *first != message.host_address
        {
            let first = shortened(first);
            return Err(PeerError::FirstAddress { first, address });
        }
        let derived = DisplayMac(overlay_mac(subnet.network().octets())).to_string();
        if !message.mac.is_empty() && !message.mac.eq_ignore_ascii_case(&derived) {
            let given = shortened(&message.mac);
            return Err(PeerError::Mac { given, derived });
        }
        if message.transport != i32::from(wire::Transport::Vxlan) {
            return Err(PeerError::Transport(message.transport));
        }
        let mtu = Some(message.mtu).filter(|mtu| *mtu != 0);
        if let Some(mtu) = mtu.filter(|mtu| !MTU_RANGE.contains(mtu)) {
            return Err(PeerError::Mtu(mtu));
        }
        let peer = Self {
            address,
            hostname: message.hostname.clone(),
            suspect: message.suspect,
            mtu,
        };
        Ok((subnet, peer))
    }

    /// The message that tells of this peer, whose subnet is `subnet`.
    pub(crate) fn to_message(&self, subnet: Ipv4Net) -> wire::Peer {
        wire::Peer {
            subnet: subnet.to_string(),
            host_address: self.address.to_string(),
            hostname: self.hostname.clone(),
            suspect: self.suspect,
            mtu: self.mtu.unwrap_or_default(),
            ..wire::Peer::default()
        }
    }
}

/// A text from a message, for an error that is to name it.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Reads a node's underlay address from a request.
pub(crate) fn parse_address(value: &str, cluster: Ipv4Net) -> Result<Ipv4Addr, NodeAddressError> {
    let Ok(address) = value.parse::<Ipv4Addr>() else {
        return Err(match value.parse::<Ipv6Addr>() {
            Ok(_) => NodeAddressError::Ipv6(value.to_owned()),
            Err(_) => NodeAddressError::NotAnAddress(shortened(value)),
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
    messages: &[wire::Peer],
    cluster: &Cluster,
    own_subnet: Ipv4Net,
    own_address: Ipv4Addr,
) -> CheckedPeers {
    let mut checked = CheckedPeers::default();
    let mut by_address: BTreeMap<Ipv4Addr, Ipv4Net> = BTreeMap::new();
    for (index, message) in messages.iter().enumerate() {
        let result =
            Peer::read(message, cluster, own_subnet, own_address).and_then(|(subnet, peer)| {
                if let Some(first) = checked.peers.get(&subnet) {
                    return Err(PeerError::DuplicateSubnet {
                        subnet,
                        first: first.address,
                    });
                }
                if let Some(&first) = by_address.get(&peer.address) {
                    let address = peer.address;
                    return Err(PeerError::DuplicateAddress { address, first });
                }
                Ok((subnet, peer))
            });
        match result {
            Ok((subnet, peer)) => {
                by_address.insert(peer.address, subnet);
                checked.peers.insert(subnet, peer);
            }
            Err(error) => checked.refused.push((index, error)),
        }
    }
    checked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    const CLUSTER: Cluster = Cluster {
        cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16),
        node_prefix: 24,
    };
    const OWN: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 1, 0), 24);
    const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn named(subnet: &str, host_address: &str) -> wire::Peer {
        wire::Peer {
            subnet: subnet.to_owned(),
            host_address: host_address.to_owned(),
            ..wire::Peer::default()
        }
    }

    fn refusals(peers: &[wire::Peer]) -> Vec<(usize, String)> {
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

    #[test]
    fn what_a_later_agent_tells_is_taken_as_far_as_this_runtime_can_serve_it() {
        let later = wire::Peer {
            subnets: vec!["10.42.2.0/24".to_owned(), "fd42:2::/64".to_owned()],
            host_addresses: vec!["192.0.2.2".to_owned(), "2001:db8::2".to_owned()],
            mac: "02:51:0A:2A:02:00".to_owned(),
            mtu: 1450,
            ..named("10.42.2.0/24", "192.0.2.2")
        };
        let checked = check_peers(&[later], &CLUSTER, OWN, HOST);
        assert_eq!(checked.refused, []);
        let subnet = "10.42.2.0/24".parse().unwrap();
        assert_eq!(checked.peers[&subnet].mtu, Some(1450));
    }

    #[test]
    fn what_this_runtime_cannot_serve_is_refused_naming_value_and_rule() {
        let peer = || named("10.42.2.0/24", "192.0.2.2");
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        for (peer, value, rule) in [
            (
                wire::Peer {
                    subnets: texts(&["10.42.9.0/24"]),
                    ..peer()
                },
                "10.42.9.0/24",
                "the first of a peer's subnets is its subnet, 10.42.2.0/24",
            ),
            (
                wire::Peer {
                    host_addresses: texts(&["192.0.2.9"]),
                    ..peer()
                },
                "192.0.2.9",
                "is its host_address, 192.0.2.2",
            ),
            (
                wire::Peer {
                    mac: "02:00:00:00:00:01".to_owned(),
                    ..peer()
                },
                "02:00:00:00:00:01",
                "02:51:0a:2a:02:00, which follows from the subnet",
            ),
            (
                wire::Peer {
                    transport: 7,
                    ..peer()
                },
                "transport 7",
                "upgrade quilt-runtime",
            ),
            (wire::Peer { mtu: 67, ..peer() }, "mtu 67", "68 to 65535"),
            (
                wire::Peer {
                    mtu: 65_536,
                    ..peer()
                },
                "mtu 65536",
                "68 to 65535",
            ),
        ] {
            let refused = refusals(&[peer]);
            assert_eq!(refused.len(), 1, "{value}");
            assert!(refused[0].1.contains(value), "{value}: {}", refused[0].1);
            assert!(refused[0].1.contains(rule), "{value}: {}", refused[0].1);
        }
    }

    prop_compose! {
        fn any_peer()(
            third in 2..250_u8,
            hostname in ".{0,12}",
            suspect: bool,
            mtu in prop::option::of(MTU_RANGE),
        ) -> (Ipv4Net, Peer) {
            let subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, 0), 24);
            let address = Ipv4Addr::new(192, 0, 2, third);
            (subnet, Peer { address, hostname, suspect, mtu })
        }
    }

    proptest! {
        #[test]
        fn what_is_told_of_a_peer_is_read_as_that_peer((subnet, peer) in any_peer()) {
            let bytes = peer.to_message(subnet).encode_to_vec();
            let message = wire::Peer::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(Peer::read(&message, &CLUSTER, OWN, HOST), Ok((subnet, peer)));
        }

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
