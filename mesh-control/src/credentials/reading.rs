//! Credentials are read into memory: all of them, or what changed.

use std::sync::Arc;

use mesh_rest::status::Status;
use tracing::info;

use super::memory::{Known, Outdated};
use crate::registry::Registry;
use crate::store::{CredentialChanges, StoreError};

/// How often something is read that is outdated by then: each time the database has gone back meanwhile.
pub(super) const MOST_READINGS: usize = 3;

impl Registry {
    /// Reads all there is.
    pub(crate) async fn fill_credentials(&self) -> Result<(), StoreError> {
        let known = self.credentials.known();
        if let Some(changes) = self.store.credentials_since(-1).await? {
            // Nobody else has begun yet.
            let _only = self.take_in_credentials(known, changes);
        }
        Ok(())
    }

    /// Takes in what was read, and does on this host what follows from it.
    pub(super) fn take_in_credentials(
        &self,
        known: Known,
        changes: CredentialChanges,
    ) -> Result<(), Outdated> {
        if self.credentials.take_in_since(known, changes)? {
            self.say_who_is_shut_out();
        }
        if self.credentials.any() {
            self.mark.make();
        }
        self.settle_authorities();
        Ok(())
    }

    fn say_who_is_shut_out(&self) {
        const MOST_NAMED: usize = 5;
        let names: Vec<String> = {
            let memory = self.copy.memory();
            let state = self.credentials.state();
            let without = memory.roster.nodes().filter(|node| {
                let status = memory.liveness.status(node.node_id.as_str());
                status == Some(Status::Up) && !state.nodes.contains_key(node.node_id.as_str())
            });
            without.map(|node| node.hostname.clone()).collect()
        };
        let shown = names[..names.len().min(MOST_NAMED)].join(", ");
        info!(name: "first-credential-made",
            shut_out = names.len(),
            shown, "the first credential was made: from now on nobody is let in without"
        );
    }

    /// Reads what changed of credentials.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read.
    pub(crate) async fn read_credentials(&self) -> Result<(), Arc<StoreError>> {
        let read = async {
            for _ in 0..MOST_READINGS {
                let known = self.credentials.known();
                let Some(changes) = self.store.credentials_since(known.revision).await? else {
                    return Ok(());
                };
                if self.take_in_credentials(known, changes).is_ok() {
                    return Ok(());
                }
            }
            Err(StoreError::OtherHistory)
        };
        self.credential_reads.share(read).await
    }
}
