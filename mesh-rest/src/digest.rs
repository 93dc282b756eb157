//! The digest of a node list: equal lists have equal digests, whatever their order.
//!
//! Every answer of the change feed carries it. An agent that keeps the list by changes alone
//! compares it with that of its own copy, and fetches the whole list when they differ: after
//! the control plane's database was replaced by an older one, for example. It is of five fields, for ever, because
//! both sides compute it: what is added to a node is proved by [`crate::proof`].

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The digest of a set of nodes: the sum, modulo 2^64, of the first eight bytes (big endian)
/// of SHA-256 over each node's fields. A sum, so that one change is one subtraction and one
/// addition for who keeps ten thousand nodes.
///
/// On the wire it is 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(u64);

/// What of a node goes into the digest, as the text that stands in the node list. The last
/// heartbeat does not: it changes without a new revision.
#[derive(Clone, Copy, Debug)]
pub struct DigestedNode<'a> {
    /// `node_id`
    pub node_id: &'a str,
    /// `hostname`
    pub hostname: &'a str,
    /// `host_ip`
    pub host_ip: &'a str,
    /// `subnet`
    pub subnet: &'a str,
    /// `status`: `up` or `down`
    pub status: &'a str,
}

impl DigestedNode<'_> {
    fn word(&self) -> u64 {
        word([
            self.node_id,
            self.hostname,
            self.host_ip,
            self.subnet,
            self.status,
        ])
    }
}

/// The first eight bytes of SHA-256 over fields.
pub(crate) fn word<const N: usize>(fields: [&str; N]) -> u64 {
    let mut hash = Sha256::new();
    for field in fields {
        hash.update(field.as_bytes());
        // No field can hold it, so no two run into one text.
        hash.update([0]);
    }
    hash.finalize()
        .iter()
        .take(8)
        .fold(0, |word, &byte| word << 8 | u64::from(byte))
}

impl Digest {
    /// Adds a node to the set.
    pub fn add(&mut self, node: &DigestedNode<'_>) {
        self.0 = self.0.wrapping_add(node.word());
    }

    /// Takes a node out of the set again.
    pub fn remove(&mut self, node: &DigestedNode<'_>) {
        self.0 = self.0.wrapping_sub(node.word());
    }
}

impl<'a> FromIterator<DigestedNode<'a>> for Digest {
    fn from_iter<I: IntoIterator<Item = DigestedNode<'a>>>(nodes: I) -> Self {
        let mut digest = Self::default();
        for node in nodes {
            digest.add(&node);
        }
        digest
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node<'a>(fields: &'a [String; 5]) -> DigestedNode<'a> {
        let [node_id, hostname, host_ip, subnet, status] = fields;
        DigestedNode {
            node_id,
            hostname,
            host_ip,
            subnet,
            status,
        }
    }

    fn fields() -> impl Strategy<Value = [String; 5]> {
        [
            "[ab]{0,3}",
            "[ab]{0,3}",
            "[ab]{0,3}",
            "[ab]{0,3}",
            "up|down",
        ]
        .prop_map(|it| it)
    }

    #[test]
    fn the_digest_of_one_known_node_is_what_other_implementations_compute() {
        let one = DigestedNode {
            node_id: "n1",
            hostname: "alpha",
            host_ip: "192.0.2.11",
            subnet: "10.42.1.0/24",
            status: "up",
        };
        // printf 'n1\0alpha\000192.0.2.11\00010.42.1.0/24\0up\0' | sha256sum | cut -c1-16
        assert_eq!(Digest::from_iter([one]).to_string(), "18e926991d6c09e3");
        assert_eq!(Digest::default().to_string(), "0000000000000000");
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_what_is_removed_was_never_there(
            nodes in prop::collection::vec(fields(), 0..8), gone in fields(),
        ) {
            let forwards: Digest = nodes.iter().map(node).collect();
            let mut backwards: Digest = nodes.iter().rev().map(node).collect();
            backwards.add(&node(&gone));
            backwards.remove(&node(&gone));
            prop_assert_eq!(forwards, backwards);
        }

        #[test]
        fn two_nodes_that_differ_have_different_digests(one in fields(), other in fields()) {
            prop_assert_eq!(
                one == other,
                Digest::from_iter([node(&one)]) == Digest::from_iter([node(&other)])
            );
        }
    }
}
