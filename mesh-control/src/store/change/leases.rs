//! Changes of leases and reservations.

use mesh_rest::node_id::NodeId;

use super::{Change, SubnetIndex};
use crate::cluster::next_subnet::{self, NeverUsed, Range};
use crate::cluster::subnet_plan::SubnetPlan;
use crate::store::{StoreError, subnet_index};

/// What is there to lease.
pub(super) struct Unheld {
    never_used: NeverUsed,
    /// What is reserved, or remembered as somebody's.
    not_to_lease: Vec<Range>,
}

/// How many nodes hold a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// All of them.
    pub total: i64,
    /// Those of them that are down.
    pub by_down_nodes: i64,
}

/// A range that an operator keeps from being handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The subnets.
    pub range: Range,
    /// The CIDR that the operator gave.
    pub cidr: String,
    /// What for, in the operator's words.
    pub reason: Option<String>,
}

impl Change {
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

    /// The subnet that is to be leased next; `None`: there is none. See [`Self::hold`] for whether it is to be leased now.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn next_subnet(
        &mut self,
        plan: &SubnetPlan,
    ) -> Result<Option<SubnetIndex>, StoreError> {
        let unheld = match self.unheld.take() {
            Some(unheld) => unheld,
            None => self.read_unheld().await?,
        };
        let mut next = next_subnet::next(plan, &unheld.never_used, &unheld.not_to_lease, None);
        if next.is_none() {
            let released = self.longest_released().await?;
            next = next_subnet::next(plan, &unheld.never_used, &unheld.not_to_lease, released);
        }
        self.unheld = Some(unheld);
        Ok(next)
    }

    async fn read_unheld(&mut self) -> Result<Unheld, StoreError> {
        let highest: Option<i64> = sqlx::query_scalar("SELECT MAX(subnet_index) FROM leases")
            .fetch_one(self.transaction.connection()?)
            .await?;
        let skipped = sqlx::query_as("SELECT first_index, last_index FROM skipped_ranges")
            .fetch_all(self.transaction.connection()?)
            .await?;
        let reserved = self.reservations().await?;
        let reserved = reserved.iter().map(|reserved| reserved.range);
        let remembered = self.remembered().await?.into_iter();
        let remembered = remembered.map(|subnet| Range {
            first: subnet,
            last: subnet,
        });
        Ok(Unheld {
            never_used: NeverUsed::new(
                highest.map(subnet_index).transpose()?,
                skipped.into_iter().map(range).collect::<Result<_, _>>()?,
            ),
            not_to_lease: reserved.chain(remembered).collect(),
        })
    }

    async fn longest_released(&mut self) -> Result<Option<SubnetIndex>, StoreError> {
        let number: Option<i64> = sqlx::query_scalar(
            "SELECT subnet_index FROM leases WHERE node_id IS NULL AND NOT EXISTS ( \
             SELECT 1 FROM reserved_ranges WHERE subnet_index BETWEEN first_index AND last_index) \
             AND NOT EXISTS (SELECT 1 FROM remembered_leases \
             WHERE remembered_leases.subnet_index = leases.subnet_index) \
             ORDER BY released_revision, subnet_index LIMIT 1",
        )
        .fetch_optional(self.transaction.connection()?)
        .await?;
        number.map(subnet_index).transpose()
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
        let mut unheld = match self.unheld.take() {
            Some(unheld) => unheld,
            None => self.read_unheld().await?,
        };
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
        self.changed = true;
        let skipped = unheld.never_used.take(subnet);
        self.unheld = Some(unheld);
        if let Some(first) = skipped.removed {
            sqlx::query("DELETE FROM skipped_ranges WHERE first_index = $1")
                .bind(i64::from(first.number()))
                .execute(self.transaction.connection()?)
                .await?;
        }
        for range in skipped.added {
            sqlx::query("INSERT INTO skipped_ranges (first_index, last_index) VALUES ($1, $2)")
                .bind(i64::from(range.first.number()))
                .bind(i64::from(range.last.number()))
                .execute(self.transaction.connection()?)
                .await?;
        }
        Ok(())
    }

    /// All reservations, ascending.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn reservations(&mut self) -> Result<Vec<Reservation>, StoreError> {
        let rows: Vec<(i64, i64, String, Option<String>)> = sqlx::query_as(
            "SELECT first_index, last_index, cidr, reason FROM reserved_ranges ORDER BY first_index",
        )
        .fetch_all(self.transaction.connection()?)
        .await?;
        rows.into_iter().map(reservation).collect()
    }

    /// Keeps a range from being handed out. What lies in it and is leased has to be released first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn reserve(
        &mut self,
        reservation: &Reservation,
        unix_seconds: i64,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO reserved_ranges (first_index, last_index, cidr, reason, reserved_at) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (first_index) DO UPDATE SET reason = $4",
        )
        .bind(i64::from(reservation.range.first.number()))
        .bind(i64::from(reservation.range.last.number()))
        .bind(&reservation.cidr)
        .bind(reservation.reason.as_deref())
        .bind(unix_seconds)
        .execute(self.transaction.connection()?)
        .await?;
        self.changed = true;
        self.unheld = None;
        Ok(())
    }

    /// Lets a reserved range be handed out again. `false`: there is no such reservation.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn unreserve(&mut self, cidr: &str) -> Result<bool, StoreError> {
        let deleted = sqlx::query("DELETE FROM reserved_ranges WHERE cidr = $1")
            .bind(cidr)
            .execute(self.transaction.connection()?)
            .await?;
        let deleted = deleted.rows_affected() > 0;
        self.changed |= deleted;
        self.unheld = None;
        Ok(deleted)
    }
}

pub(in crate::store) fn range((first, last): (i64, i64)) -> Result<Range, StoreError> {
    Ok(Range {
        first: subnet_index(first)?,
        last: subnet_index(last)?,
    })
}

pub(in crate::store) fn reservation(
    (first, last, cidr, reason): (i64, i64, String, Option<String>),
) -> Result<Reservation, StoreError> {
    Ok(Reservation {
        range: range((first, last))?,
        cidr,
        reason,
    })
}
