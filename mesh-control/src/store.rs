//! The database: nodes and leases, on SQLite.
//!
//! - **WAL with `synchronous = FULL`**: a commit returns after its pages are on the disk, so a registration
//!   that was acknowledged survives a power cut, not only a crash of this process. It costs one fsync per
//!   change of a node; heartbeats go in batches and do not pay it each.
//! - **One writer.** Changes take `&mut Store`; each is one transaction that starts with the write lock.
//!   `UNIQUE` constraints in the schema hold the same rules, should this code ever be wrong.
//! - **A failed transaction costs its connection.** SQLite rolls some failures back by itself (a full
//!   disk, an I/O error) and sqlx does not notice, so that a connection with an unclear end is closed.

mod change;
mod database_file;
mod file_header;
mod open;

use std::net::Ipv4Addr;

use sqlx::sqlite::SqlitePool;
use thiserror::Error;

use crate::node::{NodeId, Status};
use crate::subnet_plan::SubnetIndex;

use change::Transaction;
pub use change::{Change, Held, NewState};
use database_file::DatabaseFile;
pub use open::OpenError;

/// Why the database did not answer.
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
    /// The file at the database's path is no longer the one that was opened.
    #[error("the database file was removed or replaced while in use; restart the control plane")]
    Gone,
    /// Anything else: a bug.
    #[error("the database refused a statement ({0})")]
    Statement(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        /// `SQLITE_IOERR_SHMSIZE`: the WAL index could not grow.
        const SHARED_MEMORY_SIZE: u32 = 10 | 19 << 8;
        let code = match &error {
            sqlx::Error::PoolTimedOut => return Self::Locked(error),
            sqlx::Error::Database(database) => database
                .code()
                .and_then(|code| code.parse::<u32>().ok())
                .unwrap_or(0),
            _ => 0,
        };
        // Primary result codes, https://www.sqlite.org/rescode.html; the high bits are the extended part.
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
}

/// A node as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredNode {
    /// The node's id.
    pub node_id: NodeId,
    /// Its key, if it registered with one.
    pub node_key: Option<String>,
    /// Its hostname.
    pub hostname: String,
    /// Its underlay address.
    pub host_ip: Ipv4Addr,
    /// The subnet it leases.
    pub subnet: SubnetIndex,
    /// Processor cores.
    pub cpu_cores: Option<u32>,
    /// Memory in MiB.
    pub ram_mb: Option<u64>,
    /// The status that was last written.
    pub status: Status,
    /// Whether only a registration brings it back.
    pub must_register: bool,
    /// Unix seconds of its first registration.
    pub registered_at: i64,
    /// Unix seconds of the last heartbeat that was written.
    pub last_heartbeat: i64,
    /// The revision at which anything but the heartbeat was last changed.
    pub revision: i64,
}

/// What changed after some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The database's id.
    pub database: String,
    /// Its revision.
    pub revision: i64,
    /// Removals up to and including this revision are not in `removed`.
    pub forgotten_revision: i64,
    /// The nodes that changed or are new.
    pub nodes: Vec<StoredNode>,
    /// The nodes that were removed, and the revision at which each was.
    pub removed: Vec<(NodeId, i64)>,
}

/// An open database, locked against a second control plane.
#[derive(Debug)]
pub struct Store {
    pool: SqlitePool,
    // Declared, and so dropped, after the pool: see DatabaseFile.
    file: DatabaseFile,
}

impl Store {
    /// Reads what changed after `revision`; after -1 everything did.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database does not answer or holds what cannot be.
    pub async fn changes_since(&self, revision: i64) -> Result<Changes, StoreError> {
        let mut transaction = Transaction::begin(&self.pool, "BEGIN").await?;
        let (database, current, forgotten_revision) = sqlx::query_as(
            "SELECT database_id, revision, forgotten_revision FROM cluster WHERE id = 1",
        )
        .fetch_one(transaction.connection()?)
        .await?;
        let nodes: Vec<NodeRow> = sqlx::query_as(
            "SELECT node_id, node_key, hostname, host_ip, subnet_index, cpu_cores, ram_mb, status, \
             must_register, registered_at, last_heartbeat, revision \
             FROM nodes JOIN leases USING (node_id) WHERE revision > $1",
        )
        .bind(revision)
        .fetch_all(transaction.connection()?)
        .await?;
        let removed: Vec<(String, i64)> =
            sqlx::query_as("SELECT node_id, revision FROM removed_nodes WHERE revision > $1")
                .bind(revision)
                .fetch_all(transaction.connection()?)
                .await?;
        transaction.end("ROLLBACK").await?;
        let nodes = nodes
            .into_iter()
            .map(StoredNode::try_from)
            .collect::<Result<_, _>>()?;
        let removed = removed
            .into_iter()
            .map(|(node_id, revision)| (NodeId::from(node_id), revision))
            .collect();
        Ok(Changes {
            database,
            revision: current,
            forgotten_revision,
            nodes,
            removed,
        })
    }

    /// Starts a change, with the revision raised and the write lock taken.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database cannot be written now.
    pub async fn begin_change(&mut self) -> Result<Change<'_>, StoreError> {
        self.file.check_in_place()?;
        Change::begin(&self.pool, 1).await
    }

    /// Starts a change of nothing but `last_heartbeat`, which raises no revision.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the database cannot be written now.
    pub async fn begin_heartbeats(&mut self) -> Result<Change<'_>, StoreError> {
        self.file.check_in_place()?;
        Change::begin(&self.pool, 0).await
    }

    /// Closes the database; what is in the write-ahead log moves into the file.
    pub async fn close(&mut self) {
        self.pool.close().await;
    }
}

#[derive(sqlx::FromRow)]
struct NodeRow {
    node_id: String,
    node_key: Option<String>,
    hostname: String,
    host_ip: String,
    subnet_index: i64,
    cpu_cores: Option<i64>,
    ram_mb: Option<i64>,
    status: String,
    must_register: i64,
    registered_at: i64,
    last_heartbeat: i64,
    revision: i64,
}

impl TryFrom<NodeRow> for StoredNode {
    type Error = StoreError;

    fn try_from(row: NodeRow) -> Result<Self, StoreError> {
        let host_ip = address(&row.node_id, &row.host_ip)?;
        let subnet = subnet_index(row.subnet_index)?;
        let wrong = |column: &str, value: i64| {
            StoreError::Damaged(format!("node {} has {column} {value}", row.node_id))
        };
        let cpu_cores = row
            .cpu_cores
            .map(|cores| u32::try_from(cores).map_err(|_| wrong("cpu_cores", cores)))
            .transpose()?;
        let ram_mb = row
            .ram_mb
            .map(|ram| u64::try_from(ram).map_err(|_| wrong("ram_mb", ram)))
            .transpose()?;
        Ok(Self {
            node_id: NodeId::from(row.node_id),
            node_key: row.node_key,
            hostname: row.hostname,
            host_ip,
            subnet,
            cpu_cores,
            ram_mb,
            status: status(&row.status),
            must_register: row.must_register != 0,
            registered_at: row.registered_at,
            last_heartbeat: row.last_heartbeat,
            revision: row.revision,
        })
    }
}

/// The schema admits two words.
fn status(text: &str) -> Status {
    if text == Status::Up.as_str() {
        Status::Up
    } else {
        Status::Down
    }
}

fn address(node_id: &str, text: &str) -> Result<Ipv4Addr, StoreError> {
    text.parse()
        .map_err(|_| StoreError::Damaged(format!("node {node_id} has host_ip {text:?}")))
}

fn subnet_index(number: i64) -> Result<SubnetIndex, StoreError> {
    u32::try_from(number)
        .ok()
        .and_then(SubnetIndex::new)
        .ok_or_else(|| StoreError::Damaged(format!("there is a lease of subnet number {number}")))
}
