//! Why the database did not answer.

use std::sync::Arc;

use crate::cluster::settings::Settings;
use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;
use thiserror::Error;

/// Why the database did not answer. Each message says what to do.
#[derive(Debug, Error)]
pub enum StoreError {
    /// No space left for the database or its write-ahead log.
    #[error("the disk that holds the database is full; free some space ({0})")]
    Full(sqlx::Error),
    /// The file, or the file system that it is on, cannot be written.
    #[error("the database is read-only; make the file and its directory writable ({0})")]
    ReadOnly(sqlx::Error),
    /// Somebody else holds the write lock.
    #[error(
        "the database is busy; is another program (a backup, an sqlite3 shell) holding it? ({0})"
    )]
    Locked(sqlx::Error),
    /// Changes before this one took too long.
    #[error("the database did not become free within {} s", .0.as_secs())]
    Queued(std::time::Duration),
    /// The content of the file is damaged.
    #[error("the database is damaged; stop the control plane and restore a backup ({0})")]
    Damaged(String),
    /// The disk did not do what it was asked.
    #[error("the disk that holds the database reports an error ({0})")]
    Disk(sqlx::Error),
    /// The database is no longer the one that was opened, or another control plane set it up anew.
    #[error("the database was removed or replaced while in use; restart the control plane")]
    Gone,
    /// What was read from the database is not of its history: it went back, or is another one.
    #[error(
        "the database went back to an earlier state, or is another one; everything is read again, and it is tried \
         again with every request"
    )]
    OtherHistory,
    /// A database without the tables that were there, or with a part of them.
    #[error(
        "the database is empty, and it was not; if it stays so for some seconds, the tables are made anew, and the \
         nodes that register fill them ({0})"
    )]
    Emptied(String),
    /// What is sent by NOTIFY does not arrive where LISTEN was said.
    #[error(
        "a message that was sent through PostgreSQL (NOTIFY) did not come within {} s where it was awaited (LISTEN): \
         a pooler in transaction or statement mode (PgBouncer) loses it, and a connection that a firewall has \
         dropped; connect to PostgreSQL itself, or to a pooler in session mode",
        .0.as_secs()
    )]
    NoMessages(std::time::Duration),
    /// Another control plane on the database was started with other settings.
    #[error(
        "another quilt-mesh-control on this database was started with {}, this one with {}: nodes must not be told \
         both; restart all of them with the same options",
        .current, .given
    )]
    OtherSettings {
        /// The options of this one.
        given: Settings,
        /// Those of the one that was started last.
        current: Settings,
    },
    /// The PostgreSQL server cannot be reached, starts, stops, or has too much to do.
    #[error(
        "the PostgreSQL server does not answer ({0}); see that it runs, and that the database's URL is right"
    )]
    Unreachable(String),
    /// Why a read failed that several waited for.
    #[error(transparent)]
    Shared(Arc<Self>),
    /// Anything else: a bug.
    #[error("the database refused a statement ({0})")]
    Statement(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let E::Database(database) = &error else {
            return match error {
                E::PoolTimedOut => Self::Locked(error),
                E::Io(_) | E::Tls(_) | E::Protocol(_) | E::PoolClosed => {
                    Self::Unreachable(error.to_string())
                }
                _ => Self::Statement(error),
            };
        };
        let code = database.code().unwrap_or_default().into_owned();
        if database.try_downcast_ref::<PgDatabaseError>().is_some() {
            return Self::from_postgres(&code, error);
        }
        let is_sqlite = database.try_downcast_ref::<SqliteError>().is_some();
        match code.parse() {
            Ok(code) if is_sqlite => Self::from_sqlite(code, error),
            _ => Self::Statement(error),
        }
    }
}

impl StoreError {
    /// Whether every other change would fail for the same reason.
    pub fn is_outage(&self) -> bool {
        if let Self::Shared(error) = self {
            return error.is_outage();
        }
        matches!(
            self,
            Self::Locked(_)
                | Self::Queued(_)
                | Self::Gone
                | Self::OtherHistory
                | Self::Emptied(_)
                | Self::NoMessages(_)
                | Self::OtherSettings { .. }
                | Self::Unreachable(_)
        )
    }

    /// By result code, <https://www.sqlite.org/rescode.html>; the high bits are the extended part.
    fn from_sqlite(code: u32, error: sqlx::Error) -> Self {
        /// `SQLITE_IOERR_SHMSIZE`: the WAL index could not grow.
        const SHARED_MEMORY_SIZE: u32 = 10 | 19 << 8;
        match code & 0xff {
            _ if code == SHARED_MEMORY_SIZE => Self::Full(error),
            13 => Self::Full(error),
            // CANTOPEN while running is the -wal or -shm file that cannot be made.
            8 | 14 => Self::ReadOnly(error),
            5 | 6 => Self::Locked(error),
            11 | 26 => Self::Damaged(error.to_string()),
            10 => Self::Disk(error),
            _ => Self::Statement(error),
        }
    }

    /// By SQLSTATE, <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn from_postgres(code: &str, error: sqlx::Error) -> Self {
        match code {
            // disk_full
            "53100" => Self::Full(error),
            // read_only_sql_transaction: a standby.
            "25006" => Self::ReadOnly(error),
            // lock_not_available, query_canceled (a timeout), serialization_failure, deadlock_detected,
            // idle_in_transaction_session_timeout
            "55P03" | "57014" | "40001" | "40P01" | "25P03" => Self::Locked(error),
            // undefined_table, undefined_column: of tables that are being made, some are there already.
            "42P01" | "42703" => Self::Emptied(error.to_string()),
            // data_corrupted, index_corrupted
            "XX001" | "XX002" => Self::Damaged(error.to_string()),
            // Io error of the server
            "58030" => Self::Disk(error),
            // invalid_catalog_name: the database is being exchanged for another.
            "3D000" => Self::Unreachable(error.to_string()),
            // Connection exceptions, insufficient resources, invalid authorization (a password that was
            // changed), operator intervention (shutdown, starting up).
            _ if ["08", "53", "28", "57"]
                .iter()
                .any(|class| code.starts_with(class)) =>
            {
                Self::Unreachable(error.to_string())
            }
            _ => Self::Statement(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_tells_what_is_wrong_with_the_server() {
        let read = |code| StoreError::from_postgres(code, sqlx::Error::RowNotFound);
        assert!(matches!(read("57P01"), StoreError::Unreachable(_)));
        assert!(matches!(read("57P03"), StoreError::Unreachable(_)));
        assert!(matches!(read("53300"), StoreError::Unreachable(_)));
        assert!(matches!(read("53100"), StoreError::Full(_)));
        assert!(matches!(read("57014"), StoreError::Locked(_)));
        assert!(matches!(read("42P01"), StoreError::Emptied(_)));
        // unique_violation: the schema refused what this code should not have tried.
        assert!(matches!(read("23505"), StoreError::Statement(_)));
    }
}
