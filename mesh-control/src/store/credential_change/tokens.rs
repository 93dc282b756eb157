//! Changes of join tokens.

use super::CredentialChange;
use crate::store::{StoreError, StoredToken};

impl CredentialChange {
    /// Uses a join token once. `false`: it holds no longer, or was used up.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as for every method here.
    pub async fn use_token(&mut self, token_id: &str, now: i64) -> Result<bool, StoreError> {
        let used = sqlx::query(
            "UPDATE join_tokens SET uses_left = uses_left - 1, revision = $3 \
             WHERE token_id = $1 AND uses_left > 0 AND revoked_at IS NULL AND expires_at > $2",
        )
        .bind(token_id)
        .bind(now)
        .bind(self.revision)
        .execute(self.transaction.connection()?)
        .await?;
        Ok(used.rows_affected() > 0)
    }

    /// Adds a join token.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn add_token(&mut self, token: &StoredToken) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO join_tokens (token_id, secret_digest, uses, uses_left, expires_at, only_hostname, \
             created_at, created_by, revision, only_node_id, authority) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(&token.token_id)
        .bind(token.secret.to_string())
        .bind(i64::from(token.uses))
        .bind(i64::from(token.uses_left))
        .bind(token.expires_at)
        .bind(token.only_hostname.as_deref())
        .bind(token.created_at)
        .bind(&token.created_by)
        .bind(self.revision)
        .bind(token.only_node_id.as_deref())
        .bind(token.authority.map(|key| key.to_string()))
        .execute(self.transaction.connection()?)
        .await?;
        self.there_are_credentials().await
    }

    /// Ends a join token. `false`: there is none, or it was revoked before.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn revoke_token(&mut self, token_id: &str, now: i64) -> Result<bool, StoreError> {
        let revoked = sqlx::query(
            "UPDATE join_tokens SET revoked_at = $2, revision = $3 \
             WHERE token_id = $1 AND revoked_at IS NULL",
        )
        .bind(token_id)
        .bind(now)
        .bind(self.revision)
        .execute(self.transaction.connection()?)
        .await?;
        Ok(revoked.rows_affected() > 0)
    }
}
