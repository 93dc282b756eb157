//! What must hold of a control plane, from what it has acknowledged. It knows nothing of how the
//! control plane is made.
//!
//! A request without an answer may have had its effect, or not, or (a database server may still
//! work on it) have it later: from then on the model allows both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Instant;

use ipnet::Ipv4Net;

use crate::steps::{Claim, SUBNETS};

mod life;
mod listed;
mod operators;

pub(crate) use listed::Listed;

/// What is known about whether something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Yes,
    No,
    Unsure,
}

impl Known {
    fn may(self) -> bool {
        self != Self::No
    }
}

/// Whether a node is up. The clock goes on between what the model knows and what the control plane
/// does, so "up" is certain only until its next heartbeat is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    UpUntil(Instant),
    Down,
    Unsure,
}

/// A node that the control plane has named.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) subnet: Ipv4Net,
    pub(crate) hostname: String,
    pub(crate) host_ip: Ipv4Addr,
    key: Option<String>,
    /// Whether only a registration brings it back: it deregistered or lost its address.
    pub(crate) dismissed: Known,
    pub(crate) life: Life,
    /// Whether an operator took its subnet away, and with it its place in the list. Of one for
    /// which this is certain the model keeps only the id.
    released: Known,
}

impl Node {
    /// What its host says when it has lost its key, if it had one.
    pub(crate) fn after_losing_its_state(&self) -> Option<Claim> {
        Claim::after_losing_its_state(&self.hostname, self.host_ip, self.key.as_deref())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Model {
    nodes: BTreeMap<String, Node>,
    gone: BTreeSet<String>,
    reservations: BTreeMap<Ipv4Net, Known>,
    unanswered: Vec<Claim>,
}

/// What a registration may be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The node that it is; `None`: one never seen.
    node: Option<String>,
    /// Whether that is certain.
    certain: bool,
    /// Whether a live node may have, or certainly has, the address.
    in_use: Known,
}

impl Model {
    /// The nodes, in the order of their ids.
    pub(crate) fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// Ranges that are reserved, or may be.
    pub(crate) fn reservations(&self) -> Vec<Ipv4Net> {
        self.reservations.keys().copied().collect()
    }

    /// The node that a claim speaks for, if it is admitted: the one with its key; or else the one of its name at its
    /// address, which must have fallen silent; without a key, the one without a key at its address.
    fn same_node(&self, claim: &Claim) -> Option<(&String, &Node)> {
        let has_its_key = |node: &Node| node.key == claim.key;
        let mut nodes = self.nodes.iter();
        match &claim.key {
            Some(_) => nodes.find(|(_, node)| has_its_key(node)).or_else(|| {
                // A host has at most one node with a key that it lost: it has two keys in all.
                let here = |node: &Node| node.host_ip == claim.host_ip;
                let mut nodes = self.nodes.iter();
                nodes.find(|(_, node)| node.hostname == claim.hostname && here(node))
            }),
            None => nodes.find(|(_, node)| has_its_key(node) && node.host_ip == claim.host_ip),
        }
    }

    /// What a registration that is sent now may be answered, at the latest by `now`. Where there are several replicas
    /// (`prompt` is false), the list that was seen last may show where a node was before.
    pub(crate) fn expect(&self, claim: &Claim, now: Instant, prompt: bool) -> Expected {
        let same = self.same_node(claim);
        let by_key = same.is_some_and(|(_, node)| node.key == claim.key);
        // Which of its keys a host's node has is not known any more once one of them got no answer.
        let unclear =
            |other: &Claim| other.hostname == claim.hostname && (!by_key || other.key != claim.key);
        let certain = (prompt || by_key) && !self.unanswered.iter().any(unclear);
        let mut in_use = Known::No;
        for (id, node) in &self.nodes {
            let itself = same.is_some_and(|(same, _)| same == id);
            // Without a key only the hostname tells a second host from the same one, and with another key nothing does.
            let clashes = if itself {
                !by_key || claim.key.is_none() && node.hostname != claim.hostname
            } else {
                true
            };
            if !clashes || node.host_ip != claim.host_ip || node.dismissed == Known::Yes {
                continue;
            }
            match node.life {
                Life::Down => {}
                Life::UpUntil(until)
                    if now < until && node.dismissed == Known::No && node.released == Known::No =>
                {
                    in_use = Known::Yes;
                }
                Life::UpUntil(_) | Life::Unsure if in_use == Known::No => in_use = Known::Unsure,
                Life::UpUntil(_) | Life::Unsure => {}
            }
        }
        let moved = |other: &Claim| other.host_ip == claim.host_ip && other != claim;
        if in_use == Known::No && self.unanswered.iter().any(moved) {
            in_use = Known::Unsure;
        }
        Expected {
            node: same.map(|(id, _)| id.clone()),
            certain,
            in_use,
        }
    }

    /// A registration was answered with a node and a subnet.
    pub(crate) fn admitted(
        &mut self,
        claim: &Claim,
        expected: &Expected,
        id: &str,
        subnet: Ipv4Net,
        life: Life,
    ) {
        assert_ne!(
            expected.in_use,
            Known::Yes,
            "{claim:?} was admitted, but its address is in use: {self:#?}"
        );
        assert!(
            !self.gone.contains(id),
            "{id} was removed, and is given to {claim:?}"
        );
        assert!(
            expected.node.is_some() || !expected.certain || !self.nodes.contains_key(id),
            "{claim:?} is a stranger, and became {id}: {self:#?}"
        );
        if let Some(same) = &expected.node
            && same != id
            && expected.certain
        {
            let before = self.nodes.remove(same).unwrap();
            assert!(
                before.released.may(),
                "{claim:?} was {same} ({before:?}) and became {id} at {subnet}"
            );
            self.gone.insert(same.clone());
        }
        match self.nodes.get(id) {
            Some(node) => assert!(
                node.subnet == subnet,
                "{id} had {} and came back with {subnet}",
                node.subnet
            ),
            None => self.is_free(subnet, id),
        }
        self.was_released(subnet, id);
        for node in self
            .nodes
            .values_mut()
            .filter(|node| node.host_ip == claim.host_ip)
        {
            // It was down, or this would not have been admitted.
            node.dismissed = Known::Yes;
            node.life = Life::Down;
        }
        self.nodes.insert(
            id.to_owned(),
            Node {
                subnet,
                hostname: claim.hostname.clone(),
                host_ip: claim.host_ip,
                key: claim.key.clone(),
                dismissed: Known::No,
                life,
                released: Known::No,
            },
        );
    }

    /// Somebody has a subnet: whoever had it before has lost it to an operator.
    fn was_released(&mut self, subnet: Ipv4Net, to: &str) {
        let had = |id: &String, node: &mut Node| node.subnet == subnet && id != to;
        let lost = self.nodes.extract_if(.., had).map(|(id, _)| id);
        self.gone.extend(lost);
    }

    /// A subnet was handed out: nobody may hold it.
    fn is_free(&self, subnet: Ipv4Net, to: &str) {
        for (id, node) in &self.nodes {
            let held = node.subnet == subnet && node.released == Known::No;
            assert!(
                !held,
                "{subnet} is held by {id} ({node:?}) and was given to {to}"
            );
        }
        for (range, &reserved) in &self.reservations {
            assert!(
                reserved != Known::Yes || !range.contains(&subnet),
                "{range} is reserved, and {subnet} was given to {to}"
            );
        }
    }

    /// A registration was refused because the address is in use.
    pub(crate) fn refused(&self, claim: &Claim, expected: &Expected) {
        assert!(
            expected.in_use.may(),
            "{claim:?} was refused, but nobody has the address: {self:#?}"
        );
    }

    /// A registration was refused because no subnet is free.
    pub(crate) fn exhausted(&self, claim: &Claim, expected: &Expected) {
        let holds = expected.node.as_ref().map(|id| &self.nodes[id]);
        assert!(
            !expected.certain || holds.is_none_or(|node| node.released.may()),
            "{claim:?} holds a subnet and was told that none is free"
        );
        let reserved = (1..=SUBNETS).filter(|&number| {
            self.reservations
                .keys()
                .any(|range| range.contains(&subnet(number)))
        });
        let taken = self.nodes.len() + self.unanswered.len() + reserved.count();
        assert!(
            taken >= SUBNETS.into(),
            "none of {SUBNETS} subnets is free, says the answer: {self:#?}"
        );
    }

    /// A registration got no answer.
    pub(crate) fn unanswered(&mut self, claim: &Claim) {
        self.unanswered.push(claim.clone());
        let same = self.same_node(claim).map(|(id, _)| id.clone());
        for (id, node) in &mut self.nodes {
            // Of one that has had two keys both may be meant.
            let itself = same.as_ref() == Some(id) || node.hostname == claim.hostname;
            if !itself && node.host_ip != claim.host_ip {
                continue;
            }
            // It may have taken its own node back, or another one's address.
            match (itself, node.dismissed) {
                (true, Known::Yes) | (false, Known::No) => node.dismissed = Known::Unsure,
                _ => {}
            }
            if node.dismissed != Known::Yes {
                node.life = Life::Unsure;
            }
        }
    }
}

/// The subnet of this number, of 10.42.0.0/16 divided into /19.
pub(crate) fn subnet(number: u8) -> Ipv4Net {
    Ipv4Net::new(
        Ipv4Addr::new(10, 42, number * 32, 0),
        crate::steps::NODE_PREFIX,
    )
    .unwrap()
}
