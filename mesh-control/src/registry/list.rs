//! What the registry tells: the node list, and what changed in it.

use std::sync::{Arc, PoisonError, RwLockReadGuard};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::commit::within;
use super::{ChangeError, Registry};
use crate::feed::From;
use crate::feed_query::FeedQuery;
use crate::node::{Node, NodeChanges, NodeList};
use crate::roster::{Changed, News, Roster};
use crate::store::{Changes, StoreError, StoredNode};

/// How long reading what changed may take: longer than every deadline in the database, for when a
/// server is gone without a word.
pub(super) const READ_DEADLINE: Duration = Duration::from_secs(10);

impl Registry {
    /// All nodes, as they are by now: a change of status that is yet to be written is shown.
    pub fn list(&self) -> NodeList {
        let roster = self.roster();
        let liveness = self.liveness();
        let mut changed_status = Vec::new();
        let mut nodes: Vec<Node> = roster
            .nodes()
            .map(|node| {
                let mut shown = node.clone();
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
        drop(liveness);
        nodes.sort_unstable_by_key(|node| node.subnet);
        NodeList {
            revision: roster.revision(),
            database: self.store.database().to_owned(),
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
        let roster = self.roster();
        let changed = Some(query.since)
            // Zero is what somebody asks from who has nothing, and needs no removals.
            .filter(|&since| self.is_of_here(query) && (since > 0 || roster.revision() == 0))
            .and_then(|since| roster.since(since));
        let from = match changed {
            Some(_) => From::Revision(query.since),
            None => From::Nothing,
        };
        Ok(self.feed.answer(from, roster.revision(), || {
            self.serialise(&roster, changed).map(Bytes::from)
        }))
    }

    /// Waits until there is something to answer, as long as the query allows.
    ///
    /// # Errors
    ///
    /// As [`Self::changes`].
    pub async fn wait_for_news(&self, query: &FeedQuery) -> Result<(), ChangeError> {
        self.check_contact()?;
        if self.roster().revision() < query.since {
            // Another replica may have told of it. In a box: ten thousand wait below, and few here.
            Box::pin(self.refresh()).await?;
        }
        // Somebody who has none of these revisions is told everything at once.
        let can_wait = self.is_of_here(query) && self.roster().since(query.since).is_some();
        if can_wait && !query.wait.is_zero() {
            self.feed.wait(query.since, query.wait).await;
        }
        Ok(())
    }

    /// Whether the asker's revision is one of this database, as far as it says.
    fn is_of_here(&self, query: &FeedQuery) -> bool {
        let database = query.database.as_ref();
        database.is_none_or(|database| database == self.store.database())
    }

    fn serialise(
        &self,
        roster: &Roster,
        changed: Option<Changed<'_>>,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let full = changed.is_none();
        let Changed { mut nodes, removed } = changed.unwrap_or_else(|| Changed {
            nodes: roster.nodes().collect(),
            removed: Vec::new(),
        });
        nodes.sort_unstable_by_key(|node| node.subnet);
        let liveness = self.liveness();
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
        drop(liveness);
        serde_json::to_vec(&NodeChanges {
            revision: roster.revision(),
            database: self.store.database(),
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
    pub(super) async fn catch_up(&self) {
        if let Err(error) = self.try_catch_up().await {
            warn!(%error, "a change was stored, but the node list does not show it yet");
        }
    }

    pub(super) async fn try_catch_up(&self) -> Result<(), StoreError> {
        let known = self.roster().revision();
        let changes = within(READ_DEADLINE, self.store.changes_since(known)).await?;
        if let Some(replica) = &self.replica {
            replica.compare(self.store.overlay(), changes.overlay);
        }
        self.take_in(changes)
    }

    pub(super) fn take_in(&self, changes: Changes) -> Result<(), StoreError> {
        let revision = changes.revision;
        if revision <= self.roster().revision() {
            return Ok(());
        }
        let now = Instant::now();
        let mut nodes = Vec::with_capacity(changes.nodes.len());
        let mut liveness = self.liveness();
        for node in changes.nodes {
            if node.must_register {
                liveness.forget(&node.node_id);
                self.traffic.forget(node.node_id.as_str());
            } else {
                liveness.adopt(&node.node_id, node.status, node.last_heartbeat, now);
            }
            let at = node.revision;
            nodes.push((self.show(node)?, at));
        }
        for (node_id, _) in &changes.removed {
            liveness.forget(node_id);
            self.traffic.forget(node_id.as_str());
        }
        drop(liveness);
        let news = News {
            revision,
            forgotten_revision: changes.forgotten_revision,
            nodes,
            removed: changes.removed,
        };
        // The roster is never left half changed: nothing in it panics.
        self.roster
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .apply(news);
        self.feed.there_is_news();
        Ok(())
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
            registered_at: node.registered_at,
            last_heartbeat: node.last_heartbeat,
        })
    }

    /// Wakes those who wait for changes, until `stop`.
    pub async fn publish_news(self: Arc<Self>, stop: CancellationToken) {
        let revision = || self.roster().revision();
        self.feed.publish(revision, stop).await;
    }

    pub(super) fn roster(&self) -> RwLockReadGuard<'_, Roster> {
        self.roster.read().unwrap_or_else(PoisonError::into_inner)
    }
}
