//! The rows of nodes: who they are, and whether they are there.

use mesh_rest::node_id::NodeId;
use mesh_rest::registration::Registration;
use mesh_rest::status::Status;

use super::Change;
use crate::cluster::identity::{Claim, Claimant};
use crate::store::{StoreError, address, status};

/// Id, key, hostname, address, status, whether it has to register, whether its address is kept for it.
type ClaimantRow = (String, Option<String>, String, String, String, i64, i64);

/// What a registration makes of a node.
#[derive(Debug, Clone, Copy)]
pub struct NewState<'a> {
    /// The node.
    pub node_id: &'a NodeId,
    /// What it said about itself.
    pub registration: &'a Registration,
    /// Now, in Unix seconds.
    pub unix_seconds: i64,
}

impl Change {
    /// The stored nodes that have the claimed key or address, in the order of their ids.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as for every method here.
    pub async fn claimants(&mut self, claim: &Claim<'_>) -> Result<Vec<Claimant>, StoreError> {
        let rows: Vec<ClaimantRow> = sqlx::query_as(
            "SELECT node_id, node_key, hostname, host_ip, status, must_register, \
             CASE WHEN displaced = 0 AND left_at IS NULL AND EXISTS (SELECT 1 FROM node_credentials \
             WHERE node_credentials.node_id = nodes.node_id AND revoked_at IS NULL) THEN 1 ELSE 0 END \
             FROM nodes WHERE host_ip = $1 OR node_key = $2 OR node_id = $3 ORDER BY node_id",
        )
        .bind(claim.host_ip.to_string())
        .bind(claim.node_key)
        .bind(claim.node_id)
        .fetch_all(self.transaction.connection()?)
        .await?;
        rows.into_iter()
            .map(
                |(node_id, node_key, hostname, host_ip, word, must_register, keeps)| {
                    Ok(Claimant {
                        host_ip: address(&node_id, &host_ip)?,
                        node_id: NodeId::from(node_id),
                        node_key,
                        hostname,
                        up: status(&word) == Status::Up,
                        holds_address: must_register == 0,
                        keeps_address: keeps != 0,
                    })
                },
            )
            .collect()
    }

    /// Adds a node, up, that has no lease yet.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn add(&mut self, new: NewState<'_>) -> Result<(), StoreError> {
        let registration = new.registration;
        sqlx::query(
            "INSERT INTO nodes (node_id, node_key, hostname, host_ip, cpu_cores, ram_mb, status, \
             must_register, registered_at, last_heartbeat, revision, overlay_mtu) \
             VALUES ($1, $2, $3, $4, $5, $6, 'up', 0, $7, $7, $8, $9)",
        )
        .bind(new.node_id.as_str())
        .bind(registration.node_key.as_deref())
        .bind(&registration.hostname)
        .bind(registration.host_ip.to_string())
        .bind(registration.cpu_cores.map(i64::from))
        .bind(ram(registration))
        .bind(new.unix_seconds)
        .bind(self.revision)
        .bind(registration.overlay_mtu.map(i64::from))
        .execute(self.transaction.connection()?)
        .await?;
        self.changed = true;
        Ok(())
    }

    /// Forgets that a node was removed, which comes back.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn forget_removal(&mut self, node_id: &NodeId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM removed_nodes WHERE node_id = $1")
            .bind(node_id.as_str())
            .execute(self.transaction.connection()?)
            .await?;
        Ok(())
    }

    /// Brings a node up with what it says about itself now. `false`: all of that was stored already.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn renew(&mut self, new: NewState<'_>) -> Result<bool, StoreError> {
        let registration = new.registration;
        // IS NOT DISTINCT FROM compares NULLs in both databases (SQLite since 3.39).
        let changed = sqlx::query(
            "UPDATE nodes SET node_key = $2, hostname = $3, host_ip = $4, cpu_cores = $5, ram_mb = $6, \
             status = 'up', must_register = 0, displaced = 0, left_at = NULL, last_heartbeat = $7, revision = $8, overlay_mtu = $9 \
             WHERE node_id = $1 AND NOT (node_key IS NOT DISTINCT FROM $2 AND hostname = $3 \
             AND host_ip = $4 AND cpu_cores IS NOT DISTINCT FROM $5 AND ram_mb IS NOT DISTINCT FROM $6 \
             AND overlay_mtu IS NOT DISTINCT FROM $9 AND status = 'up' AND must_register = 0)",
        )
        .bind(new.node_id.as_str())
        .bind(registration.node_key.as_deref())
        .bind(&registration.hostname)
        .bind(registration.host_ip.to_string())
        .bind(registration.cpu_cores.map(i64::from))
        .bind(ram(registration))
        .bind(new.unix_seconds)
        .bind(self.revision)
        .bind(registration.overlay_mtu.map(i64::from))
        .execute(self.transaction.connection()?)
        .await?;
        let changed = changed.rows_affected() > 0;
        self.changed |= changed;
        Ok(changed)
    }

    /// Gives a node the revision of this change, although its own row stays as it is.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn mark_changed(&mut self, node_id: &NodeId) -> Result<(), StoreError> {
        sqlx::query("UPDATE nodes SET revision = $2 WHERE node_id = $1")
            .bind(node_id.as_str())
            .bind(self.revision)
            .execute(self.transaction.connection()?)
            .await?;
        self.changed = true;
        Ok(())
    }

    /// Takes a node down until it registers again: its address may go to another. It keeps its lease.
    /// `false`: it was so already, or there is no such node.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn dismiss(&mut self, node_id: &str) -> Result<bool, StoreError> {
        let changed = sqlx::query(
            "UPDATE nodes SET status = 'down', must_register = 1, revision = $2 \
             WHERE node_id = $1 AND must_register = 0",
        )
        .bind(node_id)
        .bind(self.revision)
        .execute(self.transaction.connection()?)
        .await?;
        let changed = changed.rows_affected() > 0;
        if changed {
            self.forget_report(node_id).await?;
        }
        self.changed |= changed;
        Ok(changed)
    }

    /// Takes a node down whose address goes to another, until it registers again. It keeps its lease.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn displace(&mut self, node_id: &NodeId) -> Result<(), StoreError> {
        self.dismiss(node_id.as_str()).await?;
        sqlx::query("UPDATE nodes SET displaced = 1 WHERE node_id = $1")
            .bind(node_id.as_str())
            .execute(self.transaction.connection()?)
            .await?;
        self.changed = true;
        Ok(())
    }

    /// Takes a node down for good: until it registers again its lease may be released. `false`: it left already, or
    /// there is no such node.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn leave(&mut self, node_id: &str, unix_seconds: i64) -> Result<bool, StoreError> {
        let changed = sqlx::query(
            "UPDATE nodes SET status = 'down', must_register = 1, left_at = $2, revision = $3 \
             WHERE node_id = $1 AND left_at IS NULL",
        )
        .bind(node_id)
        .bind(unix_seconds)
        .bind(self.revision)
        .execute(self.transaction.connection()?)
        .await?;
        let changed = changed.rows_affected() > 0;
        if changed {
            self.forget_report(node_id).await?;
        }
        self.changed |= changed;
        Ok(changed)
    }

    /// The key of a node, if it registered with one. `None`: there is no such node.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn node_key(&mut self, node_id: &str) -> Result<Option<Option<String>>, StoreError> {
        let found = sqlx::query_scalar("SELECT node_key FROM nodes WHERE node_id = $1")
            .bind(node_id)
            .fetch_optional(self.transaction.connection()?)
            .await?;
        Ok(found)
    }
}

/// At most 2^40, see [`Registration`].
fn ram(registration: &Registration) -> Option<i64> {
    registration.ram_mb.and_then(|ram| i64::try_from(ram).ok())
}
