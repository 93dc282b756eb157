//! What the registry tells: the node list, and what changed in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Memory;
use super::feed::{From, Place};
use super::roster::{Changed, News};
use crate::api::feed_query::FeedQuery;
use crate::cluster::history::Position;
use crate::cluster::node::{Node, NodeChanges, NodeId, NodeList};
use crate::cluster::succession::Succession;
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

impl Registry {
    /// All nodes, as they are by now: a change of status that is yet to be written is shown.
    pub fn list(&self) -> NodeList {
        let now = Instant::now();
        let memory = &*self.copy.memory();
        let Memory {
            roster, liveness, ..
        } = memory;
        let mut changed_status = Vec::new();
        let mut nodes: Vec<Node> = roster
            .nodes()
            .map(|node| {
                let mut shown = node.clone();
                shown.copy_held_off_at = liveness.held_off_at(&node.node_id, now);
                if let Some((status, last_heartbeat)) = liveness.look_up(&node.node_id) {
                    shown.last_heartbeat = last_heartbeat;
                    shown.status = status;
                    if status != node.status {
                        changed_status.push((node, status));
                    }
                }
                shown
            })
            .collect();
        nodes.sort_unstable_by_key(|node| node.subnet);
        NodeList {
            revision: roster.revision(),
            database: memory.database().to_owned(),
            digest: roster.digest_with(changed_status.into_iter()).to_string(),
            vxlan_port: self.store.overlay().vxlan_port,
            vni: self.store.overlay().vni,
            nodes,
        }
    }

    /// What changed since the revision that the asker has, as JSON; waits for it if nothing has.
    /// Serialising to memory is not expected to fail.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Store`], when this is a replica that has lost the database.
    pub async fn changes(
        &self,
        query: &FeedQuery,
    ) -> Result<Result<Bytes, serde_json::Error>, ChangeError> {
        self.wait_for_news(query).await?;
        let memory = self.copy.memory();
        let roster = &memory.roster;
        let changed = Some(query.since)
            // Zero is what somebody asks from who has nothing, and needs no removals.
            .filter(|&since| memory.is_asked(query) && (since > 0 || roster.revision() == 0))
            .and_then(|since| roster.since(since));
        let from = match changed {
            Some(_) => From::Revision(query.since),
            None => From::Nothing,
        };
        Ok(self.copy.feed.answer(from, memory.place(), || {
            self.serialise(&memory, changed).map(Bytes::from)
        }))
    }

    /// Waits until there is something to answer, as long as the query allows.
    ///
    /// # Errors
    ///
    /// As [`Self::changes`].
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
            self.copy.feed.wait(since, query.wait).await;
        }
        Ok(())
    }

    fn serialise(
        &self,
        memory: &Memory,
        changed: Option<Changed<'_>>,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let Memory {
            roster, liveness, ..
        } = memory;
        let full = changed.is_none();
        let Changed { mut nodes, removed } = changed.unwrap_or_else(|| Changed {
            nodes: roster.nodes().collect(),
            removed: Vec::new(),
        });
        nodes.sort_unstable_by_key(|node| node.subnet);
        // The status is that of the revision; the last heartbeat is only for people.
        let nodes: Vec<Node> = nodes
            .into_iter()
            .map(|node| Node {
                last_heartbeat: liveness
                    .look_up(&node.node_id)
                    .map_or(node.last_heartbeat, |(_, last_heartbeat)| last_heartbeat),
                ..node.clone()
            })
            .collect();
        serde_json::to_vec(&NodeChanges {
            revision: roster.revision(),
            database: memory.database(),
            digest: roster.digest().to_string(),
            vxlan_port: self.store.overlay().vxlan_port,
            vni: self.store.overlay().vni,
            full,
            nodes,
            removed,
        })
    }

    /// Takes in what a change did. The change is made whatever becomes of this: after a failure the
    /// next change, or the writer's next turn, brings it.
    pub(crate) async fn catch_up(&self) {
        if let Err(error) = self.try_catch_up().await {
            warn!(%error, "a change was stored, but the node list does not show it yet");
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
        self.copy.reads.share(read).await
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
            copy_held_off_at: None,
        })
    }

    /// Wakes those who wait for changes, until `stop`.
    pub async fn publish_news(self: Arc<Self>, stop: CancellationToken) {
        let place = || self.copy.memory().place();
        self.copy.feed.publish(place, stop).await;
    }
}
