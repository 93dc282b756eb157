//! Changes of nodes: one transaction for as many as come together.

use std::sync::Arc;

use mesh_rest::node_id::NodeId;
use mesh_rest::registration::Registration;
use mesh_rest::status::Status;
use sqlx::{AnyPool, AssertSqlSafe};

use super::transaction::{Dialect, Transaction};
use super::{Server, StoreError, address, history, status};
use crate::cluster::history::{Mark, Position, Shown};
use crate::cluster::identity::{Claim, Claimant};
use crate::cluster::settings::Settings;
use crate::cluster::subnet_plan::{SubnetIndex, SubnetPlan};

mod leases;
mod liveness;
mod remembered;
mod removals;
mod reports;
pub(super) mod rows;

use leases::Unheld;
pub(super) use leases::reservation;
pub use leases::{Held, Reservation};
pub use removals::Tenant;
pub use reports::NewReport;

/// On which PostgreSQL tells the other replicas of a change.
pub(super) const CHANGED_CHANNEL: &str = "quilt_mesh_changed";

/// A change that has the lock. Dropped without [`Change::finish`], it never was.
pub struct Change {
    transaction: Transaction,
    revision: i64,
    /// Whether that is another one than before.
    revises: bool,
    /// Whether there is anything to commit.
    changed: bool,
    /// Read when first needed, and kept up to date.
    unheld: Option<Unheld>,
    /// The database's id.
    database: Arc<str>,
    /// The mark of the revision.
    mark: Mark,
    /// Until when no subnet is leased anew, in milliseconds since 1970 by the database's clock.
    held_until: i64,
    server: Server,
}

/// What the database has to be when a change begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) plan: &'a SubnetPlan,
    pub(super) settings: Settings,
    pub(super) stands: Option<&'a Position>,
}

/// Revision, id of the database, plan, settings, end of the hold, the mark of the revision that whoever makes the
/// change knows, and when the server was started.
type BegunRow = (
    i64,
    String,
    String,
    i64,
    i64,
    i64,
    i64,
    i64,
    Option<i64>,
    i64,
);

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
    /// The first statement raises the revision by `step`: it takes SQLite's write lock, or PostgreSQL's lock of the
    /// row, before anything is read that the change depends on. It also proves that this is still the
    /// history that the change is to go on with, and the plan and the settings that the database was opened for.
    pub(super) async fn begin(
        pool: &AnyPool,
        dialect: Dialect,
        step: i64,
        expected: Expected<'_>,
    ) -> Result<Self, StoreError> {
        let Expected {
            plan,
            settings,
            stands,
        } = expected;
        let mut transaction = Transaction::writing(pool, dialect).await?;
        let row: Option<BegunRow> = sqlx::query_as(AssertSqlSafe(format!(
            "UPDATE cluster SET revision = revision + $1 WHERE id = 1 \
             RETURNING revision, database_id, cluster_cidr, node_prefix, vxlan_port, vni, node_timeout_ms, \
             held_until, (SELECT mark FROM history WHERE history.revision = $2), {}",
            dialect.server_started()
        )))
        .bind(step)
        .bind(stands.map_or(-1, |stands| stands.revision))
        .fetch_optional(transaction.connection()?)
        .await?;
        let Some((
            revision,
            database,
            cidr,
            prefix,
            vxlan_port,
            vni,
            node_timeout_ms,
            held_until,
            mark,
            server,
        )) = row
        else {
            return Err(history::emptied(dialect));
        };
        let shown = Shown {
            database: &database,
            revision: revision - step,
            mark: mark.map(Mark::from),
        };
        if stands.is_some_and(|stands| !stands.is_in(shown)) {
            transaction.roll_back().await?;
            return Err(history::other(dialect));
        }
        if cidr != plan.cluster().to_string() || prefix != i64::from(plan.node_prefix()) {
            transaction.roll_back().await?;
            return Err(StoreError::Gone);
        }
        let current = super::settings(vxlan_port, vni, node_timeout_ms)?;
        if current != settings {
            transaction.roll_back().await?;
            return Err(StoreError::OtherSettings {
                given: settings,
                current,
            });
        }
        Ok(Self {
            transaction,
            revision,
            revises: step > 0,
            changed: false,
            unheld: None,
            database: database.into(),
            mark: Mark::random(),
            held_until,
            server: Server(server),
        })
    }

    /// The revision that the change gets.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The server that makes it.
    pub fn server(&self) -> Server {
        self.server
    }

    /// Where the database stands when the change is made. `None`: the change raises no revision.
    pub fn position(&self) -> Option<Position> {
        self.revises.then(|| Position {
            database: Arc::clone(&self.database),
            revision: self.revision,
            mark: Some(self.mark),
        })
    }

    /// The stored nodes that have the claimed key or address, in the order of their ids.
    ///
    /// # Errors
    ///
    /// [`StoreError`], as for every method here.
    pub async fn claimants(&mut self, claim: &Claim<'_>) -> Result<Vec<Claimant>, StoreError> {
        let rows: Vec<(String, Option<String>, String, String, String, i64)> = sqlx::query_as(
            "SELECT node_id, node_key, hostname, host_ip, status, must_register FROM nodes \
             WHERE host_ip = $1 OR node_key = $2 OR node_id = $3 ORDER BY node_id",
        )
        .bind(claim.host_ip.to_string())
        .bind(claim.node_key)
        .bind(claim.node_id)
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
             status = 'up', must_register = 0, left_at = NULL, last_heartbeat = $7, revision = $8, overlay_mtu = $9 \
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

    /// Makes the change last, if there was any: when this returns, it is on the disk. `false`: there
    /// was nothing to change, and the revision is what it was.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. On SQLite the change then never was; a PostgreSQL server that fails in this
    /// moment may have made it.
    pub async fn finish(mut self) -> Result<bool, StoreError> {
        if !self.changed {
            self.transaction.roll_back().await?;
            return Ok(false);
        }
        if self.revises {
            history::write_mark(&mut self.transaction, self.revision, self.mark).await?;
        }
        if self.revises && self.transaction.dialect() == Dialect::Postgres {
            // Delivered when, and only if, this transaction is committed.
            sqlx::query("SELECT pg_notify($1, $2)")
                .bind(CHANGED_CHANNEL)
                .bind(self.revision.to_string())
                .execute(self.transaction.connection()?)
                .await?;
        }
        self.transaction.commit().await?;
        Ok(true)
    }
}

/// At most 2^40, see [`Registration`].
fn ram(registration: &Registration) -> Option<i64> {
    registration.ram_mb.and_then(|ram| i64::try_from(ram).ok())
}
