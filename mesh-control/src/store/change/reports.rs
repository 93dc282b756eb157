//! Writing what nodes told, see [`crate::store::StoredReports`].

use std::collections::HashSet;
use std::time::Instant;

use mesh_rest::node_id::NodeId;
use sqlx::AssertSqlSafe;

use super::Change;
use super::not_revoked;
use super::rows::Places;
use crate::store::StoreError;
use crate::store::reports::NOW;
use crate::traffic::packed::Packed;

/// A report to write.
#[derive(Debug)]
pub struct NewReport {
    /// The node.
    pub node_id: NodeId,
    /// When it told this.
    pub received: Instant,
    /// How many flows it has.
    pub flow_count: usize,
    /// How many there was no room for.
    pub left_out: usize,
    /// What it told.
    pub packed: Packed,
}

/// Whether a report takes the place of the one that is there: if it is newer. One that is stored as of a time that
/// is yet to come is of before the clock was set back, and older than any that comes now. $1 is now.
const IS_NEWER: &str =
    "(reports.reported_at <= new.reported_at OR reports.reported_at > CAST($1 AS BIGINT))";

/// The database's clock beside this process's monotonic one.
#[derive(Clone, Copy)]
struct Clock {
    now: i64,
    read: Instant,
}

impl Clock {
    /// When a report came, by the database's clock. Never later than it was, so that what a replica writes that
    /// was held up is not taken for newer than it is; and earlier by no more than reading the clock took.
    fn at(self, received: Instant) -> i64 {
        let ago = self.read.saturating_duration_since(received).as_millis();
        self.now
            .saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX))
    }
}

impl Change {
    /// Writes reports, each unless there is a newer one of its node, or the node has to register again or was revoked. A
    /// node must not be there twice.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn write_reports(&mut self, reports: &[NewReport]) -> Result<(), StoreError> {
        if reports.is_empty() {
            return Ok(());
        }
        let now = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {NOW}")))
            .fetch_one(self.transaction.connection()?)
            .await?;
        let clock = Clock {
            now,
            read: Instant::now(),
        };
        let known = self.tell_again(reports, clock).await?;
        let new: Vec<_> = reports
            .iter()
            .filter(|report| !known.contains(report.node_id.as_str()))
            .collect();
        if !new.is_empty() {
            self.tell_anew(&new, clock).await?;
        }
        self.changed = true;
        Ok(())
    }

    /// Takes note of who tells the same as before, and returns those.
    async fn tell_again(
        &mut self,
        reports: &[NewReport],
        clock: Clock,
    ) -> Result<HashSet<String>, StoreError> {
        let rows = Places::Numbered(2).rows(reports.len(), &["TEXT", "BIGINT", "BIGINT"]);
        // As many statements as there are numbers of rows: none is worth keeping.
        let mut query = sqlx::query_scalar(AssertSqlSafe(format!(
            "UPDATE reports SET reported_at = new.reported_at \
             FROM (VALUES {rows}) AS new (node_id, reported_at, digest) \
             WHERE reports.node_id = new.node_id AND reports.digest = new.digest AND {IS_NEWER} \
             AND {} RETURNING reports.node_id",
            not_revoked(self.transaction.dialect(), "new.node_id")
        )))
        .persistent(false)
        .bind(clock.now);
        for report in reports {
            query = query
                .bind(report.node_id.as_str())
                .bind(clock.at(report.received))
                .bind(report.packed.digest);
        }
        let known: Vec<String> = query.fetch_all(self.transaction.connection()?).await?;
        Ok(known.into_iter().collect())
    }

    async fn tell_anew(&mut self, reports: &[&NewReport], clock: Clock) -> Result<(), StoreError> {
        let rows = Places::Numbered(2).rows(
            reports.len(),
            &[
                "TEXT", "BIGINT", "BIGINT", "TEXT", "BIGINT", "BIGINT", "BYTEA",
            ],
        );
        let mut query = sqlx::query(AssertSqlSafe(format!(
            "INSERT INTO reports \
             (node_id, reported_at, counted_at, digest, data_plane, flow_count, left_out, flows) \
             SELECT node_id, reported_at, reported_at, digest, data_plane, flow_count, left_out, flows \
             FROM (VALUES {rows}) AS told \
             (node_id, reported_at, digest, data_plane, flow_count, left_out, flows) \
             JOIN nodes USING (node_id) WHERE must_register = 0 AND {} \
             ON CONFLICT (node_id) DO UPDATE SET reported_at = excluded.reported_at, \
             counted_at = excluded.counted_at, digest = excluded.digest, data_plane = excluded.data_plane, \
             flow_count = excluded.flow_count, left_out = excluded.left_out, flows = excluded.flows \
             WHERE {}",
            not_revoked(self.transaction.dialect(), "told.node_id"),
            IS_NEWER.replace("new.", "excluded.")
        )))
        .persistent(false)
        .bind(clock.now);
        for report in reports {
            query = query
                .bind(report.node_id.as_str())
                .bind(clock.at(report.received))
                .bind(report.packed.digest)
                .bind(report.packed.data_plane.as_deref())
                .bind(count(report.flow_count))
                .bind(count(report.left_out))
                .bind(report.packed.flows.as_slice());
        }
        query.execute(self.transaction.connection()?).await?;
        Ok(())
    }

    /// Forgets what a node told that leaves.
    pub(super) async fn forget_report(&mut self, node_id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM reports WHERE node_id = $1")
            .bind(node_id)
            .execute(self.transaction.connection()?)
            .await?;
        Ok(())
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
