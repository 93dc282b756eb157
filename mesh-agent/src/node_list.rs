//! This node's copy of the control plane's node list, kept by what changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_rest::{node_id::NodeId, node_list::NodesAnswer};

use crate::node::Node;
use proofs::{Expected, Proofs};

mod proofs;

/// What to ask the control plane for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The whole list.
    Whole,
    /// What changed, as soon as something did.
    News {
        /// Since this revision,
        since: i64,
        /// of this database.
        database: String,
    },
}

/// What an answer did to the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The copy is the control plane's list.
    Current {
        /// Whether it was another one before.
        changed: bool,
    },
    /// The changes do not lead from the copy to the control plane's list. Nothing is taken
    /// over, and the next question is for the whole list.
    Diverged,
    /// A list older than the copy, of the same database: this replica of the control plane
    /// has not caught up with the one asked before. Nothing is taken over.
    Lagging,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    database: String,
    revision: i64,
}

/// The copy. Revision and database say where it stands in the feed; the proofs, whether it
/// really does.
#[derive(Debug, Default)]
pub struct NodeList {
    nodes: Arc<BTreeMap<String, Node>>,
    removed: Arc<BTreeSet<String>>,
    proofs: Proofs,
    /// The latest revision that was taken over, if the control plane has a feed.
    position: Option<Position>,
    /// Whether the next question is for the whole list, whatever the position.
    whole: bool,
    /// Since when every list is older than the copy.
    behind_since: Option<Instant>,
}

impl NodeList {
    /// The nodes by id.
    #[must_use]
    pub fn nodes(&self) -> Arc<BTreeMap<String, Node>> {
        Arc::clone(&self.nodes)
    }

    /// The ids of nodes that were taken out of the cluster since the last whole list.
    #[must_use]
    pub fn removed(&self) -> Arc<BTreeSet<String>> {
        Arc::clone(&self.removed)
    }

    /// Where it stands in the control plane's feed, if there is one.
    #[must_use]
    pub fn revision(&self) -> Option<i64> {
        self.position.as_ref().map(|position| position.revision)
    }

    /// What to ask for next.
    #[must_use]
    pub fn question(&self) -> Question {
        match &self.position {
            Some(position) if !self.whole => Question::News {
                since: position.revision,
                database: position.database.clone(),
            },
            _ => Question::Whole,
        }
    }

    /// Takes over an answer that came at `now`. A list older than the copy is taken over only
    /// when for `patience` there was no other: the database was restored from a backup then.
    pub fn apply(
        &mut self,
        answer: NodesAnswer<'static>,
        now: Instant,
        patience: Duration,
    ) -> Outcome {
        let Some(expected) = Expected::of(answer.digest, answer.proof) else {
            // No feed: this list is all there is to know.
            self.position = None;
            return self.replace(answer.nodes);
        };
        let same_database = self
            .position
            .as_ref()
            .filter(|position| position.database == answer.database);
        if let Some(position) = same_database
            && answer.revision < position.revision
        {
            let since = *self.behind_since.get_or_insert(now);
            if now.saturating_duration_since(since) < patience {
                return Outcome::Lagging;
            }
        }
        if answer.full.unwrap_or(true) {
            let outcome = self.replace(answer.nodes);
            self.position = Some(Position {
                database: answer.database.into_owned(),
                revision: answer.revision,
            });
            // A list that is not what its own proof says cannot be followed by changes.
            self.whole = !self.proofs.agree(&expected);
            return outcome;
        }
        if same_database.is_none() || self.whole {
            self.whole = true;
            return Outcome::Diverged;
        }
        let removed = answer.removed.unwrap_or_default();
        self.change(answer.nodes, removed, answer.revision, &expected)
    }

    fn replace(&mut self, nodes: Vec<Node>) -> Outcome {
        let nodes: BTreeMap<_, _> = nodes.into_iter().map(kept).collect();
        let changed = nodes != *self.nodes;
        self.proofs = Proofs::of(nodes.values());
        if changed {
            self.nodes = Arc::new(nodes);
        }
        self.removed = Arc::default();
        self.whole = false;
        self.behind_since = None;
        Outcome::Current { changed }
    }

    /// Computes the proofs first: changes that do not fit change nothing.
    fn change(
        &mut self,
        nodes: Vec<Node>,
        removed: Vec<NodeId>,
        revision: i64,
        expected: &Expected,
    ) -> Outcome {
        let mut after: BTreeMap<String, Option<Node>> = removed
            .into_iter()
            .map(|node_id| (node_id.into(), None))
            .collect();
        for (node_id, node) in nodes.into_iter().map(kept) {
            after.insert(node_id, Some(node));
        }
        let mut proofs = self.proofs;
        for (node_id, new) in &after {
            if let Some(old) = self.nodes.get(node_id) {
                proofs.remove(old);
            }
            if let Some(new) = new {
                proofs.add(new);
            }
        }
        if !proofs.agree(expected) {
            self.whole = true;
            return Outcome::Diverged;
        }
        let mut changed = false;
        for (node_id, new) in after {
            if self.nodes.get(&node_id) == new.as_ref() {
                continue;
            }
            changed = true;
            let nodes = Arc::make_mut(&mut self.nodes);
            match new {
                Some(node) => {
                    nodes.insert(node_id, node);
                }
                None => {
                    nodes.remove(&node_id);
                    Arc::make_mut(&mut self.removed).insert(node_id);
                }
            }
        }
        self.proofs = proofs;
        self.behind_since = None;
        if let Some(position) = &mut self.position {
            position.revision = revision;
        }
        Outcome::Current { changed }
    }
}

/// A node as it is kept, by its id: without its heartbeats, which are no change of the list.
fn kept(node: Node) -> (String, Node) {
    (node.node_id.to_string(), node.without_beats())
}

#[cfg(test)]
#[path = "node_list_tests.rs"]
mod tests;
