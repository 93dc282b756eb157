//! Transactions: one that ends in exactly one way, and on it the changes of nodes and leases.

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool};

use super::{StoreError, address, status, subnet_index};
use crate::identity::{Claim, Claimant};
use crate::lease::Unheld;
use crate::liveness::Unwritten;
use crate::node::{NodeId, Status};
use crate::registration::Registration;
use crate::subnet_plan::SubnetIndex;

/// A transaction on a pooled connection. Unless [`Self::end`] succeeds, the connection is closed
/// rather than given back, and SQLite rolls back what it did; see the module above for why.
pub(super) struct Transaction {
    connection: Option<PoolConnection<Sqlite>>,
}

impl Transaction {
    pub(super) async fn begin(pool: &SqlitePool, sql: &'static str) -> Result<Self, StoreError> {
        let mut transaction = Self {
            connection: Some(pool.acquire().await?),
        };
        sqlx::query(sql).execute(transaction.connection()?).await?;
        Ok(transaction)
    }

    /// The connection, for one statement. The error cannot happen before [`Self::end`], which takes `self`.
    pub(super) fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            None => Err(StoreError::Statement(sqlx::Error::WorkerCrashed)),
        }
    }

    pub(super) async fn end(mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::query(sql).execute(self.connection()?).await?;
        // Back to the pool.
        drop(self.connection.take());
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

/// A change that has the write lock. Dropped without [`Change::commit`], it never was.
pub struct Change<'a> {
    transaction: Transaction,
    revision: i64,
    // Holds the borrow of the store, so that there is one change at a time.
    store: std::marker::PhantomData<&'a mut super::Store>,
}

/// How many nodes hold a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// All of them.
    pub total: i64,
    /// Those of them that are down.
    pub by_down_nodes: i64,
}

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

impl<'a> Change<'a> {
    /// The first statement raises the revision by `step`: it takes SQLite's write lock, or PostgreSQL's lock of the
    /// row, before anything is read that the change depends on.
    pub(super) async fn begin(pool: &SqlitePool, step: i64) -> Result<Self, StoreError> {
        let mut transaction = Transaction::begin(pool, "BEGIN").await?;
        let revision = sqlx::query_scalar(
            "UPDATE cluster SET revision = revision + $1 WHERE id = 1 RETURNING revision",
        )
        .bind(step)
        .fetch_one(transaction.connection()?)
        .await?;
        Ok(Self {
            transaction,
            revision,
            store: std::marker::PhantomData,
        })
    }

    /// The revision that the change gets.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The stored nodes that have the claimed key or address, in the order of their ids.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as for every method here.
    pub async fn claimants(&mut self, claim: &Claim<'_>) -> Result<Vec<Claimant>, StoreError> {
        let rows: Vec<(String, Option<String>, String, String, String, i64)> = sqlx::query_as(
            "SELECT node_id, node_key, hostname, host_ip, status, must_register FROM nodes \
             WHERE host_ip = $1 OR node_key = $2 ORDER BY node_id",
        )
        .bind(claim.host_ip.to_string())
        .bind(claim.node_key)
        .fetch_all(self.transaction.connection()?)
        .await?;
        rows.into_iter()
            .map(
                |(node_id, node_key, hostname, host_ip, word, must_register)| {
                    Ok(Claimant {
                        host_ip: address(&node_id, &host_ip)?,
                        node_id: NodeId::from(node_id),
                        node_key,
                        hostname,
                        up: status(&word) == Status::Up,
                        holds_address: must_register == 0,
                    })
                },
            )
            .collect()
    }

    /// The subnet that a node leases.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn subnet_of(&mut self, node_id: &NodeId) -> Result<Option<SubnetIndex>, StoreError> {
        let number: Option<i64> =
            sqlx::query_scalar("SELECT subnet_index FROM leases WHERE node_id = $1")
                .bind(node_id.as_str())
                .fetch_optional(self.transaction.connection()?)
                .await?;
        number.map(subnet_index).transpose()
    }

    /// What is there to lease.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn unheld(&mut self) -> Result<Unheld, StoreError> {
        let highest: Option<i64> = sqlx::query_scalar("SELECT MAX(subnet_index) FROM leases")
            .fetch_one(self.transaction.connection()?)
            .await?;
        let released: Option<i64> = sqlx::query_scalar(
            "SELECT subnet_index FROM leases WHERE node_id IS NULL \
             ORDER BY released_revision, subnet_index LIMIT 1",
        )
        .fetch_optional(self.transaction.connection()?)
        .await?;
        Ok(Unheld {
            highest_used: highest.map(subnet_index).transpose()?,
            longest_released: released.map(subnet_index).transpose()?,
        })
    }

    /// How many subnets are held, for the message that none is free.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn held(&mut self) -> Result<Held, StoreError> {
        let (total, by_down_nodes) = sqlx::query_as(
            "SELECT COUNT(*), COUNT(CASE WHEN status = 'down' THEN 1 END) \
             FROM leases JOIN nodes USING (node_id)",
        )
        .fetch_one(self.transaction.connection()?)
        .await?;
        Ok(Held {
            total,
            by_down_nodes,
        })
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
             must_register, registered_at, last_heartbeat, revision) \
             VALUES ($1, $2, $3, $4, $5, $6, 'up', 0, $7, $7, $8)",
        )
        .bind(new.node_id.as_str())
        .bind(registration.node_key.as_deref())
        .bind(&registration.hostname)
        .bind(registration.host_ip.to_string())
        .bind(registration.cpu_cores.map(i64::from))
        .bind(ram(registration))
        .bind(new.unix_seconds)
        .bind(self.revision)
        .execute(self.transaction.connection()?)
        .await?;
        Ok(())
    }

    /// Leases a subnet that nobody holds to a node that holds none.
    ///
    /// # Errors
    ///
    /// [`StoreError`], also when somebody holds it: no row comes back then.
    pub async fn lease(
        &mut self,
        node_id: &NodeId,
        subnet: SubnetIndex,
        unix_seconds: i64,
    ) -> Result<(), StoreError> {
        sqlx::query_scalar::<_, i64>(
            "INSERT INTO leases (subnet_index, node_id, leased_at) VALUES ($1, $2, $3) \
             ON CONFLICT (subnet_index) DO UPDATE \
             SET node_id = $2, leased_at = $3, released_revision = NULL \
             WHERE leases.node_id IS NULL RETURNING subnet_index",
        )
        .bind(i64::from(subnet.number()))
        .bind(node_id.as_str())
        .bind(unix_seconds)
        .fetch_one(self.transaction.connection()?)
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
             status = 'up', must_register = 0, last_heartbeat = $7, revision = $8 \
             WHERE node_id = $1 AND NOT (node_key IS NOT DISTINCT FROM $2 AND hostname = $3 \
             AND host_ip = $4 AND cpu_cores IS NOT DISTINCT FROM $5 AND ram_mb IS NOT DISTINCT FROM $6 \
             AND status = 'up' AND must_register = 0)",
        )
        .bind(new.node_id.as_str())
        .bind(registration.node_key.as_deref())
        .bind(&registration.hostname)
        .bind(registration.host_ip.to_string())
        .bind(registration.cpu_cores.map(i64::from))
        .bind(ram(registration))
        .bind(new.unix_seconds)
        .bind(self.revision)
        .execute(self.transaction.connection()?)
        .await?;
        Ok(changed.rows_affected() > 0)
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
        Ok(changed.rows_affected() > 0)
    }

    /// Whether there is a node with this id.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn knows(&mut self, node_id: &str) -> Result<bool, StoreError> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM nodes WHERE node_id = $1")
            .bind(node_id)
            .fetch_optional(self.transaction.connection()?)
            .await?;
        Ok(found.is_some())
    }

    /// Writes what heartbeats, or their absence, changed.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn write_liveness(&mut self, unwritten: &[Unwritten]) -> Result<(), StoreError> {
        for entry in unwritten {
            sqlx::query(
                "UPDATE nodes SET last_heartbeat = $2, status = COALESCE($3, status), \
                 revision = CASE WHEN $3 IS NULL THEN revision ELSE $4 END \
                 WHERE node_id = $1 AND must_register = 0",
            )
            .bind(entry.node_id.as_str())
            .bind(entry.last_heartbeat)
            .bind(entry.status.map(Status::as_str))
            .bind(self.revision)
            .execute(self.transaction.connection()?)
            .await?;
        }
        Ok(())
    }

    /// Makes the change last: when this returns, it is on the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the change then never was.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.transaction.end("COMMIT").await
    }

    /// Takes the change back.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the change never was all the same.
    pub async fn roll_back(self) -> Result<(), StoreError> {
        self.transaction.end("ROLLBACK").await
    }
}

/// At most 2^40, see [`Registration`].
fn ram(registration: &Registration) -> Option<i64> {
    registration.ram_mb.and_then(|ram| i64::try_from(ram).ok())
}
