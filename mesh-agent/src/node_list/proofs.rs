//! What proves this node's copy of the node list right.

use mesh_rest::{digest::Digest, proof::Proof};

use crate::node::Node;

/// What the control plane says the list has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// Of five fields; every control plane with a feed tells it.
    digest: Option<String>,
    /// Of etags.
    proof: Option<String>,
}

impl Expected {
    /// `None`: there is nothing to prove a copy with.
    pub(super) fn of(digest: Option<String>, proof: Option<String>) -> Option<Self> {
        (digest.is_some() || proof.is_some()).then_some(Self { digest, proof })
    }
}

/// What the copy has, kept by changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Proofs {
    digest: Digest,
    proof: Proof,
    /// How many entries came without an etag, from a control plane of an earlier version.
    without_etag: usize,
}

impl Proofs {
    pub(super) fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let mut proofs = Self::default();
        for node in nodes {
            proofs.add(node);
        }
        proofs
    }

    pub(super) fn add(&mut self, node: &Node) {
        self.digest.add(&node.digested());
        match &node.etag {
            Some(etag) => self.proof.add(&node.node_id, etag),
            None => self.without_etag += 1,
        }
    }

    /// Takes out what was added.
    pub(super) fn remove(&mut self, node: &Node) {
        self.digest.remove(&node.digested());
        match &node.etag {
            Some(etag) => self.proof.remove(&node.node_id, etag),
            None => self.without_etag -= 1,
        }
    }

    /// Whether the copy is what the control plane says: by the etags, if each entry has one, and else by the digest. So
    /// a copy from before the control plane was upgraded, or from a replica that is not yet, is not fetched anew for
    /// want of etags by all agents at once; it has them when it is fetched next.
    pub(super) fn agree(&self, expected: &Expected) -> bool {
        match expected {
            Expected {
                proof: Some(proof), ..
            } if self.without_etag == 0 => self.proof.to_string() == *proof,
            Expected {
                digest: Some(digest),
                ..
            } => self.digest.to_string() == *digest,
            Expected { digest: None, .. } => false,
        }
    }
}
