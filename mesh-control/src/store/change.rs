//! Changes of nodes: one transaction for as many as come together.

use std::sync::Arc;

use sqlx::{AnyPool, AssertSqlSafe};

use super::transaction::{Dialect, Transaction};
use super::{CredentialsBefore, Server, StoreError, history};
use crate::cluster::history::{Mark, Position, Shown};
use crate::cluster::settings::Settings;
use crate::cluster::subnet_plan::{SubnetIndex, SubnetPlan};

mod leases;
mod liveness;
mod nodes;
mod remembered;
mod removals;
mod reports;
pub(super) mod rows;

use leases::Unheld;
pub(super) use leases::reservation;
pub use leases::{Held, Reservation};
pub use nodes::NewState;
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
    credentials_revision: i64,
    server: Server,
}

/// What the database has to be when a change begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) plan: &'a SubnetPlan,
    pub(super) settings: Settings,
    pub(super) stands: Option<&'a Position>,
}

/// Revision, id of the database, plan, settings, end of the hold, the revision of credentials, the mark of the revision that whoever makes the
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
    i64,
    Option<i64>,
    i64,
);

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
             held_until, credentials_revision, (SELECT mark FROM history WHERE history.revision = $2), {}",
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
            credentials_revision,
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
            credentials_revision,
            server: Server(server),
        })
    }

    /// The revision that the change gets.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Credentials, which nobody changes until this change ends.
    pub fn credentials_before(&mut self) -> CredentialsBefore<'_> {
        CredentialsBefore {
            transaction: &mut self.transaction,
            revision: self.credentials_revision,
            raised_by: 0,
        }
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

/// Whether the node in this column was not revoked, maybe at another replica since it told what is to be written.
fn not_revoked(dialect: Dialect, node_id: &str) -> String {
    let revoked =
        "SELECT node_credentials.node_id FROM node_credentials WHERE revoked_at IS NOT NULL";
    match dialect {
        // Gathers them once for a statement: a few of thousands, by an index of these alone.
        Dialect::Sqlite => format!("{node_id} NOT IN ({revoked})"),
        // Plans it as a join, however many there are.
        Dialect::Postgres => {
            format!("NOT EXISTS ({revoked} AND node_credentials.node_id = {node_id})")
        }
    }
}
