//! From the control plane's node list to the peers of this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;

use crate::{
    excerpt::Excerpt,
    node::{Node, Status, SubnetError, parse_subnet},
    underlay::{UnderlayAddressError, parse_underlay_address},
};

/// Longest host name that is passed on (RFC 1035 section 2.3.4 allows 255 octets on the wire).
const HOSTNAME_LIMIT: usize = 253;

/// This node, as registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNode {
    /// The control plane's name for it.
    pub node_id: String,
    /// The subnet leased to it.
    pub subnet: Ipv4Net,
    /// Its address on the underlay.
    pub host_address: Ipv4Addr,
}

/// Another node whose containers this node's containers can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address on the underlay.
    pub host_address: Ipv4Addr,
    /// Its name, for people.
    pub hostname: String,
}

/// The peers by subnet. No two subnets overlap and no two peers share an address.
pub type PeerSet = BTreeMap<Ipv4Net, Peer>;

/// A peer with what this node remembers about it from one list to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// The control plane's name for it.
    pub node_id: String,
    /// The peer.
    pub peer: Peer,
    /// Since when no list had a usable word about it, neither `up` nor `down`.
    pub unconfirmed_since: Option<Instant>,
}

/// The peers this node knows, by subnet.
pub type KnownPeers = BTreeMap<Ipv4Net, KnownPeer>;

/// A list that says nothing about the peers, because it is not about this cluster: the
/// control plane lost its database, or it is another one. It removes nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableList {
    /// This node is not in it (or nobody is).
    #[error("this node is not among the {listed} nodes listed")]
    OwnNodeMissing {
        /// How many were.
        listed: usize,
    },
    /// It shows another subnet for this node than the registration did.
    #[error("the list shows {} as this node's subnet, the registration said {registered}", Excerpt(.listed))]
    OwnSubnetDiffers {
        /// The subnet in the list.
        listed: String,
        /// The subnet this node was told.
        registered: Ipv4Net,
    },
}

/// Why a listed node is not a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// Its subnet is not one.
    #[error("subnet {}: {error}", Excerpt(.text))]
    Subnet {
        /// What the list says.
        text: String,
        /// The rule it breaks.
        error: SubnetError,
    },
    /// Its address is not one.
    #[error("host_ip {}: {error}", Excerpt(.text))]
    Address {
        /// What the list says.
        text: String,
        /// The rule it breaks.
        error: UnderlayAddressError,
    },
    /// Its status is none this version knows.
    #[error("its status is neither up nor down")]
    Status,
    /// It claims this node's subnet.
    #[error("its subnet {subnet} overlaps this node's own {own}")]
    OwnSubnet {
        /// The claim.
        subnet: Ipv4Net,
        /// This node's subnet.
        own: Ipv4Net,
    },
    /// It claims this node's address.
    #[error("its host_ip {0} is this node's own")]
    OwnAddress(Ipv4Addr),
    /// Another peer holds the subnet.
    #[error("its subnet {subnet} overlaps {held} of node {}", Excerpt(.holder))]
    SubnetTaken {
        /// The claim.
        subnet: Ipv4Net,
        /// The holder's subnet.
        held: Ipv4Net,
        /// The holder's node id.
        holder: String,
    },
    /// Another peer holds the address.
    #[error("its host_ip {address} is that of node {}", Excerpt(.holder))]
    AddressTaken {
        /// The claim.
        address: Ipv4Addr,
        /// The holder's node id.
        holder: String,
    },
}

/// What a list means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The peers from now on.
    pub peers: KnownPeers,
    /// The nodes that are none, and why, by node id.
    pub skipped: BTreeMap<String, Skip>,
}

/// Makes the peer set out of a node list: every other node that is `up`.
///
/// - Where two nodes claim one subnet or address, the one that was known with it before
///   keeps it; among strangers the one registered first. All agents that see the same list
///   come to the same answer.
/// - A node that is `down`, or has moved to another subnet, leaves.
/// - A peer that the list says nothing usable about (it is absent, or its entry is
///   malformed) stays for `grace`. A control plane never drops a node, so absence means
///   that it lost its database and the others have yet to register again.
///
/// # Errors
/// If the list is not about this node's cluster; the peers are then what they were.
pub fn assess(
    known: &KnownPeers,
    nodes: &[Node],
    own: &OwnNode,
    now: Instant,
    grace: Duration,
) -> Result<Assessment, UnusableList> {
    check_own(nodes, own)?;

    let mut skipped = BTreeMap::new();
    let mut candidates = Vec::new();
    let mut down = BTreeSet::new();
    for node in nodes.iter().filter(|node| node.node_id != own.node_id) {
        match node.status {
            Status::Down => {
                down.insert(node.node_id.as_str());
            }
            Status::Unknown => {
                skipped.insert(node.node_id.clone(), Skip::Status);
            }
            Status::Up => match Candidate::read(node, known) {
                Ok(candidate) => candidates.push(candidate),
                Err(skip) => {
                    skipped.insert(node.node_id.clone(), skip);
                }
            },
        }
    }
    candidates.sort_by(|a, b| a.precedence().cmp(&b.precedence()));

    let mut claims = Claims::new(own);
    for candidate in candidates {
        let node_id = candidate.node.node_id.clone();
        let claimed = claims.claim(
            candidate.subnet,
            KnownPeer {
                node_id: node_id.clone(),
                peer: candidate.peer,
                unconfirmed_since: None,
            },
        );
        if let Err(skip) = claimed {
            skipped.insert(node_id, skip);
        }
    }

    let confirmed: BTreeSet<String> = claims.peers.values().map(|p| p.node_id.clone()).collect();
    for (subnet, peer) in known {
        if confirmed.contains(&peer.node_id) || down.contains(peer.node_id.as_str()) {
            continue;
        }
        let since = peer.unconfirmed_since.unwrap_or(now);
        if now.saturating_duration_since(since) <= grace {
            // Who is listed with this subnet or address goes before who is not.
            let _superseded = claims.claim(
                *subnet,
                KnownPeer {
                    unconfirmed_since: Some(since),
                    ..peer.clone()
                },
            );
        }
    }
    Ok(Assessment {
        peers: claims.peers,
        skipped,
    })
}

/// The peers as the data plane wants them. None overlaps `own`: between a registration with
/// another subnet and the next usable list, the set may still hold that subnet's last owner.
#[must_use]
pub fn peer_set(known: &KnownPeers, own: Ipv4Net) -> PeerSet {
    known
        .iter()
        .filter(|(subnet, _)| !overlap(**subnet, own))
        .map(|(subnet, known)| (*subnet, known.peer.clone()))
        .collect()
}

fn check_own(nodes: &[Node], own: &OwnNode) -> Result<(), UnusableList> {
    let mut listed = None;
    for node in nodes.iter().filter(|node| node.node_id == own.node_id) {
        if parse_subnet(&node.subnet) == Ok(own.subnet) {
            return Ok(());
        }
        listed = Some(node.subnet.clone());
    }
    Err(match listed {
        None => UnusableList::OwnNodeMissing {
            listed: nodes.len(),
        },
        Some(listed) => UnusableList::OwnSubnetDiffers {
            listed,
            registered: own.subnet,
        },
    })
}

struct Candidate<'a> {
    node: &'a Node,
    subnet: Ipv4Net,
    peer: Peer,
    /// 0: known with this subnet and address; 1: known with this subnet; 2: new there.
    novelty: u8,
}

impl<'a> Candidate<'a> {
    fn read(node: &'a Node, known: &KnownPeers) -> Result<Self, Skip> {
        let subnet = parse_subnet(&node.subnet).map_err(|error| Skip::Subnet {
            text: node.subnet.clone(),
            error,
        })?;
        let host_address =
            parse_underlay_address(&node.host_ip).map_err(|error| Skip::Address {
                text: node.host_ip.clone(),
                error,
            })?;
        let novelty = match known.get(&subnet).filter(|k| k.node_id == node.node_id) {
            Some(known) if known.peer.host_address == host_address => 0,
            Some(_) => 1,
            None => 2,
        };
        let hostname = node.hostname.chars().filter(|c| !c.is_control());
        Ok(Self {
            node,
            subnet,
            peer: Peer {
                host_address,
                hostname: hostname.take(HOSTNAME_LIMIT).collect(),
            },
            novelty,
        })
    }

    fn precedence(&self) -> (u8, i64, &str, Ipv4Net) {
        (
            self.novelty,
            self.node.registered_at,
            &self.node.node_id,
            self.subnet,
        )
    }
}

/// The peers accepted so far. Their subnets are disjoint, which makes the neighbours in
/// address order the only ones a further subnet can overlap.
struct Claims<'a> {
    own: &'a OwnNode,
    peers: KnownPeers,
    addresses: BTreeMap<Ipv4Addr, Ipv4Net>,
}

impl<'a> Claims<'a> {
    fn new(own: &'a OwnNode) -> Self {
        Self {
            own,
            peers: KnownPeers::new(),
            addresses: BTreeMap::new(),
        }
    }

    fn claim(&mut self, subnet: Ipv4Net, peer: KnownPeer) -> Result<(), Skip> {
        let address = peer.peer.host_address;
        if overlap(subnet, self.own.subnet) {
            return Err(Skip::OwnSubnet {
                subnet,
                own: self.own.subnet,
            });
        }
        if address == self.own.host_address {
            return Err(Skip::OwnAddress(address));
        }
        let before = self.peers.range(..=subnet).next_back();
        let after = self.peers.range(subnet..).next();
        if let Some((held, holder)) = before
            .into_iter()
            .chain(after)
            .find(|(held, _)| overlap(**held, subnet))
        {
            return Err(Skip::SubnetTaken {
                subnet,
                held: *held,
                holder: holder.node_id.clone(),
            });
        }
        if let Some(holder) = self.addresses.get(&address).and_then(|s| self.peers.get(s)) {
            return Err(Skip::AddressTaken {
                address,
                holder: holder.node_id.clone(),
            });
        }
        self.addresses.insert(address, subnet);
        self.peers.insert(subnet, peer);
        Ok(())
    }
}

/// Two CIDR networks overlap exactly if one contains the other.
fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
