//! Whether a change of credentials takes something away from somebody who was let in. Thousands of questions that wait are
//! judged again then, and not for every certificate that is given.

use mesh_credentials::own_certificate;
use mesh_rest::security::Stage;

use super::State;
use crate::store::{CredentialChanges, NodeCredential, StoredOperator};

impl State {
    /// Whether somebody who is let in may not be any more once this is taken in.
    pub(super) fn is_narrowed_by(&self, changes: &CredentialChanges) -> bool {
        let first = brings_some(changes) && !self.had_credentials;
        let shared = changes.is_whole
            || first
            || changes.stage != self.stage
            || changes.authorities != self.authorities;
        shared
            || changes.nodes.iter().any(|node| self.narrows(node))
            || changes.operators.iter().any(|operator| {
                let before = self.operators.get(&operator.operator_id);
                before.is_some_and(|before| {
                    let of = |it: &StoredOperator| (it.role, it.revoked_at.is_some());
                    of(before) != of(operator)
                })
            })
    }

    fn narrows(&self, node: &NodeCredential) -> bool {
        match self.nodes.get(&node.node_id) {
            // A renewal changes neither.
            Some(before) => (before.key, before.revoked) != (node.key, node.revoked),
            // A new node, as which nobody asked before. Not so one that had no credentials, which there may be at the other
            // stages, nor one that a certificate of one's own calls so. (Where the database was lost, a certificate for a
            // key that this node had even before may have been let in. Its question ends with what it waits for, within a
            // minute.)
            None => {
                node.revoked
                    || self.stage != Stage::Secured
                    || node.issuer == own_certificate::issuer()
            }
        }
    }
}

/// Whether these say that somebody has credentials, or had some.
pub(super) fn brings_some(changes: &CredentialChanges) -> bool {
    changes.had_credentials || !changes.nodes.is_empty() || !changes.operators.is_empty()
}
