//! Who a registration is: a node we know, a new one, or somebody in another node's way.
//!
//! A node's identity is its `node_key`; a caller without one is known by its `host_ip`. The rules:
//!
//! 1. The same key is the same node. Its address, hostname and size may change. Only when the
//!    node is up *and* both address and hostname differ is it taken for a second host with a copied
//!    key (a cloned disk), and refused.
//! 2. Without a key, the node without a key at the same `host_ip` is the same node; while it is up
//!    its hostname has to agree, or it is a second host with the same address, and refused.
//! 3. A host whose agent begins or ceases to send a key is recognised by `host_ip` *and* hostname
//!    together, and keeps its node and subnet; the key is then the one last sent. (Ceasing drops the
//!    stored key on purpose: a key that turned up later from elsewhere would otherwise share the subnet.)
//! 4. A host whose agent comes with another key than before has lost its state (its disk was made anew, or a container
//!    had no volume). Where it had registered with a key, `host_ip` *and* hostname together make it its node again once
//!    that node is down: nodes have no credentials that could say more. The new key takes the place of the old one, and
//!    whoever brings the old one later, from elsewhere, is a stranger. While the node is up, the newcomer cannot be told
//!    from a second host, and rule 5 refuses it; its agent goes on trying until the node timeout has passed.
//! 5. An underlay address belongs to one node at a time. If its holder is up, whoever else asks for
//!    it is refused. If the holder is down the newcomer takes it over, and the old holder has to
//!    register again before a heartbeat counts: two nodes are never up with one address. Its
//!    lease stays its own, so a subnet never has two holders either.
//!
//! 6. A certificate says more than all of that: who shows one is the node that it is for, a new one if there is none yet,
//!    and nobody else is. What somebody without a certificate says who would be such a node by the rules above, or take
//!    its address, is refused; so is a name other than the one that the join token was made for.
//! 7. The address of a node with credentials stays its own while it is down, also when its agent was stopped, until it
//!    leaves, is revoked, or registers with another. Who shows another certificate takes it over only by a connection that
//!    comes from that very address: what is said to be the host's address costs nothing to say. Behind a proxy, or with
//!    another address towards the control plane, nobody can show that, and an operator revokes the node, or makes a token
//!    for it.
//!
//! A key says more than name and address: where both fit, and different nodes, the claim is the node with the key.

use std::net::Ipv4Addr;

use mesh_rest::node_id::NodeId;
use mesh_rest::registration::Registration;

/// What a registration says about who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The node that its certificate is for.
    pub node_id: Option<&'a str>,
    /// The stable identity that the agent keeps on disk.
    pub node_key: Option<&'a str>,
    /// The host's name.
    pub hostname: &'a str,
    /// The underlay address.
    pub host_ip: Ipv4Addr,
    /// Where its connection comes from, as the control plane sees it; `None`: from no IPv4 address.
    pub from: Option<Ipv4Addr>,
}

impl<'a> From<&'a Registration> for Claim<'a> {
    fn from(registration: &'a Registration) -> Self {
        Self {
            node_id: None,
            node_key: registration.node_key.as_deref(),
            hostname: &registration.hostname,
            host_ip: registration.host_ip,
            from: None,
        }
    }
}

/// A stored node that has the claimed key or address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The node's id.
    pub node_id: NodeId,
    /// Its key, if it registered with one.
    pub node_key: Option<String>,
    /// Its hostname.
    pub hostname: String,
    /// Its underlay address, or the last one it had.
    pub host_ip: Ipv4Addr,
    /// Whether it is up.
    pub up: bool,
    /// Whether the address is its own: `false` once it deregistered or was displaced.
    pub holds_address: bool,
    /// Whether it is kept for it by rule 7: it has credentials, and neither left nor was displaced.
    pub keeps_address: bool,
}

/// What a refused claim asked for that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash {
    /// The `node_key`.
    Key,
    /// The `host_ip`.
    Address,
    /// The `host_ip`, of a node that is down, and nothing shows that who claims it is there.
    AddressUnproven,
}

/// What to do with a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Take it in.
    Admit {
        /// The node that it is; `None`: a new one.
        node: Option<&'a Claimant>,
        /// A node that is down and loses the address to it.
        displaces: Option<&'a Claimant>,
    },
    /// Refuse it.
    Refuse {
        /// The node that has what was claimed; it is up, but for [`Clash::AddressUnproven`].
        holder: &'a Claimant,
        /// What that is.
        clash: Clash,
    },
}

/// Decides by the rules above. `claimants` are all stored nodes that have the claimed key or address.
pub fn decide<'a>(claim: &Claim<'_>, claimants: &'a [Claimant]) -> Verdict<'a> {
    let node = same_node(claim, claimants);
    if let Some(node) = node
        && node.up
        && node.hostname != claim.hostname
    {
        if claim.node_key.is_none() && claim.node_id.is_none() {
            return Verdict::Refuse {
                holder: node,
                clash: Clash::Address,
            };
        }
        if node.host_ip != claim.host_ip {
            return Verdict::Refuse {
                holder: node,
                clash: Clash::Key,
            };
        }
    }
    let others = || {
        claimants.iter().filter(|other| {
            other.host_ip == claim.host_ip && node.is_none_or(|node| node.node_id != other.node_id)
        })
    };
    let is_holder = node.is_some_and(|node| {
        node.host_ip == claim.host_ip && (node.holds_address || node.keeps_address)
    });
    let holder = others()
        .find(|other| other.holds_address)
        // Its agent was stopped, and nobody was there since.
        .or_else(|| others().find(|other| other.keeps_address && !is_holder));
    match holder {
        Some(holder) if holder.up => Verdict::Refuse {
            holder,
            clash: Clash::Address,
        },
        // Without a certificate it does not get it anyhow, by rule 6.
        Some(holder)
            if holder.keeps_address
                && claim.node_id.is_some()
                && claim.from != Some(claim.host_ip) =>
        {
            Verdict::Refuse {
                holder,
                clash: Clash::AddressUnproven,
            }
        }
        displaces => Verdict::Admit { node, displaces },
    }
}

/// The node that the claim speaks for, by rules 1 to 4.
fn same_node<'a>(claim: &Claim<'_>, claimants: &'a [Claimant]) -> Option<&'a Claimant> {
    let here = |other: &&Claimant| other.host_ip == claim.host_ip;
    let keyless = |other: &&Claimant| other.node_key.is_none();
    let namesake = |other: &&Claimant| other.hostname == claim.hostname;
    if let Some(node_id) = claim.node_id {
        return claimants
            .iter()
            .find(|other| other.node_id.as_str() == node_id);
    }
    // Of several that fit, the one that holds the address now was here last.
    let latest = |fits: &dyn Fn(&&Claimant) -> bool| {
        claimants
            .iter()
            .filter(fits)
            .max_by_key(|other| other.holds_address)
    };
    match claim.node_key {
        Some(key) => claimants
            .iter()
            .find(|other| other.node_key.as_deref() == Some(key))
            .or_else(|| {
                latest(&|other| here(other) && namesake(other) && (keyless(other) || !other.up))
            }),
        None => latest(&|other| here(other) && keyless(other) && namesake(other))
            .or_else(|| latest(&|other| here(other) && namesake(other)))
            .or_else(|| latest(&|other| here(other) && keyless(other))),
    }
}

#[cfg(test)]
mod tests;
