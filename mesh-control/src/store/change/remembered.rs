//! Leases that a replica remembers and the database, which went back, does not know: [`Store::begin_anew`].
//!
//! [`Store::begin_anew`]: crate::store::Store::begin_anew

use std::time::Duration;

use mesh_rest::node_id::NodeId;
use sqlx::AssertSqlSafe;

use super::{Change, SubnetIndex};
use crate::cluster::identity::Claim;
use crate::store::history::{now, rest_of_hold};
use crate::store::reports::NOW;
use crate::store::{StoreError, Tenant, subnet_index};

/// Whether a row of `remembered_leases` is this claimant's: $1 is its key, $2 its address, $3 the node that its
/// certificate is for. Who shows one has what that node had, and what a node with credentials had is nobody else's. As
/// for nodes, the address tells only where there are no two keys to compare.
const IS_CLAIMANTS: &str = "CASE WHEN CAST($3 AS TEXT) IS NOT NULL THEN node_id = $3 \
                            WHEN has_credentials = 1 THEN FALSE \
                            WHEN node_key IS NULL OR CAST($1 AS TEXT) IS NULL \
                            THEN host_ip = $2 ELSE node_key = $1 END";

impl Change {
    /// How long no subnet is leased anew, because the database went back a moment ago.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn hold(&mut self) -> Result<Option<Duration>, StoreError> {
        if !self.went_back_once() {
            return Ok(None);
        }
        let now = now(&mut self.transaction).await?;
        Ok(rest_of_hold(self.held_until, now))
    }

    /// Whether there may be anything to remember. Never in a file, which has no replicas.
    fn went_back_once(&self) -> bool {
        self.held_until > 0
    }

    /// The subnet that is remembered as this claimant's, and that nobody leases and nobody reserved.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn remembered_of(
        &mut self,
        claim: &Claim<'_>,
    ) -> Result<Option<SubnetIndex>, StoreError> {
        if !self.went_back_once() {
            return Ok(None);
        }
        let number: Option<i64> = sqlx::query_scalar(AssertSqlSafe(format!(
            "SELECT CAST(subnet_index AS BIGINT) FROM remembered_leases \
             WHERE until > {NOW} AND {IS_CLAIMANTS} \
             AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.node_id IS NOT NULL \
             AND leases.subnet_index = remembered_leases.subnet_index) \
             AND NOT EXISTS (SELECT 1 FROM reserved_ranges \
             WHERE subnet_index BETWEEN first_index AND last_index) \
             ORDER BY until DESC, subnet_index LIMIT 1"
        )))
        .bind(claim.node_key)
        .bind(claim.host_ip.to_string())
        .bind(claim.node_id)
        .fetch_optional(self.transaction.connection()?)
        .await?;
        number.map(subnet_index).transpose()
    }

    /// Who is remembered as the holder of a subnet that this claimant is not known to hold.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn remembered_as_anothers(
        &mut self,
        subnet: SubnetIndex,
        claim: &Claim<'_>,
    ) -> Result<Option<Tenant>, StoreError> {
        if !self.went_back_once() {
            return Ok(None);
        }
        let rows: Vec<(String, String, bool)> = sqlx::query_as(AssertSqlSafe(format!(
            "SELECT node_id, hostname, {IS_CLAIMANTS} FROM remembered_leases \
             WHERE until > {NOW} AND subnet_index = $4 ORDER BY node_id"
        )))
        .bind(claim.node_key)
        .bind(claim.host_ip.to_string())
        .bind(claim.node_id)
        .bind(i64::from(subnet.number()))
        .fetch_all(self.transaction.connection()?)
        .await?;
        if rows.iter().any(|(_, _, is_claimants)| *is_claimants) {
            return Ok(None);
        }
        let holder = rows.into_iter().next();
        Ok(holder.map(|(node_id, hostname, _)| Tenant {
            node_id: NodeId::from(node_id),
            hostname,
            up: false,
            subnet,
        }))
    }

    /// Who is remembered at the claimed address, has credentials, and is not this claimant.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn remembered_at(&mut self, claim: &Claim<'_>) -> Result<Option<Tenant>, StoreError> {
        if !self.went_back_once() {
            return Ok(None);
        }
        let row: Option<(String, String, i64)> = sqlx::query_as(AssertSqlSafe(format!(
            "SELECT node_id, hostname, CAST(subnet_index AS BIGINT) FROM remembered_leases \
             WHERE until > {NOW} AND has_credentials = 1 AND host_ip = $2 AND NOT {IS_CLAIMANTS} \
             ORDER BY node_id LIMIT 1"
        )))
        .bind(claim.node_key)
        .bind(claim.host_ip.to_string())
        .bind(claim.node_id)
        .fetch_optional(self.transaction.connection()?)
        .await?;
        let tenant = |(node_id, hostname, number)| {
            Ok(Tenant {
                node_id: NodeId::from(node_id),
                hostname,
                up: false,
                subnet: subnet_index(number)?,
            })
        };
        row.map(tenant).transpose()
    }

    /// The subnets that are remembered as somebody's, ascending; forgets those whose time is over.
    pub(super) async fn remembered(&mut self) -> Result<Vec<SubnetIndex>, StoreError> {
        if !self.went_back_once() {
            return Ok(Vec::new());
        }
        sqlx::query(AssertSqlSafe(format!(
            "DELETE FROM remembered_leases WHERE until <= {NOW}"
        )))
        .execute(self.transaction.connection()?)
        .await?;
        let numbers: Vec<i64> = sqlx::query_scalar(
            "SELECT DISTINCT CAST(subnet_index AS BIGINT) FROM remembered_leases ORDER BY 1",
        )
        .fetch_all(self.transaction.connection()?)
        .await?;
        numbers.into_iter().map(subnet_index).collect()
    }

    /// Forgets what is remembered of a node that has a lease again.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn forget_remembered_of(&mut self, claim: &Claim<'_>) -> Result<(), StoreError> {
        if !self.went_back_once() {
            return Ok(());
        }
        let forgotten = sqlx::query(AssertSqlSafe(format!(
            "DELETE FROM remembered_leases WHERE {IS_CLAIMANTS}"
        )))
        .bind(claim.node_key)
        .bind(claim.host_ip.to_string())
        .bind(claim.node_id)
        .execute(self.transaction.connection()?)
        .await?;
        if forgotten.rows_affected() > 0 {
            self.changed = true;
            self.unheld = None;
        }
        Ok(())
    }

    /// Lets a subnet be leased that is remembered as somebody's. `false`: it is not.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn release_remembered(&mut self, subnet: SubnetIndex) -> Result<bool, StoreError> {
        let forgotten = sqlx::query("DELETE FROM remembered_leases WHERE subnet_index = $1")
            .bind(i64::from(subnet.number()))
            .execute(self.transaction.connection()?)
            .await?;
        let forgotten = forgotten.rows_affected() > 0;
        if forgotten {
            self.changed = true;
            self.unheld = None;
        }
        Ok(forgotten)
    }
}
