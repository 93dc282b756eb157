//! From the control plane's node list to the peers of this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Instant,
};

use ipnet::Ipv4Net;
use mesh_rest::status::Status;

mod claims;
mod doubt;
mod skip;

use claims::{Claims, overlap};
pub use doubt::{Cause, Doubt, Verdict, judge};
pub use skip::Skip;

use crate::{
    excerpt::Excerpt,
    node::{Node, parse_subnet},
    underlay::parse_underlay_address,
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
    /// The largest packet of a container that it takes out of the overlay, in bytes, if it told.
    pub mtu: Option<u32>,
}

/// A peer as the data plane wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPeer {
    /// The peer.
    pub peer: Peer,
    /// Whether its packets arrive although the control plane does not call it up.
    pub suspect: bool,
}

/// The peers by subnet. No two subnets overlap and no two peers share an address.
pub type PeerSet = BTreeMap<Ipv4Net, WantedPeer>;

/// A peer with what this node remembers about it from one list to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// The control plane's name for it; not known of a peer that an earlier life of this
    /// agent left in the runtime, until a list names its subnet.
    pub node_id: Option<String>,
    /// The peer.
    pub peer: Peer,
    /// Why it may be gone, if the last list did not say that it is up.
    pub doubt: Option<Doubt>,
}

impl KnownPeer {
    /// One that the control plane has not named yet.
    #[must_use]
    pub fn unnamed(peer: Peer) -> Self {
        Self {
            node_id: None,
            peer,
            doubt: None,
        }
    }

    /// Its id, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        self.node_id.as_deref().unwrap_or("(not listed)")
    }

    /// Whether its packets arrive although the control plane does not call it up.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.doubt.as_ref().is_some_and(Doubt::is_suspect)
    }
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

/// What a list means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The peers from now on.
    pub peers: KnownPeers,
    /// The nodes that are none, and why, by node id.
    pub skipped: BTreeMap<String, Skip>,
}

/// Makes the peers out of a node list: every other node that is `up`.
///
/// - Where two nodes claim one subnet or address, the one that was known with it before
///   keeps it; among strangers the one registered first. All agents that see the same list
///   come to the same answer.
/// - A node that left for good, was taken out of the cluster (`removed`), or has moved to
///   another subnet, is gone.
/// - A known peer that is `down`, also because its agent was stopped, absent, or whose entry
///   is unusable, is doubted: that is a hint, not proof. It stays until [`judge`] finds
///   otherwise, or another node that is up has its subnet or address.
///
/// # Errors
/// If the list is not about this node's cluster; the peers are then what they were.
pub fn assess<'a>(
    known: &KnownPeers,
    nodes: impl IntoIterator<Item = &'a Node> + Clone,
    removed: &BTreeSet<String>,
    own: &OwnNode,
    now: Instant,
) -> Result<Assessment, UnusableList> {
    check_own(nodes.clone(), own)?;
    let known = &named(known, nodes.clone());

    let mut skipped = BTreeMap::new();
    let mut candidates = Vec::new();
    let mut down = BTreeSet::new();
    let mut left = BTreeSet::new();
    for node in nodes.into_iter().filter(|node| node.node_id != own.node_id) {
        match node.status() {
            Some(Status::Down) => {
                let gone = if node.left { &mut left } else { &mut down };
                gone.insert(&*node.node_id);
            }
            // It neither adds nor removes a peer.
            None => {
                skipped.insert(node.node_id.to_string(), Skip::Status);
            }
            Some(Status::Up) => match Candidate::read(node, known) {
                Ok(candidate) => candidates.push(candidate),
                Err(skip) => {
                    skipped.insert(node.node_id.to_string(), skip);
                }
            },
        }
    }
    candidates.sort_by(|a, b| a.precedence().cmp(&b.precedence()));

    let mut claims = Claims::new(own);
    let mut confirmed = BTreeSet::new();
    for candidate in candidates {
        let node_id = &*candidate.node.node_id;
        let peer = KnownPeer {
            node_id: Some(node_id.to_owned()),
            peer: candidate.peer,
            doubt: None,
        };
        match claims.claim(candidate.subnet, peer) {
            Ok(()) => {
                confirmed.insert(node_id);
            }
            Err(skip) => {
                skipped.insert(node_id.to_owned(), skip);
            }
        }
    }

    for (subnet, peer) in known {
        let node_id = peer.node_id.as_deref();
        let is_gone = |id| confirmed.contains(id) || left.contains(id) || removed.contains(id);
        if node_id.is_some_and(is_gone) {
            continue;
        }
        let cause = match node_id.is_some_and(|id| down.contains(id)) {
            true => Cause::Down,
            false => Cause::Absent,
        };
        let doubt = Doubt::continued(peer.doubt.as_ref(), cause, now);
        // Who is listed with this subnet or address goes before who is not.
        let _superseded = claims.claim(
            *subnet,
            KnownPeer {
                doubt: Some(doubt),
                ..peer.clone()
            },
        );
    }
    Ok(Assessment {
        peers: claims.peers,
        skipped,
    })
}

/// The peers as the data plane wants them.
#[must_use]
pub fn peer_set(known: &KnownPeers) -> PeerSet {
    let wanted = |known: &KnownPeer| WantedPeer {
        peer: known.peer.clone(),
        suspect: known.is_suspect(),
    };
    known
        .iter()
        .map(|(net, peer)| (*net, wanted(peer)))
        .collect()
}

/// The peers that do not overlap `own`: between a registration with another subnet and the
/// next usable list, the set may still hold that subnet's last owner.
#[must_use]
pub fn without_own(peers: &Arc<PeerSet>, own: Ipv4Net) -> Arc<PeerSet> {
    if !peers.keys().any(|subnet| overlap(*subnet, own)) {
        return Arc::clone(peers);
    }
    let others = peers.iter().filter(|(subnet, _)| !overlap(**subnet, own));
    Arc::new(others.map(|(net, peer)| (*net, peer.clone())).collect())
}

/// Gives peers without a name that of the node that is listed with their subnet: a lease is
/// never held by two.
fn named<'a>(known: &KnownPeers, nodes: impl IntoIterator<Item = &'a Node>) -> KnownPeers {
    let mut known = known.clone();
    if known.values().all(|peer| peer.node_id.is_some()) {
        return known;
    }
    for node in nodes {
        if let Ok(subnet) = parse_subnet(&node.subnet)
            && let Some(peer) = known.get_mut(&subnet)
            && peer.node_id.is_none()
        {
            peer.node_id = Some(node.node_id.to_string());
        }
    }
    known
}

fn check_own<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    own: &OwnNode,
) -> Result<(), UnusableList> {
    let (mut listed, mut count) = (None, 0);
    for node in nodes {
        count += 1;
        if node.node_id != own.node_id {
            continue;
        }
        if parse_subnet(&node.subnet) == Ok(own.subnet) {
            return Ok(());
        }
        listed = Some(node.subnet.to_string());
    }
    Err(match listed {
        None => UnusableList::OwnNodeMissing { listed: count },
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
            text: node.subnet.to_string(),
            error,
        })?;
        let host_address =
            parse_underlay_address(&node.host_ip).map_err(|error| Skip::Address {
                text: node.host_ip.to_string(),
                error,
            })?;
        let known = known.get(&subnet);
        let novelty = match known.filter(|k| k.node_id.as_deref() == Some(&*node.node_id)) {
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
                mtu: node.overlay_mtu,
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

#[cfg(test)]
#[path = "peers/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "peers/survival_tests.rs"]
mod survival_tests;
