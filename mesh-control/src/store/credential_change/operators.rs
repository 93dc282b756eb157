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
