//! The registry: who is in the cluster, with which subnet, and alive.
//!
//! Nodes and leases are in the [`Store`], and in memory as the [`Roster`], which takes in what changed
//! after every commit; who is alive is in the [`Liveness`] table, which is ahead of the store by what
//! was not written yet. The change feed tells the roster. The node list shows the roster overlaid with the
//! table. Neither needs the database to answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock as MemoryLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::Ipv4Net;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{Notify, RwLock, RwLockWriteGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use utoipa::ToSchema;

use crate::feed::Feed;
use crate::identity::{self, Claimant, Clash, Verdict};
use crate::lease;
use crate::liveness::{Beat, Liveness};
use crate::node::{NodeId, Status};
use crate::registration::Registration;
use crate::roster::Roster;
use crate::store::{NewState, Store, StoreError};
use crate::subnet_plan::{SubnetIndex, SubnetPlan};

mod list;
mod watch;

/// How long a change waits for those before it.
const QUEUE_DEADLINE: Duration = Duration::from_secs(5);

/// What a node is told when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Admitted {
    /// Its id.
    pub node_id: NodeId,
    /// The subnet it leases.
    #[schema(value_type = String, example = "10.42.1.0/24")]
    pub subnet: Ipv4Net,
}

/// The live node that has what another one claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub node_id: NodeId,
    /// Its hostname.
    pub hostname: String,
    /// Its underlay address.
    pub host_ip: std::net::Ipv4Addr,
}

/// Why a change did not happen.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// A live node has the claimed key or address.
    #[error(
        "{} is in use by the live node {} ({}, host_ip {})",
        match .clash { Clash::Key => "this node_key", Clash::Address => "this host_ip" },
        .holder.hostname, .holder.node_id, .holder.host_ip
    )]
    InUse {
        /// The key or the address.
        clash: Clash,
        /// Who has it.
        holder: Holder,
    },
    /// Every subnet is held.
    #[error(
        "all {subnets} subnets of {cluster} are leased, {held_by_down_nodes} of them by nodes that are down \
         and may come back; start a cluster with a larger --cluster-cidr or a longer --node-prefix"
    )]
    SubnetsExhausted {
        /// The cluster CIDR.
        cluster: Ipv4Net,
        /// How many subnets it has.
        subnets: u32,
        /// How many of them are held by nodes that are down.
        held_by_down_nodes: i64,
    },
    /// No such node.
    #[error("no node has this id")]
    UnknownNode,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A bug.
    #[error("the change failed unexpectedly ({0})")]
    Crashed(#[from] tokio::task::JoinError),
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    plan: SubnetPlan,
    store: RwLock<Store>,
    liveness: Mutex<Liveness>,
    /// The id of the database.
    database: String,
    roster: MemoryLock<Roster>,
    feed: Feed,
    /// Wakes the writer when a status changed.
    status_changed: Notify,
    /// Changes run as tasks of their own: a client that hangs up cannot leave one half done.
    changes: TaskTracker,
}

impl Registry {
    /// Takes up what is stored. A node that was up has a full `node_timeout` from now; one that was
    /// down stays down until its next heartbeat. Who waits for news is answered when `stopping` is
    /// cancelled.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the store cannot be read.
    pub async fn open(
        store: Store,
        plan: SubnetPlan,
        node_timeout: Duration,
        stopping: CancellationToken,
    ) -> Result<Arc<Self>, StoreError> {
        let stored = store.changes_since(-1).await?;
        let registry = Arc::new(Self {
            plan,
            store: RwLock::new(store),
            liveness: Mutex::new(Liveness::new(node_timeout)),
            database: stored.database.clone(),
            // One before all that is stored, so that everything is news.
            roster: MemoryLock::new(Roster::default()),
            feed: Feed::new(stored.revision, stopping),
            status_changed: Notify::new(),
            changes: TaskTracker::new(),
        });
        registry.take_in(stored)?;
        Ok(registry)
    }

    /// How the cluster CIDR is divided.
    pub fn plan(&self) -> &SubnetPlan {
        &self.plan
    }

    /// Registers a node, or recognises it (see [`identity`]). When it returns, the lease is on the disk.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn register(
        self: &Arc<Self>,
        registration: Registration,
    ) -> Result<Admitted, ChangeError> {
        let registry = Arc::clone(self);
        let task = async move { registry.register_now(&registration).await };
        self.changes.spawn(task).await?
    }

    async fn register_now(&self, registration: &Registration) -> Result<Admitted, ChangeError> {
        let mut store = self.queue().await?;
        // Whether a holder is up decides who may have its address, so that has to be stored first.
        while self.liveness().has_unwritten_status() {
            self.write_batch(&mut store).await?;
        }
        let mut change = store.begin_change().await?;
        let claim = registration.claim();
        let claimants = change.claimants(&claim).await?;
        let (node, displaced) = match identity::decide(&claim, &claimants) {
            Verdict::Admit { node, displaces } => (node, displaces),
            Verdict::Refuse { holder, clash } => {
                change.roll_back().await?;
                return Err(ChangeError::InUse {
                    clash,
                    holder: Holder::from(holder),
                });
            }
        };
        if let Some(displaced) = displaced {
            change.dismiss(displaced.node_id.as_str()).await?;
        }
        let node_id = node.map_or_else(NodeId::random, |node| node.node_id.clone());
        let unix_seconds = unix_seconds();
        let new = NewState {
            node_id: &node_id,
            registration,
            unix_seconds,
        };
        let mut changed = match node {
            Some(_) => change.renew(new).await?,
            None => {
                change.add(new).await?;
                true
            }
        };
        let index = match change.subnet_of(&node_id).await? {
            Some(index) => index,
            None => {
                let unheld = change.unheld().await?;
                let Some(index) = lease::next(&self.plan, &unheld) else {
                    let held_by_down_nodes = change.held().await?.by_down_nodes;
                    change.roll_back().await?;
                    return Err(ChangeError::SubnetsExhausted {
                        cluster: self.plan.cluster(),
                        subnets: self.plan.count(),
                        held_by_down_nodes,
                    });
                };
                change.lease(&node_id, index, unix_seconds).await?;
                if !changed {
                    change.mark_changed(&node_id).await?;
                    changed = true;
                }
                index
            }
        };
        let subnet = self.subnet(index)?;
        if changed {
            let revision = change.revision();
            change.commit().await?;
            {
                let mut liveness = self.liveness();
                if let Some(displaced) = displaced {
                    liveness.forget(&displaced.node_id);
                }
                liveness.watch(node_id.clone(), Status::Up, unix_seconds, Instant::now());
            }
            self.catch_up(&store).await;
            let returning = node.is_some();
            info!(%node_id, hostname = registration.hostname, host_ip = %registration.host_ip, %subnet,
                returning, revision, "node registered");
            if let Some(displaced) = displaced {
                warn!(node_id = %displaced.node_id, hostname = displaced.hostname,
                    host_ip = %displaced.host_ip, taken_by = %node_id,
                    "a node that is down lost its address to another; it keeps its subnet and has to register again");
            }
        } else {
            change.roll_back().await?;
            self.beat(node_id.as_str(), unix_seconds);
        }
        Ok(Admitted { node_id, subnet })
    }

    /// Takes a heartbeat. It touches no disk, so that a database in trouble takes nobody down.
    ///
    /// # Errors
    ///
    /// [`ChangeError::UnknownNode`], also for a node that deregistered or lost its address: a heartbeat
    /// that was delayed on its way must not revive it, and an agent that lives registers again.
    pub fn heartbeat(&self, node_id: &str) -> Result<(), ChangeError> {
        self.beat(node_id, unix_seconds())
            .ok_or(ChangeError::UnknownNode)
    }

    fn beat(&self, node_id: &str, unix_seconds: i64) -> Option<()> {
        let beat = self
            .liveness()
            .heartbeat(node_id, Instant::now(), unix_seconds)?;
        if beat == Beat::CameUp {
            info!(node_id, "node is up again");
            self.status_changed.notify_one();
        }
        Some(())
    }

    /// Takes a node down at once. It keeps its subnet, and comes back by registering.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn deregister(self: &Arc<Self>, node_id: &str) -> Result<(), ChangeError> {
        let registry = Arc::clone(self);
        let node_id = NodeId::from(node_id.to_owned());
        let task = async move { registry.deregister_now(&node_id).await };
        self.changes.spawn(task).await?
    }

    async fn deregister_now(&self, node_id: &NodeId) -> Result<(), ChangeError> {
        let mut store = self.queue().await?;
        let mut change = store.begin_change().await?;
        if change.dismiss(node_id.as_str()).await? {
            let revision = change.revision();
            change.commit().await?;
            self.liveness().forget(node_id);
            self.catch_up(&store).await;
            info!(%node_id, revision, "node deregistered; it keeps its subnet");
            return Ok(());
        }
        let known = change.knows(node_id.as_str()).await?;
        change.roll_back().await?;
        if known {
            Ok(())
        } else {
            Err(ChangeError::UnknownNode)
        }
    }

    fn subnet(&self, index: SubnetIndex) -> Result<Ipv4Net, StoreError> {
        self.plan.subnet(index).ok_or_else(|| {
            let number = index.number();
            StoreError::Damaged(format!(
                "there is a lease of subnet number {number} of {}",
                self.plan
            ))
        })
    }

    /// Waits its turn for a change. The deadline bounds how many can be waiting.
    async fn queue(&self) -> Result<RwLockWriteGuard<'_, Store>, StoreError> {
        tokio::time::timeout(QUEUE_DEADLINE, self.store.write())
            .await
            .map_err(|_| StoreError::Queued(QUEUE_DEADLINE))
    }

    /// The table is never left half changed: none of its methods can panic between two writes.
    fn liveness(&self) -> MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<&Claimant> for Holder {
    fn from(claimant: &Claimant) -> Self {
        Self {
            node_id: claimant.node_id.clone(),
            hostname: claimant.hostname.clone(),
            host_ip: claimant.host_ip,
        }
    }
}

/// The wall clock, for showing only. Before 1970 is 1970.
pub(crate) fn unix_seconds() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}
