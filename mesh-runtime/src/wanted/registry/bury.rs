//! What was taken off while no runtime was there, by the word that is left of it.

use mesh_ipam::{Owner, Tombstones};
use tonic::Status;

use super::{CallError, Registry, look};

impl Registry {
    /// Undoes what an owner's tombstone says is undone outside already, in its turn.
    pub(super) async fn bury(&self, owner: &Owner) -> Result<(), CallError> {
        let Some(tombstones) = &self.tombstones else {
            return Ok(());
        };
        if !tombstones.has(owner) {
            return Ok(());
        }
        tracing::info!(name: "detached-while-no-runtime", %owner, "detached while no runtime was there");
        self.take_off(owner).await?;
        self.forget_tombstone(tombstones, owner).await
    }

    async fn forget_tombstone(
        &self,
        tombstones: &Tombstones,
        owner: &Owner,
    ) -> Result<(), CallError> {
        let (tombstones, taken) = (tombstones.clone(), owner.clone());
        let taken = look(move || tombstones.take(&taken)).await?;
        taken.map(drop).map_err(|error| {
            CallError::Failed(Status::internal(format!(
                "cannot remove the tombstone of {owner}: {error}"
            )))
        })
    }

    /// Undoes what all tombstones say.
    pub(super) async fn bury_all(&self) -> Result<(), Status> {
        let Some(tombstones) = self.tombstones.clone() else {
            return Ok(());
        };
        let owners = look(move || tombstones.owners()).await?;
        let owners = owners.map_err(|error| {
            Status::internal(format!("cannot read which containers are gone: {error}"))
        })?;
        for owner in owners {
            // Whoever is at it buries it.
            let Some(_turn) = self.turns.try_take(&owner) else {
                continue;
            };
            let buried = match self.ipam.lease_of(&owner) {
                Some(_) => self.bury(&owner).await,
                // Of what never was, or is gone already.
                None => match &self.tombstones {
                    Some(tombstones) => self.forget_tombstone(tombstones, &owner).await,
                    None => Ok(()),
                },
            };
            if let Err(error) = buried {
                tracing::warn!(name: "cannot-undo-attachment-whose-container", %owner, %error, "cannot undo an attachment whose container is gone: trying again in a moment");
            }
        }
        Ok(())
    }
}
