//! Opening the file: every reason not to is found before anything is written.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{AnyPool, ConnectOptions, Connection, SqliteConnection};
use thiserror::Error;

use super::beside::Beside;
use super::database_file::DatabaseFile;
use super::{Dialect, Home, Store, StoreError, file_header, schema};
use crate::cluster::settings::Settings;
use crate::cluster::subnet_plan::SubnetPlan;

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
        "the database {database} was written by another version of quilt-mesh-control ({cause}); it was \
         left as it is. Use that version, or restore a backup from before"
    )]
    OtherVersion {
        /// The database.
        database: String,
        /// Which migration differs.
        cause: MigrateError,
    },
    /// Leases exist that belong to another plan.
    #[error(
        "the database {database} holds leases or reservations of {stored}, but the options say {given}; \
         start with --cluster-cidr and --node-prefix as they were, or give another database"
    )]
    OtherPlan {
        /// The database.
        database: String,
        /// The plan of the stored leases, in words.
        stored: String,
        /// The plan of the options, in words.
        given: String,
    },
    /// It opened, but cannot be written or read.
    #[error("cannot use the database {database}: {cause}")]
    Store {
        /// The database.
        database: String,
        /// Why not.
        cause: StoreError,
    },
    /// `--database-url` is not one.
    #[error(
        "--database-url is not the URL of a database ({0}); write postgres://USER:PASSWORD@HOST/DATABASE, or \
         sqlite:FILE"
    )]
    Url(String),
}

impl OpenError {
    pub(super) fn store(database: &str, cause: StoreError) -> Self {
        Self::Store {
            database: database.to_owned(),
            cause,
        }
    }
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
    pub async fn open(
        path: &Path,
        plan: &SubnetPlan,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let at = Where { path };
        let file = DatabaseFile::open(path).map_err(|cause| at.file(cause))?;
        if !file.try_lock().map_err(|cause| at.file(cause))? {
            return Err(OpenError::InUse(path.to_owned()));
        }
        match at.set_up(&file, plan, settings).await {
            Ok(pool) => Ok(Self {
                pool,
                beside: Beside::default(),
                home: Home::File(file),
                plan: *plan,
                settings,
                name: at.name(),
            }),
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
        settings: Settings,
    ) -> Result<AnyPool, OpenError> {
        self.inspect(file).await?;
        // Whatever there is to say against the file is said here: a pool would try until its timeout.
        let first = SqliteConnectOptions::new()
            .filename(self.path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY_TIMEOUT)
            .connect()
            .await
            .map_err(|error| self.store(error.into()))?;
        sqlx::any::install_default_drivers();
        let options =
            AnyConnectOptions::from_str(&self.url()?).map_err(|error| self.store(error.into()))?;
        let pool = AnyPoolOptions::new()
            .max_connections(MOST_CONNECTIONS)
            .acquire_timeout(BUSY_TIMEOUT)
            // There is no server that could have closed it meanwhile.
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // The journal mode stays with the file; sqlx itself sets a busy timeout of 5 s and
                    // turns foreign keys on.
                    sqlx::raw_sql("PRAGMA synchronous = FULL")
                        .execute(connection)
                        .await
                        .map(drop)
                })
            })
            .connect_with(options)
            .await
            .map_err(|error| self.store(error.into()))?;
        // Not before: the last connection to close would take the log away.
        first
            .close()
            .await
            .map_err(|error| self.store(error.into()))?;
        match schema::prepare(&pool, Dialect::Sqlite, (plan, settings), &self.name()).await {
            Ok(()) => Ok(pool),
            Err(error) => {
                pool.close().await;
                Err(match error {
                    OpenError::Store {
                        cause: StoreError::Damaged(what),
                        ..
                    } => self.damaged(what),
                    error => error,
                })
            }
        }
    }

    /// The path as sqlx takes it: every byte that could mean something in a URL is encoded.
    fn url(&self) -> Result<String, OpenError> {
        let Some(path) = self.path.to_str() else {
            let cause = io::Error::new(io::ErrorKind::InvalidFilename, "its path is not UTF-8");
            return Err(self.file(cause));
        };
        let mut url = String::from("sqlite:");
        for byte in path.bytes() {
            if byte.is_ascii_alphanumeric() {
                url.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(url, "%{byte:02x}");
            }
        }
        url.push_str("?mode=rw");
        Ok(url)
    }

    fn name(&self) -> String {
        self.path.display().to_string()
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
            cause => OpenError::store(&self.name(), cause),
        }
    }
}
