//! Who is up, and since when.

use mesh_rest::node_id::NodeId;
use mesh_rest::status::Status;
use sqlx::AssertSqlSafe;

use super::Change;
use super::not_revoked;
use super::rows::Places;
use crate::cluster::liveness::Unwritten;
use crate::store::StoreError;

impl Change {
    /// Writes what heartbeats, or their absence, changed. All in one statement: a batch holds the lock that
    /// registrations wait for, and on a busy machine most of the time of a small statement is waiting for a
    /// processor. Of a node that was revoked meanwhile nothing is written, but that it is down.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn write_liveness(&mut self, unwritten: &[Unwritten]) -> Result<(), StoreError> {
        if unwritten.is_empty() {
            return Ok(());
        }
        let dialect = self.transaction.dialect();
        let mut places = Places::in_order(dialect);
        let revision = places.take();
        // Both databases call the columns of VALUES so.
        let rows = places.rows(
            unwritten.len(),
            &["TEXT", "BIGINT", "TEXT", "BIGINT", "TEXT"],
        );
        let mut query = sqlx::query(AssertSqlSafe(format!(
            "UPDATE nodes SET last_heartbeat = column2, status = COALESCE(column3, status), \
             overlay_mtu = COALESCE(column4, overlay_mtu), succession = COALESCE(column5, succession), \
             revision = CASE WHEN column3 IS NULL \
             AND COALESCE(column4, overlay_mtu) IS NOT DISTINCT FROM overlay_mtu THEN revision ELSE {revision} END \
             FROM (VALUES {rows}) AS unwritten WHERE nodes.node_id = column1 AND must_register = 0 \
             AND (column3 = 'down' OR {})",
            not_revoked(dialect, "column1")
        )))
        .persistent(false)
        .bind(self.revision);
        for entry in unwritten {
            query = query
                .bind(entry.node_id.as_str())
                .bind(entry.last_heartbeat)
                .bind(entry.status.map(Status::as_str))
                .bind(entry.overlay_mtu.map(i64::from))
                .bind(entry.succession.as_deref());
        }
        query.execute(self.transaction.connection()?).await?;
        self.changed = true;
        Ok(())
    }

    /// Writes a node's tokens, in a change that brings others to read them.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn write_succession(
        &mut self,
        node_id: &NodeId,
        succession: Option<&str>,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE nodes SET succession = COALESCE($2, succession) WHERE node_id = $1")
            .bind(node_id.as_str())
            .bind(succession)
            .execute(self.transaction.connection()?)
            .await?;
        Ok(())
    }

    /// Turns nodes down that are up.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn turn_down(&mut self, silent: &[NodeId]) -> Result<(), StoreError> {
        for node_id in silent {
            let changed = sqlx::query(
                "UPDATE nodes SET status = 'down', revision = $2 \
                 WHERE node_id = $1 AND status = 'up'",
            )
            .bind(node_id.as_str())
            .bind(self.revision)
            .execute(self.transaction.connection()?)
            .await?;
            self.changed |= changed.rows_affected() > 0;
        }
        Ok(())
    }
}
