//! What of the database is measured.

use super::transaction::Dialect;
use super::{Store, StoreError, Transaction};

/// What of the database is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseCounts {
    /// Subnets that somebody leases.
    pub leased: u64,
    /// Subnets that are reserved.
    pub reserved: u64,
    /// What the database takes, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Counts, without reading any rows into memory.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database does not answer.
    pub async fn counts(&self) -> Result<DatabaseCounts, StoreError> {
        let _turn = self.beside.look().await;
        let mut transaction = Transaction::reading(&self.pool, self.dialect()).await?;
        let leased: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM leases WHERE node_id IS NOT NULL")
                .fetch_one(transaction.connection()?)
                .await?;
        let reserved: i64 = sqlx::query_scalar(
            "SELECT CAST(COALESCE(SUM(last_index - first_index + 1), 0) AS BIGINT) FROM reserved_ranges",
        )
        .fetch_one(transaction.connection()?)
        .await?;
        let bytes: i64 = sqlx::query_scalar(match self.dialect() {
            Dialect::Sqlite => {
                "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            }
            Dialect::Postgres => "SELECT pg_database_size(current_database())",
        })
        .fetch_one(transaction.connection()?)
        .await?;
        transaction.roll_back().await?;
        let [leased, reserved, bytes] =
            [leased, reserved, bytes].map(|count| u64::try_from(count).unwrap_or_default());
        Ok(DatabaseCounts {
            leased,
            reserved,
            bytes,
        })
    }
}
