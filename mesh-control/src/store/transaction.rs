//! A transaction that ends in exactly one way.

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool};

use super::StoreError;
use super::server::SERVER_STARTED;

/// What differs between the two databases; queries do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// Starts a transaction that sees one state of the database throughout.
    fn begin_reading(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// What tells one server process from another; in a file there is none.
    pub(super) fn server_started(self) -> &'static str {
        match self {
            Self::Sqlite => "0",
            Self::Postgres => SERVER_STARTED,
        }
    }

    /// The pool tries for as long as it may, and does not say why it could not connect.
    fn no_connection(self, error: sqlx::Error) -> StoreError {
        match (self, error) {
            (Self::Postgres, sqlx::Error::PoolTimedOut) => {
                StoreError::Unreachable("no connection in time".to_owned())
            }
            (_, error) => error.into(),
        }
    }
}

/// A transaction on a pooled connection. Unless [`Self::end`] succeeds, the connection is closed
/// rather than given back, and the database rolls back what it did; see the module above for why.
pub(super) struct Transaction {
    connection: Option<PoolConnection<Any>>,
    dialect: Dialect,
}

impl Transaction {
    /// One that sees the state of the database when it began, whatever is committed meanwhile.
    pub(super) async fn reading(pool: &AnyPool, dialect: Dialect) -> Result<Self, StoreError> {
        Self::begin(pool, dialect, dialect.begin_reading()).await
    }

    /// One whose first statement has to take the lock that makes changes follow one another.
    pub(super) async fn writing(pool: &AnyPool, dialect: Dialect) -> Result<Self, StoreError> {
        Self::begin(pool, dialect, "BEGIN").await
    }

    async fn begin(
        pool: &AnyPool,
        dialect: Dialect,
        sql: &'static str,
    ) -> Result<Self, StoreError> {
        let connection = pool
            .acquire()
            .await
            .map_err(|error| dialect.no_connection(error))?;
        let mut transaction = Self {
            connection: Some(connection),
            dialect,
        };
        sqlx::query(sql).execute(transaction.connection()?).await?;
        Ok(transaction)
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The connection, for one statement. The error cannot happen before [`Self::end`], which takes `self`.
    pub(super) fn connection(&mut self) -> Result<&mut AnyConnection, StoreError> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            None => Err(StoreError::Statement(sqlx::Error::WorkerCrashed)),
        }
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.end("COMMIT").await
    }

    pub(super) async fn roll_back(self) -> Result<(), StoreError> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::query(sql).execute(self.connection()?).await?;
        // Back to the pool.
        drop(self.connection.take());
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}
