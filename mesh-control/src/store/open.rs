//! Opening the database: every reason not to is found before anything is written.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};
use thiserror::Error;

use super::change::Transaction;
use super::database_file::DatabaseFile;
use super::{Store, StoreError, file_header};
use crate::subnet_plan::SubnetPlan;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long SQLite waits for a lock that another program holds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Readers beside the one writer. Reads are short; more would only wait for the processor.
const MOST_CONNECTIONS: u32 = 4;

/// Why the database cannot be used. Each message names the file and says what to do.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file cannot be opened or created for writing.
    #[error("cannot open the database {} for writing: {cause}; {}", .path.display(), advice(.cause))]
    File {
        /// The database.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another control plane runs on it.
    #[error(
        "the database {} is in use by another quilt-mesh-control; stop that one, or give this one \
         another --db-path", .0.display()
    )]
    InUse(PathBuf),
    /// The content is damaged.
    #[error(
        "the database {} is damaged: {what}; it was left as it is. Restore it from a backup, or move it \
         away to start with an empty one (nodes that register again then get new subnets)", .path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Some other program's database.
    #[error(
        "{} is an SQLite database of some other program (it has the table {table:?}); it was left as it \
         is. Give another --db-path", .path.display()
    )]
    Foreign {
        /// The database.
        path: PathBuf,
        /// One of its tables.
        table: String,
    },
    /// A newer version wrote it.
    #[error(
        "the database {} was written by another version of quilt-mesh-control ({cause}); it was left as \
         it is. Use that version, or restore a backup from before", .path.display()
    )]
    OtherVersion {
        /// The database.
        path: PathBuf,
        /// Which migration differs.
        cause: MigrateError,
    },
    /// Leases exist that belong to another plan.
    #[error(
        "the database {} holds leases of {stored}, but the options say {given}; start with \
         --cluster-cidr and --node-prefix as they were, or give another --db-path", .path.display()
    )]
    OtherPlan {
        /// The database.
        path: PathBuf,
        /// The plan of the stored leases, in words.
        stored: String,
        /// The plan of the options, in words.
        given: String,
    },
    /// It opened, but cannot be written or read.
    #[error("cannot use the database {}: {cause}", .path.display())]
    Store {
        /// The database.
        path: PathBuf,
        /// Why not.
        cause: StoreError,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create the directory first, or give another --db-path",
        io::ErrorKind::PermissionDenied => {
            "make the file and its directory writable for this user, or give another --db-path"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the control plane has to write to it: remount its file system read-write, or give another --db-path"
        }
        io::ErrorKind::IsADirectory => {
            "give the path of a file, such as control.db in that directory"
        }
        io::ErrorKind::StorageFull => "free some space, or give another --db-path",
        _ => "give another --db-path",
    }
}

impl Store {
    /// Opens the database at `path` and brings its schema up to date; creates the file, but not its
    /// directory. Proves with a real write that it can be written.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. A database that was there before is then as it was before.
    pub async fn open(path: &Path, plan: &SubnetPlan) -> Result<Self, OpenError> {
        let at = Where { path };
        let file = DatabaseFile::open(path).map_err(|cause| at.file(cause))?;
        if !file.try_lock().map_err(|cause| at.file(cause))? {
            return Err(OpenError::InUse(path.to_owned()));
        }
        match at.set_up(&file, plan).await {
            Ok(pool) => Ok(Self { pool, file }),
            Err(error) => {
                file.discard_if_created();
                Err(error)
            }
        }
    }
}

struct Where<'a> {
    path: &'a Path,
}

impl Where<'_> {
    async fn set_up(
        &self,
        file: &DatabaseFile,
        plan: &SubnetPlan,
    ) -> Result<SqlitePool, OpenError> {
        self.inspect(file).await?;
        let options = SqliteConnectOptions::new()
            .filename(self.path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(MOST_CONNECTIONS)
            .acquire_timeout(BUSY_TIMEOUT)
            // There is no server that could have closed it meanwhile.
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .map_err(|error| self.store(error.into()))?;
        let ready = async {
            MIGRATIONS
                .run(&pool)
                .await
                .map_err(|error| self.migrate(error))?;
            self.settle_plan(&pool, plan).await
        };
        match ready.await {
            Ok(()) => Ok(pool),
            Err(error) => {
                pool.close().await;
                Err(error)
            }
        }
    }

    /// Looks for damage and for other programs' databases, without writing a byte.
    async fn inspect(&self, file: &DatabaseFile) -> Result<(), OpenError> {
        let length = file
            .file()
            .metadata()
            .map_err(|cause| self.file(cause))?
            .len();
        if length == 0 {
            return Ok(());
        }
        let mut header = Vec::with_capacity(file_header::HEADER_LENGTH);
        file.file()
            .take(file_header::HEADER_LENGTH as u64)
            .read_to_end(&mut header)
            .map_err(|cause| self.file(cause))?;
        let mut log = self.path.as_os_str().to_owned();
        log.push("-wal");
        let log_pending = std::fs::metadata(log).is_ok_and(|log| log.len() > 0);
        file_header::check(&header, length, log_pending)
            .map_err(|damage| self.damaged(damage.to_string()))?;

        // `immutable` creates no -wal and -shm beside the file, but does not see a pending log.
        let mut connection = SqliteConnectOptions::new()
            .filename(self.path)
            .read_only(true)
            .immutable(!log_pending)
            .busy_timeout(BUSY_TIMEOUT)
            .connect()
            .await
            .map_err(|error| self.store(error.into()))?;
        let inspected = self.inspect_content(&mut connection).await;
        // The file was only read; a failure to close it changes nothing about what was found.
        let _ = connection.close().await;
        inspected
    }

    async fn inspect_content(&self, connection: &mut SqliteConnection) -> Result<(), OpenError> {
        let findings: Vec<String> = sqlx::query_scalar("PRAGMA quick_check(3)")
            .fetch_all(&mut *connection)
            .await
            .map_err(|error| self.store(error.into()))?;
        if findings != ["ok"] {
            return Err(self.damaged(findings.join("; ")));
        }
        let tables: Vec<String> =
            sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
                .fetch_all(&mut *connection)
                .await
                .map_err(|error| self.store(error.into()))?;
        // sqlx makes its own table first, so that it is there even if the first start was cut short.
        if tables.iter().any(|table| table == "_sqlx_migrations") {
            return Ok(());
        }
        match tables.into_iter().next() {
            Some(table) => Err(OpenError::Foreign {
                path: self.path.to_owned(),
                table,
            }),
            None => Ok(()),
        }
    }

    /// Stores the plan, or compares it with the stored one. Writes in any case: a database that
    /// cannot be written is better found now than at the first registration.
    async fn settle_plan(&self, pool: &SqlitePool, plan: &SubnetPlan) -> Result<(), OpenError> {
        let (cidr, prefix) = (plan.cluster().to_string(), i64::from(plan.node_prefix()));
        let settle = async {
            let mut transaction = Transaction::begin(pool, "BEGIN IMMEDIATE").await?;
            let stored: Option<(String, i64)> =
                sqlx::query_as("SELECT cluster_cidr, node_prefix FROM cluster WHERE id = 1")
                    .fetch_optional(transaction.connection()?)
                    .await?;
            let leases: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM leases")
                .fetch_one(transaction.connection()?)
                .await?;
            if let Some(stored) = stored
                && leases > 0
                && stored != (cidr.clone(), prefix)
            {
                transaction.end("ROLLBACK").await?;
                return Ok(Some(stored));
            }
            sqlx::query(
                "INSERT INTO cluster (id, cluster_cidr, node_prefix, revision, database_id) \
                 VALUES (1, $1, $2, 0, $3) \
                 ON CONFLICT (id) DO UPDATE SET cluster_cidr = $1, node_prefix = $2, \
                 database_id = CASE cluster.database_id WHEN '' THEN $3 ELSE cluster.database_id END",
            )
            .bind(&cidr)
            .bind(prefix)
            .bind(uuid::Uuid::new_v4().to_string())
            .execute(transaction.connection()?)
            .await?;
            transaction.end("COMMIT").await?;
            Ok(None)
        };
        match settle.await.map_err(|error| self.store(error))? {
            None => Ok(()),
            Some((cidr, prefix)) => Err(OpenError::OtherPlan {
                path: self.path.to_owned(),
                stored: format!("{cidr} divided into /{prefix} subnets"),
                given: plan.to_string(),
            }),
        }
    }

    fn file(&self, cause: io::Error) -> OpenError {
        OpenError::File {
            path: self.path.to_owned(),
            cause,
        }
    }

    fn damaged(&self, what: String) -> OpenError {
        OpenError::Damaged {
            path: self.path.to_owned(),
            what,
        }
    }

    fn store(&self, cause: StoreError) -> OpenError {
        match cause {
            StoreError::Damaged(what) => self.damaged(what),
            cause => OpenError::Store {
                path: self.path.to_owned(),
                cause,
            },
        }
    }

    fn migrate(&self, error: MigrateError) -> OpenError {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                self.store(error.into())
            }
            cause => OpenError::OtherVersion {
                path: self.path.to_owned(),
                cause,
            },
        }
    }
}
