//! The history of the database: the marks of its revisions, and what is done when it turns out to be another one.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_rest::node_id::NodeId;
use sqlx::AssertSqlSafe;

use super::change::rows::Places;
use super::reports::NOW;
use super::transaction::{Dialect, Transaction};
use super::{Home, OpenError, Store, StoreError, schema};
use crate::cluster::history::{Mark, Position, Shown};
use crate::cluster::subnet_plan::SubnetIndex;

/// How many revisions' marks are kept, at least. Who is further behind reads everything again.
const MARKS_KEPT: i64 = 10_000;

/// How many more there may be before those beyond are dropped.
const MORE_MARKS: i64 = 128;

/// How long no subnet is leased anew after a replica found that the database went back: so long the others have for
/// finding it as well, and for saying what they remember.
const HOLD: Duration = Duration::from_secs(10);

/// How long a subnet is kept for a node that a replica remembers.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How many leases are written with one statement.
const MOST_IN_STATEMENT: usize = 256;

/// A lease that a replica remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedLease {
    /// Who holds it.
    pub node_id: NodeId,
    /// Its key, if it registered with one.
    pub node_key: Option<String>,
    /// Its hostname.
    pub hostname: String,
    /// Its underlay address.
    pub host_ip: Ipv4Addr,
    /// The subnet.
    pub subnet: SubnetIndex,
    /// Whether the node is known by a certificate, also one that was revoked.
    pub has_credentials: bool,
}

/// What became of [`Store::begin_anew`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The leases that the database did not know.
    pub unknown: Vec<RememberedLease>,
    /// How long no subnet is leased anew.
    pub hold: Duration,
}

impl Store {
    /// Says to all replicas that the history of the database is another one than before, and which leases this one
    /// remembers: those that the database does not know are kept for their nodes. The first that finds out gives the
    /// database another id, so that whoever has a copy of the list fetches all of it. `None`: it is the same history
    /// after all, as when a standby was read that has not caught up.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing is said then.
    pub async fn begin_anew(
        &self,
        stood: &Position,
        remembered: Vec<RememberedLease>,
    ) -> Result<Option<Begun>, StoreError> {
        if !self.is_shared() {
            return Err(StoreError::Gone);
        }
        let mut transaction = Transaction::writing(&self.pool, Dialect::Postgres).await?;
        // The lock, and the clock after it.
        let row: Option<(String, i64, i64)> = sqlx::query_as(
            "UPDATE cluster SET revision = revision WHERE id = 1 \
             RETURNING database_id, revision, held_until",
        )
        .fetch_optional(transaction.connection()?)
        .await?;
        let Some((database, revision, held_until)) = row else {
            return Err(emptied(Dialect::Postgres));
        };
        let shown = Shown {
            database: &database,
            revision,
            mark: mark(&mut transaction, stood.revision).await?,
        };
        if stood.is_in(shown) {
            transaction.roll_back().await?;
            return Ok(None);
        }
        let now = now(&mut transaction).await?;
        let others_found_out = database != *stood.database && held_until > now;
        let database = match others_found_out {
            true => database,
            false => uuid::Uuid::new_v4().to_string(),
        };
        sqlx::query("UPDATE cluster SET database_id = $1, held_until = $2 WHERE id = 1")
            .bind(database)
            .bind(now.saturating_add(milliseconds(HOLD)))
            .execute(transaction.connection()?)
            .await?;
        let unknown = unknown(&mut transaction, remembered).await?;
        let until = now.saturating_add(milliseconds(REMEMBERED_FOR));
        for some in unknown.chunks(MOST_IN_STATEMENT) {
            keep(&mut transaction, some, until).await?;
        }
        transaction.commit().await?;
        Ok(Some(Begun {
            unknown,
            hold: HOLD,
        }))
    }

    /// Makes the tables again in a database that is empty now; where another replica has made them, there is nothing to
    /// do.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub async fn make_tables(&self) -> Result<(), OpenError> {
        if let Home::File(_) = self.home {
            return Err(OpenError::store(&self.name, StoreError::Gone));
        }
        let expected = (&self.plan, self.settings);
        schema::prepare(&self.pool, Dialect::Postgres, expected, &self.name).await
    }
}

/// What a database is without its one row. In a file nobody else has any business.
pub(super) fn emptied(dialect: Dialect) -> StoreError {
    match dialect {
        Dialect::Sqlite => StoreError::Gone,
        Dialect::Postgres => {
            StoreError::Emptied("it does not say which cluster it is of".to_owned())
        }
    }
}

/// What a database is that has another history than what was read.
pub(super) fn other(dialect: Dialect) -> StoreError {
    match dialect {
        Dialect::Sqlite => StoreError::Gone,
        Dialect::Postgres => StoreError::OtherHistory,
    }
}

/// The mark of a revision, if that is there and its mark is still kept.
pub(super) async fn mark(
    transaction: &mut Transaction,
    revision: i64,
) -> Result<Option<Mark>, StoreError> {
    let number: Option<i64> = sqlx::query_scalar("SELECT mark FROM history WHERE revision = $1")
        .bind(revision)
        .fetch_optional(transaction.connection()?)
        .await?;
    Ok(number.map(Mark::from))
}

/// Marks a revision, unless it has a mark, and drops those that are not kept any more.
pub(super) async fn write_mark(
    transaction: &mut Transaction,
    revision: i64,
    mark: Mark,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO history (revision, mark) VALUES ($1, $2) ON CONFLICT (revision) DO NOTHING",
    )
    .bind(revision)
    .bind(mark.number())
    .execute(transaction.connection()?)
    .await?;
    if revision % MORE_MARKS == 0 {
        sqlx::query("DELETE FROM history WHERE revision <= $1")
            .bind(revision - MARKS_KEPT)
            .execute(transaction.connection()?)
            .await?;
    }
    Ok(())
}

/// Milliseconds since 1970 by the clock of PostgreSQL.
pub(super) async fn now(transaction: &mut Transaction) -> Result<i64, StoreError> {
    let now = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {NOW}")))
        .fetch_one(transaction.connection()?)
        .await?;
    Ok(now)
}

pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// How long it is until then; never longer than the hold, whatever somebody does to the clock.
pub(super) fn rest_of_hold(held_until: i64, now: i64) -> Option<Duration> {
    let rest = u64::try_from(held_until.saturating_sub(now)).ok()?;
    (rest > 0).then(|| Duration::from_millis(rest).min(HOLD))
}

/// Those whose subnet nobody leases.
async fn unknown(
    transaction: &mut Transaction,
    remembered: Vec<RememberedLease>,
) -> Result<Vec<RememberedLease>, StoreError> {
    let leased: Vec<(i64, String)> =
        sqlx::query_as("SELECT subnet_index, node_id FROM leases WHERE node_id IS NOT NULL")
            .fetch_all(transaction.connection()?)
            .await?;
    let leased: HashMap<i64, String> = leased.into_iter().collect();
    let mut unknown: Vec<_> = remembered
        .into_iter()
        .filter(|lease| {
            let holder = leased.get(&i64::from(lease.subnet.number()));
            holder.is_none_or(|holder| holder != lease.node_id.as_str())
        })
        .collect();
    unknown.sort_unstable_by_key(|lease| lease.subnet);
    Ok(unknown)
}

async fn keep(
    transaction: &mut Transaction,
    leases: &[RememberedLease],
    until: i64,
) -> Result<(), StoreError> {
    let types = [
        "INTEGER", "TEXT", "TEXT", "TEXT", "TEXT", "INTEGER", "BIGINT",
    ];
    let rows = Places::Numbered(1).rows(leases.len(), &types);
    let mut query = sqlx::query(AssertSqlSafe(format!(
        "INSERT INTO remembered_leases (subnet_index, node_id, node_key, hostname, host_ip, has_credentials, until) \
         VALUES {rows} ON CONFLICT (subnet_index, node_id) DO UPDATE SET until = excluded.until, \
         has_credentials = GREATEST(remembered_leases.has_credentials, excluded.has_credentials)"
    )))
    .persistent(false);
    for lease in leases {
        query = query
            .bind(i64::from(lease.subnet.number()))
            .bind(lease.node_id.as_str())
            .bind(lease.node_key.as_deref())
            .bind(&lease.hostname)
            .bind(lease.host_ip.to_string())
            .bind(i64::from(lease.has_credentials))
            .bind(until);
    }
    query.execute(transaction.connection()?).await?;
    Ok(())
}
