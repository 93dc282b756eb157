//! What the registry tells: the node list, and what changed in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use mesh_rest::feed_query::FeedQuery;
use mesh_rest::node_id::NodeId;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Memory;
use super::feed::{From, Place};
use super::list_text::{Gathered, Kind, Shown};
use super::listed_node::ListedNode;
use super::roster::{Changed, News};
use super::whole_list::State;
use crate::cluster::history::Position;
use crate::cluster::node::Node;
use crate::cluster::succession::Succession;
use crate::http::answer;
use crate::registry::{ChangeError, Registry};
use crate::store::{Changes, StoreError, StoredNode};
use crate::write::batch::within;

/// How long reading what changed may take: longer than every deadline in the database, for when a
/// server is gone without a word.
pub(crate) const READ_DEADLINE: Duration = Duration::from_secs(10);

/// What was read from the database.
pub(super) struct Read {
    pub(super) position: Position,
    forgotten_revision: i64,
    /// Each with the revision at which it changed, whether it has to register before it is back, and its tokens.
    pub(super) nodes: Vec<(Node, i64, bool, Option<Succession>)>,
    keys: Vec<(NodeId, String)>,
    removed: Vec<(NodeId, i64)>,
}

/// Who is behind by so few revisions is told of as few nodes.
const NEAR: i64 = 64;

impl Memory {
    fn list_state(&self) -> State {
        State {
            place: self.place(),
            version: self.liveness.version(),
        }
    }

    /// From where a query is answered.
    fn start(&self, query: &FeedQuery) -> From {
        // Zero is what somebody asks from who has nothing, and needs no removals.
        let has_some = query.since > 0 || self.roster.revision() == 0;
        match has_some && self.is_asked(query) && self.roster.reaches(query.since) {
            true => From::Revision(query.since),
            false => From::Nothing,
        }
    }
}

impl Registry {
    /// All nodes, ordered by subnet.
    pub fn nodes(&self) -> Vec<Arc<ListedNode>> {
        let mut nodes: Vec<_> = self.copy.memory().roster.nodes().cloned().collect();
        nodes.sort_unstable_by_key(|node| node.subnet);
        nodes
    }

    /// All nodes as they are by now, ordered by subnet.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let mut nodes = shown(&self.copy.memory(), Instant::now());
        nodes.sort_unstable_by_key(|shown| shown.node.subnet);
        nodes
    }

    /// The list of all nodes as JSON, as they are by now: a change of status that is yet to be written is shown. All who
    /// ask share one text. Serialising to memory is not expected to fail.
    ///
    /// # Errors
    ///
    /// [`serde_json::Error`]: a bug.
    pub fn list(&self) -> Result<Bytes, serde_json::Error> {
        let now = Instant::now();
        let state = self.copy.memory().list_state();
        self.copy.whole_list.get(state, now, || {
            let (state, list) = {
                let memory = self.copy.memory();
                (memory.list_state(), self.gather_list(&memory, now))
            };
            Ok((state, answer::keep(list.text()?)))
        })
    }

    fn gather_list(&self, memory: &Memory, now: Instant) -> Gathered {
        let roster = &memory.roster;
        Gathered {
            revision: roster.revision(),
            database: memory.database().to_owned(),
            proofs: roster.proofs(),
            overlay: self.store.overlay(),
            nodes: shown(memory, now),
            kind: Kind::List,
        }
    }

    /// What changed since the revision that the asker has, as JSON; nothing, if nothing has (see
    /// [`Self::wait_for_news`]). Serialising to memory is not expected to fail.
    ///
    /// # Errors
    ///
    /// [`serde_json::Error`]: a bug.
    pub fn changes(&self, query: &FeedQuery) -> Result<Bytes, serde_json::Error> {
        let (from, place) = {
            let memory = self.copy.memory();
            (memory.start(query), memory.place())
        };
        self.copy.feed.answer(from, place, || {
            let (from, place, changes) = {
                let memory = self.copy.memory();
                let from = memory.start(query);
                let changes = self.gather_changes(&memory, from);
                (from, memory.place(), changes)
            };
            Ok((from, place, answer::keep(changes.text()?)))
        })
    }

    /// Waits until there is something to answer, as long as the query allows.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Store`], when this is a replica that has lost the database.
    pub async fn wait_for_news(&self, query: &FeedQuery) -> Result<(), ChangeError> {
        self.check_contact()?;
        if self.copy.memory().roster.revision() < query.since {
            // Another replica may have told of it. In a box: ten thousand wait below, and few here.
            Box::pin(self.refresh()).await?;
        }
        let since = {
            let memory = self.copy.memory();
            // Somebody who has none of these revisions is told everything at once.
            let can_wait = memory.is_asked(query) && memory.roster.reaches(query.since);
            can_wait.then_some(Place {
                era: memory.era,
                revision: query.since,
            })
        };
        if let Some(since) = since
            && !query.wait.is_zero()
        {
            tokio::select! {
                () = self.copy.feed.wait(since, query.wait) => {}
                // Of which the answer tells beside its body.
                () = self.checks.untold(query.node.as_deref()) => {}
            }
        }
        Ok(())
    }

    /// Whether the answer to the query may be a large one.
    pub(crate) fn is_far_behind(&self, query: &FeedQuery) -> bool {
        let memory = self.copy.memory();
        match memory.start(query) {
            From::Revision(since) => memory.roster.revision() - since > NEAR,
            From::Nothing => true,
        }
    }

    fn gather_changes(&self, memory: &Memory, from: From) -> Gathered {
        let Memory {
            roster, liveness, ..
        } = memory;
        let changed = match from {
            From::Revision(since) => roster.since(since),
            From::Nothing => None,
        };
        let (nodes, kind) = match changed {
            Some(Changed { nodes, removed }) => {
                let removed = removed.into_iter().cloned().collect();
                (nodes, Kind::Changes(removed))
            }
            None => (roster.nodes().collect(), Kind::Full),
        };
        // The status is that of the revision; the last heartbeat is only for people.
        let nodes = nodes.into_iter().map(|node| Shown {
            node: Arc::clone(node),
            status: node.status,
            last_heartbeat: liveness
                .look_up(&node.node_id)
                .map_or(node.last_heartbeat, |(_, last_heartbeat)| last_heartbeat),
            copy_held_off_at: None,
        });
        Gathered {
            revision: roster.revision(),
            database: memory.database().to_owned(),
            proofs: roster.proofs(),
            overlay: self.store.overlay(),
            nodes: nodes.collect(),
            kind,
        }
    }

    /// Takes in what a change did. The change is made whatever becomes of this: after a failure the
    /// next change, or the writer's next turn, brings it.
    pub(crate) async fn catch_up(&self) {
        if let Err(error) = self.try_catch_up().await {
            warn!(name: "change-stored-but-node-list", %error, "a change was stored, but the node list does not show it yet");
        }
    }

    pub(crate) async fn try_catch_up(&self) -> Result<(), Arc<StoreError>> {
        let read = async {
            let (known, stands) = {
                let memory = self.copy.memory();
                (memory.roster.revision(), memory.stands.clone())
            };
            let changes = self.store.changes_since(known, stands.as_ref());
            match within(READ_DEADLINE, changes).await {
                Ok(changes) => {
                    if let Some(replica) = &self.replica {
                        replica.compare(self.store.settings(), changes.settings);
                        replica.is_filled();
                    }
                    self.take_in(changes)
                }
                Err(error) => self.read_anew(stands, error).await,
            }
        };
        self.copy.reads.share(read).await?;
        match self.replica {
            // Of this one's own changes it knows.
            None => Ok(()),
            Some(_) => self.read_credentials().await,
        }
    }

    /// Called by one at a time, with what was read after the call before.
    pub(crate) fn take_in(&self, changes: Changes) -> Result<(), StoreError> {
        let read = self.translate(changes)?;
        let mut memory = self.copy.memory();
        self.apply(&mut memory, read);
        Ok(())
    }

    /// What was read, as it is kept.
    pub(super) fn translate(&self, changes: Changes) -> Result<Read, StoreError> {
        let mut keys = Vec::new();
        let nodes = changes.nodes.into_iter().map(|mut node| {
            let key = node.node_key.take();
            if let Some(key) = key.filter(|_| self.replica.is_some()) {
                keys.push((node.node_id.clone(), key));
            }
            let (revision, gone) = (node.revision, node.must_register);
            let succession = node.succession.take();
            Ok((self.show(node)?, revision, gone, succession))
        });
        let nodes = nodes.collect::<Result<_, StoreError>>()?;
        Ok(Read {
            position: changes.position,
            forgotten_revision: changes.forgotten_revision,
            nodes,
            keys,
            removed: changes.removed,
        })
    }

    pub(super) fn apply(&self, memory: &mut Memory, read: Read) {
        let now = Instant::now();
        let revision = read.position.revision;
        if memory.reached(read.position) {
            self.copy.feed.there_is_news();
        }
        if revision <= memory.roster.revision() {
            return;
        }
        for (node, _, gone, succession) in &read.nodes {
            if let Some(succession) = succession {
                memory.liveness.learn(&node.node_id, succession);
            }
            if *gone {
                memory.liveness.forget(&node.node_id);
                self.traffic.forget(node.node_id.as_str());
            } else {
                let (status, last_heartbeat) = (node.status, node.last_heartbeat);
                memory
                    .liveness
                    .adopt(&node.node_id, status, last_heartbeat, now);
            }
        }
        memory.keys.extend(read.keys);
        for (node_id, _) in &read.removed {
            memory.liveness.remove(node_id);
            memory.keys.remove(node_id);
            self.traffic.forget(node_id.as_str());
        }
        memory.roster.apply(News {
            revision,
            forgotten_revision: read.forgotten_revision,
            nodes: read
                .nodes
                .into_iter()
                .map(|(node, at, ..)| (node, at))
                .collect(),
            removed: read.removed,
        });
        self.copy.feed.there_is_news();
    }

    fn show(&self, node: StoredNode) -> Result<Node, StoreError> {
        Ok(Node {
            node_id: node.node_id,
            hostname: node.hostname,
            host_ip: node.host_ip,
            subnet: self.subnet(node.subnet)?,
            cpu_cores: node.cpu_cores,
            ram_mb: node.ram_mb,
            overlay_mtu: node.overlay_mtu,
            status: node.status,
            deregistered: node.must_register,
            left: node.left,
            registered_at: node.registered_at,
            last_heartbeat: node.last_heartbeat,
        })
    }

    /// Wakes those who wait for changes, until `stop`.
    pub async fn publish_news(self: Arc<Self>, stop: CancellationToken) {
        let place = || self.copy.memory().place();
        self.copy.feed.publish(place, stop).await;
    }
}

/// All nodes as they are by now.
fn shown(memory: &Memory, now: Instant) -> Vec<Shown> {
    let Memory {
        roster, liveness, ..
    } = memory;
    let nodes = roster.nodes().map(|node| {
        let (status, last_heartbeat) = liveness
            .look_up(&node.node_id)
            .unwrap_or((node.status, node.last_heartbeat));
        Shown {
            node: Arc::clone(node),
            status,
            last_heartbeat,
            copy_held_off_at: liveness.held_off_at(&node.node_id, now),
        }
    });
    nodes.collect()
}
