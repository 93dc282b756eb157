//! Changes of credentials: each is one transaction, which raises the revision of credentials and leaves the node list's.

use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::own_certificate;
use mesh_credentials::trust::Trusted;
use mesh_rest::security::Stage;
use sqlx::AnyConnection;

use super::change::CHANGED_CHANNEL;
use super::credentials::{
    AuthorityState, NodeCredential, NodeRow, StoredOperator, StoredToken, node,
};
use super::transaction::{Dialect, Transaction};
use super::{Home, Store, StoreError};

/// A change that has the lock. Dropped without [`CredentialChange::finish`], it never was.
pub struct CredentialChange {
    transaction: Transaction,
    revision: i64,
}

/// A node that somebody may mean by its name or key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The node.
    pub node_id: String,
    /// Whether it has credentials, revoked or not.
    pub has_credentials: bool,
    /// Whether it is up.
    pub up: bool,
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
            }),
            None => Err(super::history::emptied(self.dialect())),
        }
    }
}

impl CredentialChange {
    /// The revision of credentials that the change is made on.
    pub fn revision_before(&self) -> i64 {
        self.revision - 1
    }

    pub(super) fn connection(&mut self) -> Result<&mut AnyConnection, StoreError> {
        self.transaction.connection()
    }

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

    /// The node that registered with this key.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn node_with_key(&mut self, node_key: &str) -> Result<Option<Known>, StoreError> {
        let row: Option<(String, i64, i64)> = sqlx::query_as(
            "SELECT nodes.node_id, CASE WHEN node_credentials.node_id IS NULL THEN 0 ELSE 1 END, \
             CASE status WHEN 'up' THEN 1 ELSE 0 END FROM nodes \
             LEFT JOIN node_credentials ON node_credentials.node_id = nodes.node_id WHERE node_key = $1",
        )
        .bind(node_key)
        .fetch_optional(self.transaction.connection()?)
        .await?;
        Ok(row.map(known))
    }

    /// Lets a node be known by this key, and by no other.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn credit(&mut self, new: NewCredential<'_>) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO node_credentials (node_id, key_digest, issuer, expires_at, joined_at, only_hostname, \
             revoked_at, revision, joined_by) VALUES ($1, $2, $3, $4, $5, $6, NULL, $7, $8) \
             ON CONFLICT (node_id) DO UPDATE SET key_digest = $2, issuer = $3, expires_at = $4, joined_at = $5, \
             only_hostname = $6, revoked_at = NULL, revision = $7, joined_by = $8",
        )
        .bind(new.node_id)
        .bind(new.key.to_string())
        .bind(new.issuer.to_string())
        .bind(new.expires_at)
        .bind(new.now)
        .bind(new.only_hostname)
        .bind(self.revision)
        .bind(new.joined_by)
        .execute(self.transaction.connection()?)
        .await?;
        Ok(())
    }

    /// The credentials of a node, and those of whatever node is known by a key.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn credentials_of(
        &mut self,
        node_id: &str,
        key: KeyDigest,
    ) -> Result<Vec<NodeCredential>, StoreError> {
        let rows: Vec<NodeRow> = sqlx::query_as(
            "SELECT node_id, key_digest, issuer, expires_at, only_hostname, revoked_at \
             FROM node_credentials WHERE node_id = $1 OR key_digest = $2",
        )
        .bind(node_id)
        .bind(key.to_string())
        .fetch_all(self.transaction.connection()?)
        .await?;
        rows.into_iter().map(node).collect()
    }

    /// Takes note of a new certificate for the key by which a node is known. `false`: it is known by another one, or
    /// revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn renew(
        &mut self,
        node_id: &str,
        key: KeyDigest,
        issuer: KeyDigest,
        expires_at: i64,
    ) -> Result<bool, StoreError> {
        let renewed = sqlx::query(
            "UPDATE node_credentials SET issuer = $3, expires_at = $4, revision = $5 \
             WHERE node_id = $1 AND key_digest = $2 AND revoked_at IS NULL",
        )
        .bind(node_id)
        .bind(key.to_string())
        .bind(issuer.to_string())
        .bind(expires_at)
        .bind(self.revision)
        .execute(self.transaction.connection()?)
        .await?;
        Ok(renewed.rows_affected() > 0)
    }

    /// Lets a node do nothing any more. `false`: it has no credentials, or they were revoked before.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn revoke_node(&mut self, node_id: &str, now: i64) -> Result<bool, StoreError> {
        let revoked = sqlx::query(
            "UPDATE node_credentials SET revoked_at = $2, revision = $3 \
             WHERE node_id = $1 AND revoked_at IS NULL",
        )
        .bind(node_id)
        .bind(now)
        .bind(self.revision)
        .execute(self.transaction.connection()?)
        .await?;
        Ok(revoked.rows_affected() > 0)
    }

    /// Lets every node be a node without credentials again whose certificate was signed by an authority that is lost. Those
    /// of one's own are not.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn forget_nodes(&mut self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM node_credentials WHERE revoked_at IS NULL AND issuer <> $1")
            .bind(own_certificate::issuer().to_string())
            .execute(self.transaction.connection()?)
            .await?;
        Ok(())
    }

    /// Adds a join token.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn add_token(&mut self, token: &StoredToken) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO join_tokens (token_id, secret_digest, uses, uses_left, expires_at, only_hostname, \
             created_at, created_by, revision, only_node_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
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
        .execute(self.transaction.connection()?)
        .await?;
        Ok(())
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
        Ok(())
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

    /// How many authorities there are. Right until this change ends: nobody else can add one.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn authorities(&mut self) -> Result<i64, StoreError> {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM authorities")
            .fetch_one(self.transaction.connection()?)
            .await?;
        Ok(count)
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

    /// Trusts those in one state no longer.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn remove_authorities(&mut self, state: AuthorityState) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM authorities WHERE state = $1")
            .bind(state.as_str())
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

    /// The node that a host with this key became by a token.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn joined_by(
        &mut self,
        token_id: &str,
        key: KeyDigest,
    ) -> Result<Option<String>, StoreError> {
        let node_id = sqlx::query_scalar(
            "SELECT node_id FROM node_credentials \
             WHERE key_digest = $1 AND joined_by = $2 AND revoked_at IS NULL",
        )
        .bind(key.to_string())
        .bind(token_id)
        .fetch_optional(self.transaction.connection()?)
        .await?;
        Ok(node_id)
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

    /// Hostnames of the nodes that have no credentials, each with whether it is up: nodes that left, or that were stopped,
    /// are no longer of interest.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn nodes_without(&mut self) -> Result<Vec<(String, bool)>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT hostname, status FROM nodes WHERE left_at IS NULL AND NOT EXISTS \
             (SELECT 1 FROM node_credentials WHERE node_credentials.node_id = nodes.node_id) ORDER BY hostname",
        )
        .fetch_all(self.transaction.connection()?)
        .await?;
        let up = super::Status::Up.as_str();
        Ok(rows
            .into_iter()
            .map(|(hostname, status)| (hostname, status == up))
            .collect())
    }

    /// The nodes that are known by a certificate of the mesh alone, which the database had not: their ids, each with its
    /// hostname if it registered.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn credited(&mut self) -> Result<Vec<(String, Option<String>)>, StoreError> {
        let rows = sqlx::query_as(
            "SELECT node_credentials.node_id, hostname FROM node_credentials \
             LEFT JOIN nodes ON nodes.node_id = node_credentials.node_id \
             WHERE joined_by = '' AND issuer <> $1 AND revoked_at IS NULL ORDER BY joined_at, node_credentials.node_id",
        )
        .bind(own_certificate::issuer().to_string())
        .fetch_all(self.transaction.connection()?)
        .await?;
        Ok(rows)
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

/// By what a node is known from now on.
#[derive(Debug, Clone, Copy)]
pub struct NewCredential<'a> {
    /// The node.
    pub node_id: &'a str,
    /// Its key.
    pub key: KeyDigest,
    /// Who signed its certificate.
    pub issuer: KeyDigest,
    /// Until when that holds, in Unix seconds.
    pub expires_at: i64,
    /// The token that it joined by; empty for one that came by its certificate alone.
    pub joined_by: &'a str,
    /// The only name by which it may register.
    pub only_hostname: Option<&'a str>,
    /// Unix seconds.
    pub now: i64,
}

fn known((node_id, has_credentials, up): (String, i64, i64)) -> Known {
    Known {
        node_id,
        has_credentials: has_credentials != 0,
        up: up != 0,
    }
}
