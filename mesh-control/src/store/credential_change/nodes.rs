//! Changes of what nodes are known by.

use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::own_certificate;
use sqlx::AnyConnection;

use super::CredentialChange;
use crate::store::credentials::{NodeRow, node};
use crate::store::{NodeCredential, Status, Store, StoreError, Transaction};

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

impl CredentialChange {
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
        self.there_are_credentials().await
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

    /// The nodes, also revoked ones, that are known by this key, the one first that joined last. Not those that are known by
    /// certificates of one's own: they have none.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn nodes_of_key(
        &mut self,
        key: KeyDigest,
    ) -> Result<Vec<NodeCredential>, StoreError> {
        let rows: Vec<NodeRow> = sqlx::query_as(
            "SELECT node_id, key_digest, issuer, expires_at, only_hostname, revoked_at \
             FROM node_credentials WHERE key_digest = $1 AND issuer <> $2 ORDER BY joined_at DESC, revision DESC",
        )
        .bind(key.to_string())
        .bind(own_certificate::issuer().to_string())
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
    /// of one's own are not. Returns how many those are.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn forget_nodes(&mut self) -> Result<u64, StoreError> {
        self.removes = true;
        let forgotten =
            sqlx::query("DELETE FROM node_credentials WHERE revoked_at IS NULL AND issuer <> $1")
                .bind(own_certificate::issuer().to_string())
                .execute(self.transaction.connection()?)
                .await?;
        Ok(forgotten.rows_affected())
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

    /// See [`Store::without_joining`].
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn nodes_without(&mut self) -> Result<Vec<(String, bool)>, StoreError> {
        nodes_without(self.transaction.connection()?).await
    }
}

/// Nodes that came in another way than by a join token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithoutJoining {
    /// Hostnames of the nodes that have no credentials, each with whether it is up: nodes that left, or that were stopped,
    /// are no longer of interest.
    pub without: Vec<(String, bool)>,
    /// The nodes that are known by a certificate of the mesh alone, which the database had not: their ids, each with its
    /// hostname if it registered.
    pub credited: Vec<(String, Option<String>)>,
}

impl Store {
    /// Reads which nodes came in another way than by a join token. It takes no lock.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn without_joining(&self) -> Result<WithoutJoining, StoreError> {
        let _turn = self.beside.look().await;
        let mut transaction = Transaction::reading(&self.pool, self.dialect()).await?;
        let without = nodes_without(transaction.connection()?).await?;
        let credited = sqlx::query_as(
            "SELECT node_credentials.node_id, hostname FROM node_credentials \
             LEFT JOIN nodes ON nodes.node_id = node_credentials.node_id \
             WHERE joined_by = '' AND issuer <> $1 AND revoked_at IS NULL ORDER BY joined_at, node_credentials.node_id",
        )
        .bind(own_certificate::issuer().to_string())
        .fetch_all(transaction.connection()?)
        .await?;
        transaction.roll_back().await?;
        Ok(WithoutJoining { without, credited })
    }
}

async fn nodes_without(connection: &mut AnyConnection) -> Result<Vec<(String, bool)>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT hostname, status FROM nodes WHERE left_at IS NULL AND NOT EXISTS \
         (SELECT 1 FROM node_credentials WHERE node_credentials.node_id = nodes.node_id) ORDER BY hostname",
    )
    .fetch_all(connection)
    .await?;
    let up = Status::Up.as_str();
    let named = |(hostname, status): (String, String)| (hostname, status == up);
    Ok(rows.into_iter().map(named).collect())
}

fn known((node_id, has_credentials, up): (String, i64, i64)) -> Known {
    Known {
        node_id,
        has_credentials: has_credentials != 0,
        up: up != 0,
    }
}
