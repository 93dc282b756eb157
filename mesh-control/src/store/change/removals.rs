//! The end of a lease: its node is removed, and who knew it is told.

use mesh_rest::node_id::NodeId;
use mesh_rest::status::Status;

use super::Change;
use crate::cluster::next_subnet::Range;
use crate::cluster::subnet_plan::SubnetIndex;
use crate::store::{StoreError, status, subnet_index};

/// How many removals are remembered for the change feed. Who was away for more than so many is told
/// the whole list.
const MOST_REMEMBERED: i64 = 10_000;

/// Who leases a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The node.
    pub node_id: NodeId,
    /// Its hostname.
    pub hostname: String,
    /// Whether it is up.
    pub up: bool,
    /// The subnet.
    pub subnet: SubnetIndex,
}

impl Change {
    /// The node with the lowest leased subnet of a range.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn tenant(&mut self, range: Range) -> Result<Option<Tenant>, StoreError> {
        let row: Option<(String, String, String, i64)> = sqlx::query_as(
            "SELECT node_id, hostname, status, subnet_index FROM leases JOIN nodes USING (node_id) \
             WHERE subnet_index BETWEEN $1 AND $2 ORDER BY subnet_index LIMIT 1",
        )
        .bind(i64::from(range.first.number()))
        .bind(i64::from(range.last.number()))
        .fetch_optional(self.transaction.connection()?)
        .await?;
        row.map(|(node_id, hostname, word, number)| {
            Ok(Tenant {
                node_id: NodeId::from(node_id),
                hostname,
                up: status(&word) == Status::Up,
                subnet: subnet_index(number)?,
            })
        })
        .transpose()
    }

    /// At most `most` nodes that left before a moment, in Unix seconds, the longest gone first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn departed(&mut self, before: i64, most: usize) -> Result<Vec<Tenant>, StoreError> {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT node_id, hostname, subnet_index FROM leases JOIN nodes USING (node_id) \
             WHERE left_at < $1 ORDER BY left_at, node_id LIMIT $2",
        )
        .bind(before)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(self.transaction.connection()?)
        .await?;
        let tenant = |(node_id, hostname, number)| {
            Ok(Tenant {
                node_id: NodeId::from(node_id),
                hostname,
                up: false,
                subnet: subnet_index(number)?,
            })
        };
        rows.into_iter().map(tenant).collect()
    }

    /// Whether a subnet was leased once and is released.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn is_released(&mut self, subnet: SubnetIndex) -> Result<bool, StoreError> {
        let found: Option<i64> =
            sqlx::query_scalar("SELECT 1 FROM leases WHERE subnet_index = $1 AND node_id IS NULL")
                .bind(i64::from(subnet.number()))
                .fetch_optional(self.transaction.connection()?)
                .await?;
        Ok(found.is_some())
    }

    /// Ends a lease and removes its node.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn release(&mut self, tenant: &Tenant) -> Result<(), StoreError> {
        sqlx::query("UPDATE leases SET node_id = NULL, released_revision = $2 WHERE node_id = $1")
            .bind(tenant.node_id.as_str())
            .bind(self.revision)
            .execute(self.transaction.connection()?)
            .await?;
        sqlx::query("DELETE FROM nodes WHERE node_id = $1")
            .bind(tenant.node_id.as_str())
            .execute(self.transaction.connection()?)
            .await?;
        sqlx::query("INSERT INTO removed_nodes (node_id, revision) VALUES ($1, $2)")
            .bind(tenant.node_id.as_str())
            .bind(self.revision)
            .execute(self.transaction.connection()?)
            .await?;
        self.changed = true;
        self.forget_old_removals().await
    }

    async fn forget_old_removals(&mut self) -> Result<(), StoreError> {
        let oldest: Option<i64> = sqlx::query_scalar(
            "SELECT revision FROM removed_nodes ORDER BY revision DESC LIMIT 1 OFFSET $1",
        )
        .bind(MOST_REMEMBERED)
        .fetch_optional(self.transaction.connection()?)
        .await?;
        let Some(revision) = oldest else {
            return Ok(());
        };
        sqlx::query("DELETE FROM removed_nodes WHERE revision <= $1")
            .bind(revision)
            .execute(self.transaction.connection()?)
            .await?;
        sqlx::query("UPDATE cluster SET forgotten_revision = $1 WHERE id = 1")
            .bind(revision)
            .execute(self.transaction.connection()?)
            .await?;
        Ok(())
    }
}
