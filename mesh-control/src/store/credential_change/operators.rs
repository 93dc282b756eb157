//! Changes of operators.

use super::CredentialChange;
use crate::store::{StoreError, StoredOperator};

impl CredentialChange {
    /// Adds an operator.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn add_operator(&mut self, operator: &StoredOperator) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO operators (operator_id, name, role, secret_digest, created_at, revision) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&operator.operator_id)
        .bind(&operator.name)
        .bind(operator.role.as_str())
        .bind(operator.secret.to_string())
        .bind(operator.created_at)
        .bind(self.revision)
        .execute(self.transaction.connection()?)
        .await?;
        self.there_are_credentials().await
    }

    /// The id of an operator with this name that was not revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn operator_called(&mut self, name: &str) -> Result<Option<String>, StoreError> {
        let operator_id = sqlx::query_scalar(
            "SELECT operator_id FROM operators WHERE name = $1 AND revoked_at IS NULL \
             ORDER BY operator_id LIMIT 1",
        )
        .bind(name)
        .fetch_optional(self.transaction.connection()?)
        .await?;
        Ok(operator_id)
    }

    /// Lets an operator do nothing any more. `false`: there is none, or it was revoked before.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn revoke_operator(
        &mut self,
        operator_id: &str,
        now: i64,
    ) -> Result<bool, StoreError> {
        let revoked = sqlx::query(
            "UPDATE operators SET revoked_at = $2, revision = $3 \
             WHERE operator_id = $1 AND revoked_at IS NULL",
        )
        .bind(operator_id)
        .bind(now)
        .bind(self.revision)
        .execute(self.transaction.connection()?)
        .await?;
        Ok(revoked.rows_affected() > 0)
    }
}
