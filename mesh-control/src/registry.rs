//! The registry: who is in the cluster, with which subnet, and alive.
//!
//! Nodes and leases are in the [`Store`], and in memory as the [`Copy`], which takes in what changed after every commit,
//! and in which who is alive is ahead of the store by what was not written yet. The change feed and the node list tell
//! what is in memory; neither needs the database to answer.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::Ipv4Net;
use mesh_rest::heartbeat_token::HeartbeatToken;
use mesh_rest::node_id::NodeId;
use mesh_rest::status::Status;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::checks::Checks;
use crate::cluster::identity::Claimant;
use crate::cluster::liveness::{Beat, Liveness};
use crate::cluster::node::Node;
use crate::cluster::subnet_plan::{SubnetIndex, SubnetPlan};
use crate::cluster::succession::Standing;
use crate::copy::feed::{Feed, Place};
use crate::copy::{Copy, Memory, Reads};
use crate::credentials::audit::{Audit, Numbered};
use crate::credentials::authorities::Authorities;
use crate::credentials::issued::Issued;
use crate::credentials::mark::Mark;
use crate::credentials::memory::Credentials;
use crate::measured::Tally;
use crate::replica::Replica;
use crate::store::{Store, StoreError};
use crate::traffic::Traffic;
use crate::write::batch::LONGEST_QUEUE;
use crate::write::command::Command;

mod change_error;

pub use change_error::ChangeError;

/// The node that has what another one claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub node_id: NodeId,
    /// Its hostname.
    pub hostname: String,
    /// Its underlay address.
    pub host_ip: std::net::Ipv4Addr,
}

/// By what a node shows that it lives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sign {
    /// With what it says of its overlay's MTU.
    Heartbeat(Option<u32>),
    /// It asks for news.
    Question,
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    /// For tasks of its own.
    pub(crate) itself: Weak<Self>,
    pub(crate) plan: SubnetPlan,
    pub(crate) store: Store,
    /// Whose turn it is to change the store.
    pub(crate) turn: tokio::sync::Mutex<()>,
    pub(crate) queue: mpsc::Sender<Command>,
    pub(crate) copy: Copy,
    /// What nodes told that is not written.
    pub(crate) traffic: Traffic,
    /// What they answered when they were told to ask each other.
    pub(crate) checks: Checks,
    /// Wakes the writer when a status changed.
    pub(crate) status_changed: Notify,
    /// By which every request is judged.
    pub(crate) credentials: Credentials,
    pub(crate) credential_reads: Reads,
    /// What this host remembers of them although the database is lost.
    pub(crate) mark: Mark,
    /// Who was given certificates lately.
    pub(crate) issued: Issued,
    /// The keys of the authorities that sign.
    pub(crate) authorities: Authorities,
    /// See [`Registry::let_everybody_in`].
    pub(crate) insecure: AtomicBool,
    pub(crate) audit: Audit,
    /// Since when what is not as it should be is so.
    pub(crate) problems: Mutex<mesh_problems::Standing>,
    /// What is counted for Prometheus.
    pub(crate) tally: Tally,
    /// For the one who keeps them.
    pub(crate) audit_entries: tokio::sync::Mutex<Option<mpsc::Receiver<Numbered>>>,
    /// If the database is shared with other control planes.
    pub(crate) replica: Option<Replica>,
    /// Makes the changes; a client that hangs up cannot leave one half done.
    pub(crate) changes: TaskTracker,
    /// Tells that task to make those that are asked for, and end.
    pub(crate) last_changes: CancellationToken,
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
        let stored = store.changes_since(-1, None).await?;
        let shared = store.is_shared();
        let (queue, asked) = mpsc::channel(LONGEST_QUEUE);
        let (audit, audit_entries) = Audit::new();
        let registry = Arc::new_cyclic(|itself| Self {
            itself: Weak::clone(itself),
            plan,
            store,
            turn: tokio::sync::Mutex::default(),
            queue,
            copy: Copy::new(
                Liveness::new(node_timeout),
                Feed::new(Place::at(stored.position.revision), stopping),
            ),
            traffic: Traffic::default(),
            checks: Checks::default(),
            status_changed: Notify::new(),
            credentials: Credentials::default(),
            credential_reads: Reads::default(),
            mark: Mark::default(),
            issued: Issued::default(),
            authorities: Authorities::default(),
            insecure: AtomicBool::new(false),
            audit,
            problems: Mutex::default(),
            tally: Tally::default(),
            audit_entries: tokio::sync::Mutex::new(Some(audit_entries)),
            replica: shared.then(Replica::new),
            changes: TaskTracker::new(),
            last_changes: CancellationToken::new(),
        });
        registry.take_in(stored)?;
        registry.fill_credentials().await?;
        let last_changes = registry.last_changes.clone();
        let changes = Arc::clone(&registry).make_changes(asked, last_changes);
        registry.changes.spawn(changes);
        Ok(registry)
    }

    /// How the cluster CIDR is divided.
    pub fn plan(&self) -> &SubnetPlan {
        &self.plan
    }

    /// Whether a node has this id.
    pub(crate) fn knows(&self, node_id: &str) -> bool {
        self.copy.memory().roster.node(node_id).is_some()
    }

    /// The hostname of a node, for the log.
    pub(crate) fn hostname(&self, node_id: &NodeId) -> Option<String> {
        let memory = self.copy.memory();
        let node = memory.roster.node(node_id.as_str())?;
        Some(node.hostname.clone())
    }

    /// Takes a heartbeat. It touches no disk, so that a database in trouble takes nobody down.
    ///
    /// # Errors
    ///
    /// [`ChangeError::UnknownNode`], also for a node that deregistered or lost its address: a heartbeat
    /// that was delayed on its way must not revive it, and an agent that lives registers again.
    /// [`ChangeError::Store`], when this is a replica that the heartbeat would be lost on.
    ///
    /// `overlay_mtu` is what the node told with it, in bytes. Another than it told before is written with the
    /// next batch of heartbeats, and the nodes are told then.
    ///
    /// Returns the token to come with next.
    pub async fn heartbeat(
        &self,
        node_id: &str,
        overlay_mtu: Option<u32>,
        token: Option<HeartbeatToken>,
    ) -> Result<HeartbeatToken, ChangeError> {
        self.take_sign(node_id, Sign::Heartbeat(overlay_mtu), token)
            .await?;
        // It may have gone in this moment.
        self.hand_out(node_id, token)
            .ok_or(ChangeError::UnknownNode)
    }

    /// Takes a question of a node for a sign that it lives.
    ///
    /// # Errors
    ///
    /// As [`Self::heartbeat`].
    pub async fn asked_by(
        &self,
        node_id: &str,
        token: Option<HeartbeatToken>,
    ) -> Result<(), ChangeError> {
        self.take_sign(node_id, Sign::Question, token).await
    }

    /// Hands out the token that a node comes with next, in answer to `answered`; `None`: there is no such node.
    pub fn hand_out(
        &self,
        node_id: &str,
        answered: Option<HeartbeatToken>,
    ) -> Option<HeartbeatToken> {
        let liveness = &mut self.copy.memory().liveness;
        liveness.status(node_id)?;
        let node_id = NodeId::from(node_id.to_owned());
        Some(liveness.hand_out(&node_id, answered, nonce(), Instant::now()))
    }

    async fn take_sign(
        &self,
        node_id: &str,
        sign: Sign,
        token: Option<HeartbeatToken>,
    ) -> Result<(), ChangeError> {
        self.check_contact()?;
        let node_id = NodeId::from(node_id.to_owned());
        if let Some(()) = self.try_sign(&node_id, sign, token)? {
            return Ok(());
        }
        if self.replica.is_none() {
            return Err(ChangeError::UnknownNode);
        }
        // It may have registered at another replica a moment ago.
        self.refresh().await?;
        self.try_sign(&node_id, sign, token)?
            .ok_or(ChangeError::UnknownNode)
    }

    /// `None`: no node has this id, or one that has to register.
    fn try_sign(
        &self,
        node_id: &NodeId,
        sign: Sign,
        token: Option<HeartbeatToken>,
    ) -> Result<Option<()>, ChangeError> {
        let Memory {
            roster, liveness, ..
        } = &mut *self.copy.memory();
        let is_up = match liveness.status(node_id.as_str()) {
            None => return Ok(None),
            Some(status) => status == Status::Up,
        };
        let node = roster.node(node_id.as_str());
        let standing = liveness.standing(node_id.as_str(), token, false, Instant::now());
        if is_up && standing == Standing::Outdated {
            return Err(hold_off(liveness, node_id, node.map(Holder::from), None));
        }
        liveness.use_token(node_id, token);
        self.beat(liveness, node_id, sign);
        if let Sign::Heartbeat(overlay_mtu) = sign {
            let known = node.and_then(|node| node.overlay_mtu);
            liveness.tell_mtu(node_id.as_str(), overlay_mtu, known);
        }
        Ok(Some(()))
    }

    /// Notes that a node lives.
    pub(crate) fn beat(&self, liveness: &mut Liveness, node_id: &NodeId, sign: Sign) {
        let (id, now, seconds) = (node_id.as_str(), Instant::now(), unix_seconds());
        let beat = match sign {
            Sign::Heartbeat(_) => liveness.heartbeat(id, now, seconds),
            Sign::Question => liveness.sign(id, now, seconds),
        };
        if beat == Some(Beat::CameUp) {
            info!(name: "node-up-again", %node_id, "node is up again");
            self.status_changed.notify_one();
        }
    }

    pub(crate) fn subnet(&self, index: SubnetIndex) -> Result<Ipv4Net, StoreError> {
        self.plan.subnet(index).ok_or_else(|| {
            let number = index.number();
            StoreError::Damaged(format!(
                "there is a lease of subnet number {number} of {}",
                self.plan
            ))
        })
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

impl From<&Node> for Holder {
    fn from(node: &Node) -> Self {
        Self {
            node_id: node.node_id.clone(),
            hostname: node.hostname.clone(),
            host_ip: node.host_ip,
        }
    }
}

/// Refuses a host that comes with an outdated token while its node is up, and from where, if it says so.
pub(crate) fn hold_off(
    liveness: &mut Liveness,
    node_id: &NodeId,
    holder: Option<Holder>,
    copy_at: Option<std::net::Ipv4Addr>,
) -> ChangeError {
    if liveness.hold_off(node_id.as_str(), Instant::now(), unix_seconds()) {
        let (hostname, host_ip) = holder
            .as_ref()
            .map(|holder| (holder.hostname.as_str(), holder.host_ip))
            .unzip();
        warn!(name: "copy-node-host-running-elsewhere", %node_id, hostname, host_ip = host_ip.map(tracing::field::display), copy_at = copy_at.map(tracing::field::display),
            "a copy of this node's host is running elsewhere and is held off: give it a state directory of its own");
    }
    ChangeError::Copy { holder }
}

/// What nobody can guess, and no two tokens have in common.
pub(crate) fn nonce() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

/// The wall clock, for showing only. Before 1970 is 1970.
pub(crate) fn unix_seconds() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}
