//! The database: nodes and leases, on SQLite for one control plane or PostgreSQL for several.
//!
//! - **An acknowledged change is on the disk.** SQLite runs in WAL mode with `synchronous = FULL`, PostgreSQL
//!   as its operator set it up: a commit returns after its pages are on the disk, so a registration that
//!   was acknowledged survives a power cut, not only a crash of this process. It costs one fsync per
//!   batch of changes.
//! - **One change at a time.** Each is one transaction that starts with the write lock of SQLite, or the lock of
//!   PostgreSQL's row `cluster`, which every change updates first. `UNIQUE` constraints in the schema
//!   hold the same rules, should this code ever be wrong.
//! - **A failed transaction costs its connection.** SQLite rolls some failures back by itself (a full
//!   disk, an I/O error) and sqlx does not notice, so that a connection with an unclear end is closed.
//! - **The same statements for both**, over sqlx's `Any`: integers and text only. What only replicas need, the
//!   messages between them and the reports that they share, is PostgreSQL's own.

mod audit;
mod beside;
mod change;
mod credential_change;
mod credentials;
mod database_file;
mod error;
mod file_header;
mod history;
mod meant_node;
mod measured;
mod open;
mod reports;
mod schema;
mod server;
mod subnets;
mod transaction;

use std::net::Ipv4Addr;
use std::time::Duration;

use mesh_rest::node_id::NodeId;
use mesh_rest::overlay::Overlay;
use mesh_rest::status::Status;
use sqlx::AnyPool;

use crate::cluster::history::{Mark, Position, Shown};
use crate::cluster::settings::Settings;
use crate::cluster::subnet_plan::{SubnetIndex, SubnetPlan};
use crate::cluster::succession::Succession;

pub use audit::AuditEntry;
pub(crate) use audit::number;
pub use change::{Change, Held, NewReport, NewState, Reservation, Tenant};
pub use credential_change::{CredentialChange, Known, NewCredential, WithoutJoining};
pub use credentials::{
    AuthorityState, CredentialChanges, CredentialsBefore, NodeCredential, StoredAuthority,
    StoredOperator, StoredToken,
};
use database_file::DatabaseFile;
pub use error::StoreError;
pub use history::{Begun, RememberedLease};
pub use meant_node::MeantNode;
pub use open::OpenError;
pub use reports::{StoredReport, StoredReports};
pub(crate) use server::LONGEST_PAYLOAD;
pub use server::{Listener, Message, Server};
pub use subnets::{StoredLease, Subnets};
use transaction::{Dialect, Transaction};

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
    /// The MTU of its overlay in bytes, if it told.
    pub overlay_mtu: Option<u32>,
    /// Its tokens as they were last written.
    pub succession: Option<Succession>,
    /// The status that was last written.
    pub status: Status,
    /// Whether only a registration brings it back.
    pub must_register: bool,
    /// Whether it left for good.
    pub left: bool,
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
    /// The database, its revision, and the mark of that.
    pub position: Position,
    /// What the control plane that started last tells nodes.
    pub settings: Settings,
    /// Removals up to and including this revision are not in `removed`.
    pub forgotten_revision: i64,
    /// The nodes that changed or are new.
    pub nodes: Vec<StoredNode>,
    /// The nodes that were removed, and the revision at which each was.
    pub removed: Vec<(NodeId, i64)>,
}

/// An open database.
#[derive(Debug)]
pub struct Store {
    pool: AnyPool,
    beside: beside::Beside,
    home: Home,
    plan: SubnetPlan,
    settings: Settings,
    /// What messages call the database: its path, or where it is on which server.
    name: String,
}

/// Id, revision, forgotten revision, VXLAN's port, VNI, the revision's mark, the mark of another revision.
type ClusterRow = (String, i64, i64, i64, i64, i64, Option<i64>, Option<i64>);

/// Where the database is. Declared, and so dropped, after the pool: see [`DatabaseFile`].
#[derive(Debug)]
enum Home {
    /// In a file, locked against a second control plane.
    File(DatabaseFile),
    /// On a PostgreSQL server, shared with other replicas.
    Server(server::Address),
}

impl Store {
    /// Reads what changed after `revision`; after -1 everything did. `stands` is where whoever asks stands in the
    /// history of the database, at that revision or, by a change of its own, after it.
    ///
    /// # Errors
    ///
    /// [`StoreError::OtherHistory`], when the database was never there. Any other [`StoreError`], when it
    /// does not answer or holds what cannot be.
    pub async fn changes_since(
        &self,
        revision: i64,
        stands: Option<&Position>,
    ) -> Result<Changes, StoreError> {
        let mut transaction = Transaction::reading(&self.pool, self.dialect()).await?;
        let row: Option<ClusterRow> = sqlx::query_as(
            "SELECT database_id, revision, forgotten_revision, vxlan_port, vni, node_timeout_ms, \
             (SELECT mark FROM history WHERE history.revision = cluster.revision), \
             (SELECT mark FROM history WHERE history.revision = $1) \
             FROM cluster WHERE id = 1",
        )
        .bind(stands.map_or(-1, |stands| stands.revision))
        .fetch_optional(transaction.connection()?)
        .await?;
        let Some((
            database,
            current,
            forgotten_revision,
            vxlan_port,
            vni,
            node_timeout_ms,
            mark,
            mark_there,
        )) = row
        else {
            return Err(history::emptied(self.dialect()));
        };
        let shown = Shown {
            database: &database,
            revision: current,
            mark: mark_there.map(Mark::from),
        };
        if stands.is_some_and(|stands| !stands.is_in(shown)) {
            transaction.roll_back().await?;
            return Err(history::other(self.dialect()));
        }
        let nodes: Vec<NodeRow> = sqlx::query_as(
            "SELECT node_id, node_key, hostname, host_ip, subnet_index, cpu_cores, ram_mb, overlay_mtu, \
             succession, status, must_register, left_at, registered_at, last_heartbeat, revision \
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
        transaction.roll_back().await?;
        let nodes = nodes
            .into_iter()
            .map(StoredNode::try_from)
            .collect::<Result<_, _>>()?;
        let removed = removed
            .into_iter()
            .map(|(node_id, revision)| (NodeId::from(node_id), revision))
            .collect();
        Ok(Changes {
            position: Position {
                database: database.into(),
                revision: current,
                mark: mark.map(Mark::from),
            },
            settings: settings(vxlan_port, vni, node_timeout_ms)?,
            forgotten_revision,
            nodes,
            removed,
        })
    }

    /// Starts a change, with the revision raised and the lock taken. `stands` is where whoever makes it stands in the
    /// history of the database: what it knows has to be of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::OtherHistory`], when it is not. Any other [`StoreError`], when the database cannot
    /// be written now.
    pub async fn begin_change(&self, stands: Option<&Position>) -> Result<Change, StoreError> {
        self.begin(1, stands).await
    }

    /// Starts a change of nothing but `last_heartbeat`, which raises no revision.
    ///
    /// # Errors
    ///
    /// As [`Self::begin_change`].
    pub async fn begin_heartbeats(&self, stands: Option<&Position>) -> Result<Change, StoreError> {
        self.begin(0, stands).await
    }

    async fn begin(&self, step: i64, stands: Option<&Position>) -> Result<Change, StoreError> {
        if let Home::File(file) = &self.home {
            file.check_in_place()?;
        }
        let expected = change::Expected {
            plan: &self.plan,
            settings: self.settings,
            stands,
        };
        Change::begin(&self.pool, self.dialect(), step, expected).await
    }

    /// What all control planes of the cluster have to agree on: the options of this one.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// What nodes are told to have in common: the options of this control plane.
    pub fn overlay(&self) -> Overlay {
        self.settings.overlay
    }

    /// What messages call the database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether other control planes may work on the database at the same time.
    pub fn is_shared(&self) -> bool {
        matches!(self.home, Home::Server(_))
    }

    fn dialect(&self) -> Dialect {
        match self.home {
            Home::File(_) => Dialect::Sqlite,
            Home::Server(_) => Dialect::Postgres,
        }
    }

    /// Takes connections as others do that have something to do at the same time.
    #[cfg(test)]
    pub(crate) async fn all_connections_but_one(
        &self,
    ) -> Vec<sqlx::pool::PoolConnection<sqlx::Any>> {
        let mut taken = Vec::new();
        for _ in 1..self.pool.options().get_max_connections() {
            let connection = self.pool.acquire().await;
            taken.extend(connection);
        }
        taken
    }

    /// Closes the database; SQLite moves what is in the write-ahead log into the file.
    pub async fn close(&self) {
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
    overlay_mtu: Option<i64>,
    succession: Option<String>,
    status: String,
    must_register: i64,
    left_at: Option<i64>,
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
        let overlay_mtu = row
            .overlay_mtu
            .map(|mtu| u32::try_from(mtu).map_err(|_| wrong("overlay_mtu", mtu)))
            .transpose()?;
        Ok(Self {
            node_id: NodeId::from(row.node_id),
            node_key: row.node_key,
            hostname: row.hostname,
            host_ip,
            subnet,
            cpu_cores,
            ram_mb,
            overlay_mtu,
            // What cannot be read is worth no refusal to start: the node's next token is taken for newer.
            succession: row.succession.and_then(|text| text.parse().ok()),
            status: status(&row.status),
            must_register: row.must_register != 0,
            left: row.left_at.is_some(),
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

/// The schema admits what can be.
fn settings(vxlan_port: i64, vni: i64, node_timeout_ms: i64) -> Result<Settings, StoreError> {
    let told = |number| u64::try_from(number).ok();
    let overlay = Overlay::told(told(vxlan_port), told(vni))
        .map_err(|error| StoreError::Damaged(format!("the cluster's settings: {error}")))?;
    Ok(Settings {
        overlay,
        node_timeout: Duration::from_millis(told(node_timeout_ms).unwrap_or_default()),
    })
}

fn subnet_index(number: i64) -> Result<SubnetIndex, StoreError> {
    u32::try_from(number)
        .ok()
        .and_then(SubnetIndex::new)
        .ok_or_else(|| StoreError::Damaged(format!("there is a lease of subnet number {number}")))
}
