//! What is put back into a PostgreSQL database that lost it under a control plane that runs: it was emptied, or went back to
//! before there was an authority.

use std::sync::Arc;

use tracing::warn;

use super::audit::Doer;
use crate::access::mandate::Mandate;
use crate::registry::{Registry, unix_seconds};
use crate::store::{NewCredential, StoreError};
use crate::write::batch::{BATCH_DEADLINE, within};

impl Registry {
    /// Puts back the authorities that were trusted, the stage, and who was revoked, unless another replica has done so. Nodes
    /// come back by the certificates that they have; tokens and operators are gone.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database does not answer; it is tried again with the next read.
    pub(crate) async fn put_back_credentials(&self) -> Result<(), Arc<StoreError>> {
        if self.credentials.lost().is_none() {
            return match self.credentials.is_unnoted() {
                true => self.note_credentials().await,
                false => Ok(()),
            };
        }
        let _turn = self.turn.lock().await;
        let Some(lost) = self.credentials.lost() else {
            return Ok(());
        };
        let now = unix_seconds();
        let put_back = async {
            let mut change = self.store.begin_credentials().await?;
            if !change.authorities().await?.is_empty() {
                change.roll_back().await?;
                return Ok(false);
            }
            for authority in &lost.authorities {
                let state = authority.state;
                change.add_authority(&authority.trusted, state, now).await?;
            }
            for node in &lost.revoked {
                change
                    .credit(NewCredential {
                        node_id: &node.node_id,
                        key: node.key,
                        issuer: node.issuer,
                        expires_at: node.expires_at,
                        joined_by: "",
                        only_hostname: node.only_hostname.as_deref(),
                        now,
                    })
                    .await?;
                change.revoke_node(&node.node_id, now).await?;
            }
            change.set_stage(lost.stage).await?;
            if self.credentials.any() {
                change.there_are_credentials().await?;
            }
            let doer = Doer {
                who: "control plane".to_owned(),
                source: String::new(),
                mandate: Mandate::own(),
            };
            change
                .keep_audit(&doer.did("put back authority", "a database that had lost it"))
                .await?;
            self.finish_credentials(change)
                .await
                .map_err(StoreError::Shared)?;
            Ok(true)
        };
        let is_put_back = within(BATCH_DEADLINE, put_back).await?;
        self.read_credentials().await?;
        if is_put_back {
            warn!(name: "database-lost-mesh-certificate-authority",
                authorities = lost.authorities.len(),
                revoked_nodes = lost.revoked.len(),
                stage = lost.stage.as_str(),
                "the database had lost the mesh's certificate authority; it has it again. Nodes come back by their \
                 certificates; join tokens and operators have to be made again"
            );
        }
        Ok(())
    }

    /// Has the database say what is known here: that somebody has had credentials.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(super) async fn note_credentials(&self) -> Result<(), Arc<StoreError>> {
        let _turn = self.turn.lock().await;
        let note = async {
            let mut change = self.store.begin_credentials().await?;
            change.there_are_credentials().await?;
            self.finish_credentials(change)
                .await
                .map_err(StoreError::Shared)
        };
        Ok(within(BATCH_DEADLINE, note).await?)
    }
}
