//! The proof of a node list: equal lists have equal proofs, whatever their order and whatever is in their entries.
//!
//! Each entry of the list carries an etag, which the control plane makes from everything that the entry says. The proof
//! is made of these and knows no fields, so that a field that is added later is proved by agents that do not know
//! it. An agent keeps it by changes, and fetches the whole list when it differs from that of the control plane. The older
//! [`crate::digest`], of five fields, is for whoever has no etags: agents and control planes of earlier versions.

use std::fmt;

use crate::digest::word;

/// The proof of a set of entries: the sum, modulo 2^64, of the first eight bytes (big endian) of SHA-256 over each
/// node's id and etag, with a zero byte after each. A sum, as the digest is one.
///
/// On the wire it is 16 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Proof(u64);

impl Proof {
    /// Adds the entry of a node.
    pub fn add(&mut self, node_id: &str, etag: &str) {
        self.0 = self.0.wrapping_add(word([node_id, etag]));
    }

    /// Takes the entry of a node out again.
    pub fn remove(&mut self, node_id: &str, etag: &str) {
        self.0 = self.0.wrapping_sub(word([node_id, etag]));
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proof<'a>(entries: impl IntoIterator<Item = &'a (String, String)>) -> Proof {
        let mut proof = Proof::default();
        for (node_id, etag) in entries {
            proof.add(node_id, etag);
        }
        proof
    }

    fn entry() -> impl Strategy<Value = (String, String)> {
        ("[ab]{0,3}", "[ab]{0,3}")
    }

    #[test]
    fn the_proof_of_one_known_entry_is_what_other_implementations_compute() {
        let mut one = Proof::default();
        assert_eq!(one.to_string(), "0000000000000000");
        one.add("n1", "5d41402abc4b2a76");
        // printf 'n1\0005d41402abc4b2a76\0' | sha256sum | cut -c1-16
        assert_eq!(one.to_string(), "19361626dbfeb76f");
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_what_is_removed_was_never_there(
            entries in prop::collection::vec(entry(), 0..8), gone in entry(),
        ) {
            let mut backwards = proof(entries.iter().rev());
            backwards.add(&gone.0, &gone.1);
            backwards.remove(&gone.0, &gone.1);
            prop_assert_eq!(proof(&entries), backwards);
        }

        #[test]
        fn two_entries_that_differ_have_different_proofs(one in entry(), other in entry()) {
            prop_assert_eq!(one == other, proof([&one]) == proof([&other]));
        }
    }
}
