//! Changes of credentials: each is one transaction, which raises the revision of credentials and leaves the node list's.

use mesh_rest::security::Stage;
use sqlx::AnyConnection;

use super::change::CHANGED_CHANNEL;
use super::transaction::{Dialect, Transaction};
use super::{CredentialChanges, CredentialsBefore, Home, Store, StoreError};

mod authorities;
mod nodes;
mod operators;
mod tokens;

pub use nodes::{Known, NewCredential, WithoutJoining};

/// A change that has the lock. Dropped without [`CredentialChange::finish`], it never was.
pub struct CredentialChange {
    transaction: Transaction,
    revision: i64,
    /// Whether nodes' are gone, of which those that are left say nothing.
    removes: bool,
}

impl Store {
    /// Starts a change of credentials.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database cannot be written now.
    pub async fn begin_credentials(&self) -> Result<CredentialChange, StoreError> {
        if let Home::File(file) = &self.home {
            file.check_in_place()?;
        }
        let mut transaction = Transaction::writing(&self.pool, self.dialect()).await?;
        let revision: Option<i64> = sqlx::query_scalar(
            "UPDATE cluster SET credentials_revision = credentials_revision + 1 WHERE id = 1 \
             RETURNING credentials_revision",
        )
        .fetch_optional(transaction.connection()?)
        .await?;
        match revision {
            Some(revision) => Ok(CredentialChange {
                transaction,
                revision,
                removes: false,
            }),
            None => Err(super::history::emptied(self.dialect())),
        }
    }
}

impl CredentialChange {
    /// Credentials as they were before this change, which has changed nothing yet.
    pub fn credentials_before(&mut self) -> CredentialsBefore<'_> {
        CredentialsBefore {
            transaction: &mut self.transaction,
            revision: self.revision - 1,
            raised_by: 1,
        }
    }

    /// What changed after `revision` once this change is made; all there is, if that is not told by what changed.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn changes_with_it(
        &mut self,
        revision: i64,
    ) -> Result<Option<CredentialChanges>, StoreError> {
        let revision = if self.removes { -1 } else { revision };
        self.transaction.credentials_since(revision, 0).await
    }

    pub(super) fn connection(&mut self) -> Result<&mut AnyConnection, StoreError> {
        self.transaction.connection()
    }

    /// Notes that somebody has credentials, or is to get some: it is not forgotten when there are none any more.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn there_are_credentials(&mut self) -> Result<(), StoreError> {
        sqlx::query("UPDATE cluster SET had_credentials = 1 WHERE id = 1 AND had_credentials = 0")
            .execute(self.transaction.connection()?)
            .await?;
        Ok(())
    }

    /// Sets how far the cluster is secured.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn set_stage(&mut self, stage: Stage) -> Result<(), StoreError> {
        sqlx::query("UPDATE cluster SET stage = $1 WHERE id = 1")
            .bind(stage.as_str())
            .execute(self.transaction.connection()?)
            .await?;
        Ok(())
    }

    /// Forgets what can no longer be used, and is not looked for any more: what ended before that moment.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn forget_ended(&mut self, before: i64) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM join_tokens WHERE expires_at < $1 OR revoked_at < $1",
            "DELETE FROM operators WHERE revoked_at < $1",
            "DELETE FROM node_credentials WHERE expires_at < $1 AND NOT EXISTS \
             (SELECT 1 FROM nodes WHERE nodes.node_id = node_credentials.node_id)",
        ] {
            sqlx::query(sql)
                .bind(before)
                .execute(self.transaction.connection()?)
                .await?;
        }
        Ok(())
    }

    /// Makes the change last: when this returns, it is on the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. On SQLite the change then never was; a PostgreSQL server that fails in this
    /// moment may have made it.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        if self.transaction.dialect() == Dialect::Postgres {
            // Delivered when, and only if, this transaction is committed.
            sqlx::query("SELECT pg_notify($1, $2)")
                .bind(CHANGED_CHANNEL)
                .bind("credentials")
                .execute(self.transaction.connection()?)
                .await?;
        }
        self.transaction.commit().await
    }

    /// Lets it never have been.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn roll_back(self) -> Result<(), StoreError> {
        self.transaction.roll_back().await
    }
}
