//! What nodes told with their heartbeats, for all replicas to show.
//!
//! On PostgreSQL only, and in its words: the times are by its clock, the one that all replicas share. A replica
//! says how long ago a report came, by its own monotonic clock, and the database what time that was.

use std::collections::HashMap;

use mesh_rest::heartbeat::DataPlane;
use mesh_rest::node_id::NodeId;
use sqlx::AssertSqlSafe;

use super::{Store, StoreError};
use crate::traffic::matrix::Peers;
use crate::traffic::packed;

/// Milliseconds since 1970 by the database's clock, of this moment and not of the start of the transaction, which
/// may have waited for its lock since.
pub(super) const NOW: &str = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";

/// A report that is stored, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredReport {
    /// Milliseconds since 1970 by the database's clock.
    pub reported_at: i64,
    /// How many flows it has.
    pub flow_count: usize,
    /// How many there was no room for.
    pub left_out: usize,
}

/// All reports that are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReports {
    /// Milliseconds since 1970 by the database's clock.
    pub now: i64,
    /// The reports.
    pub reports: HashMap<NodeId, StoredReport>,
}

impl Store {
    /// Reads which reports there are.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database does not answer.
    pub async fn reports(&self) -> Result<StoredReports, StoreError> {
        let _turn = self.beside.report().await;
        let rows: Vec<(String, i64, i64, i64)> =
            sqlx::query_as("SELECT node_id, reported_at, flow_count, left_out FROM reports")
                .fetch_all(&self.pool)
                .await?;
        // Later than the reports, so that none is of a time to come.
        let now = sqlx::query_scalar(AssertSqlSafe(format!("SELECT {NOW}")))
            .fetch_one(&self.pool)
            .await?;
        let size = |number: i64| usize::try_from(number).unwrap_or_default();
        let reports = rows
            .into_iter()
            .map(|(node_id, reported_at, flow_count, left_out)| {
                let report = StoredReport {
                    reported_at,
                    flow_count: size(flow_count),
                    left_out: size(left_out),
                };
                (NodeId::from(node_id), report)
            })
            .collect();
        Ok(StoredReports { now, reports })
    }

    /// Reads what these nodes told of their data planes.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database does not answer.
    pub async fn data_planes(
        &self,
        of: &[&NodeId],
    ) -> Result<HashMap<NodeId, DataPlane>, StoreError> {
        let _turn = self.beside.report().await;
        let mut query = sqlx::query_as(AssertSqlSafe(format!(
            "SELECT node_id, data_plane FROM reports WHERE data_plane IS NOT NULL AND node_id IN ({})",
            places(of.len())
        )))
        .persistent(false);
        for node_id in of {
            query = query.bind(node_id.as_str());
        }
        let rows: Vec<(String, String)> = query.fetch_all(&self.pool).await?;
        Ok(rows
            .into_iter()
            .filter_map(|(node_id, json)| Some((node_id.into(), packed::data_plane(&json)?)))
            .collect())
    }

    /// Reads what these nodes told of their traffic.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database does not answer.
    pub async fn flows(&self, of: &[&NodeId]) -> Result<HashMap<NodeId, Peers>, StoreError> {
        let _turn = self.beside.report().await;
        let mut query = sqlx::query_as(AssertSqlSafe(format!(
            "SELECT node_id, flows, reported_at - counted_at FROM reports WHERE node_id IN ({})",
            places(of.len())
        )))
        .persistent(false);
        for node_id in of {
            query = query.bind(node_id.as_str());
        }
        let rows: Vec<(String, Vec<u8>, i64)> = query.fetch_all(&self.pool).await?;
        Ok(rows
            .into_iter()
            .map(|(node_id, flows, later)| {
                let later = u64::try_from(later).unwrap_or_default();
                (node_id.into(), packed::unpack(&flows, later))
            })
            .collect())
    }
}

/// `$1, $2, …`, so many of them.
fn places(count: usize) -> String {
    let places: Vec<_> = (1..=count).map(|n| format!("${n}")).collect();
    places.join(", ")
}
