//! What operators see of the leases.

use mesh_rest::node_id::NodeId;
use mesh_rest::status::Status;

use super::change::Reservation;
use super::{Store, StoreError, Transaction, status, subnet_index};
use crate::cluster::subnet_plan::SubnetIndex;

/// A subnet that was handed out at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLease {
    /// The subnet.
    pub subnet: SubnetIndex,
    /// Who leases it, with its hostname and status; `None`: it was released.
    pub node: Option<(NodeId, String, Status)>,
    /// Unix seconds at which it was leased last.
    pub leased_at: i64,
}

/// All leases and reservations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnets {
    /// The leases, by subnet.
    pub leases: Vec<StoredLease>,
    /// The reservations, by subnet.
    pub reservations: Vec<Reservation>,
}

type LeaseRow = (i64, i64, Option<String>, Option<String>, Option<String>);

impl Store {
    /// Reads all leases and reservations.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database does not answer or holds what cannot be.
    pub async fn subnets(&self) -> Result<Subnets, StoreError> {
        let _turn = self.beside.look().await;
        let mut transaction = Transaction::reading(&self.pool, self.dialect()).await?;
        let leases: Vec<LeaseRow> = sqlx::query_as(
            "SELECT subnet_index, leased_at, nodes.node_id, hostname, status \
             FROM leases LEFT JOIN nodes ON nodes.node_id = leases.node_id ORDER BY subnet_index",
        )
        .fetch_all(transaction.connection()?)
        .await?;
        let reservations: Vec<_> = sqlx::query_as(
            "SELECT first_index, last_index, cidr, reason FROM reserved_ranges ORDER BY first_index",
        )
        .fetch_all(transaction.connection()?)
        .await?;
        transaction.roll_back().await?;
        let leases = leases
            .into_iter()
            .map(|(number, leased_at, node_id, hostname, word)| {
                let node = match (node_id, hostname, word) {
                    (Some(node_id), Some(hostname), Some(word)) => {
                        Some((NodeId::from(node_id), hostname, status(&word)))
                    }
                    _ => None,
                };
                Ok(StoredLease {
                    subnet: subnet_index(number)?,
                    node,
                    leased_at,
                })
            })
            .collect::<Result<_, StoreError>>()?;
        let reservations = reservations
            .into_iter()
            .map(super::change::reservation)
            .collect::<Result<_, _>>()?;
        Ok(Subnets {
            leases,
            reservations,
        })
    }
}
