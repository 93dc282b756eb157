//! Changes of the authorities that are trusted, and who depends on which.

use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::own_certificate;
use mesh_credentials::trust::Trusted;

use super::CredentialChange;
use crate::store::{AuthorityState, StoreError, StoredAuthority, credentials};

impl CredentialChange {
    /// The authorities that are trusted. Right until this change ends: nobody else can add one, or have another sign.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn authorities(&mut self) -> Result<Vec<StoredAuthority>, StoreError> {
        credentials::authorities(self.transaction.connection()?).await
    }

    /// Trusts an authority.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn add_authority(
        &mut self,
        trusted: &Trusted,
        state: AuthorityState,
        now: i64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO authorities (key_digest, certificate, state, added_at, revision) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(trusted.key().to_string())
        .bind(trusted.pem())
        .bind(state.as_str())
        .bind(now)
        .bind(self.revision)
        .execute(self.transaction.connection()?)
        .await?;
        Ok(())
    }

    /// Lets every authority in one state be in another.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn move_authorities(
        &mut self,
        from: AuthorityState,
        to: AuthorityState,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE authorities SET state = $2 WHERE state = $1")
            .bind(from.as_str())
            .bind(to.as_str())
            .execute(self.transaction.connection()?)
            .await?;
        Ok(())
    }

    /// Trusts those in one state no longer, because another has taken their place: every replica drops their keys.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn end_authorities(
        &mut self,
        state: AuthorityState,
        now: i64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO ended_authorities (key_digest, ended_at) \
             SELECT key_digest, $2 FROM authorities WHERE state = $1 ON CONFLICT (key_digest) DO NOTHING",
        )
        .bind(state.as_str())
        .bind(now)
        .execute(self.transaction.connection()?)
        .await?;
        sqlx::query("DELETE FROM authorities WHERE state = $1")
            .bind(state.as_str())
            .execute(self.transaction.connection()?)
            .await?;
        Ok(())
    }

    /// Notes that an authority is trusted no longer, because another has taken its place: every replica drops its key.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn note_ended(&mut self, key: KeyDigest, now: i64) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO ended_authorities (key_digest, ended_at) VALUES ($1, $2) \
             ON CONFLICT (key_digest) DO NOTHING",
        )
        .bind(key.to_string())
        .bind(now)
        .execute(self.transaction.connection()?)
        .await?;
        Ok(())
    }

    /// Trusts none any more, because the key of the one that signed is lost. A key that turns up again is not dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn remove_authorities(&mut self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM authorities")
            .execute(self.transaction.connection()?)
            .await?;
        Ok(())
    }

    /// Hostnames of the nodes that are up and have not heard of an authority: they got their latest certificate before it
    /// was added. Those with certificates of one's own never do.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn nodes_without_word_of(
        &mut self,
        authority: KeyDigest,
    ) -> Result<Vec<String>, StoreError> {
        let names = sqlx::query_scalar(
            "SELECT hostname FROM nodes JOIN node_credentials ON node_credentials.node_id = nodes.node_id \
             WHERE status = 'up' AND revoked_at IS NULL AND issuer <> $2 AND node_credentials.revision < \
             (SELECT authorities.revision FROM authorities WHERE authorities.key_digest = $1) ORDER BY hostname",
        )
        .bind(authority.to_string())
        .bind(own_certificate::issuer().to_string())
        .fetch_all(self.transaction.connection()?)
        .await?;
        Ok(names)
    }

    /// Hostnames of the nodes whose latest certificate an authority signed, and can still be used.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn nodes_of_issuer(
        &mut self,
        issuer: KeyDigest,
        now: i64,
    ) -> Result<Vec<String>, StoreError> {
        let names = sqlx::query_scalar(
            "SELECT hostname FROM nodes JOIN node_credentials ON node_credentials.node_id = nodes.node_id \
             WHERE issuer = $1 AND expires_at > $2 AND revoked_at IS NULL AND left_at IS NULL ORDER BY hostname",
        )
        .bind(issuer.to_string())
        .bind(now)
        .fetch_all(self.transaction.connection()?)
        .await?;
        Ok(names)
    }
}
