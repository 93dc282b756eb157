//! The roster: the node list in memory, with the revision at which each node last changed.
//!
//! The pure core of the change feed. It keeps no log of changes: a node has one place in the order
//! of revisions, that of its last change, so that what changed since any revision is a range of that
//! order, and the feed reaches back as far as removals are remembered.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mesh_rest::node_id::NodeId;

use super::listed_node::{ListedNode, Proofs};
use crate::cluster::node::Node;

/// What the database says has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// The revision that the roster has afterwards.
    pub revision: i64,
    /// Removals up to and including this revision are forgotten.
    pub forgotten_revision: i64,
    /// Nodes that changed or are new, each with the revision at which it did.
    pub nodes: Vec<(Node, i64)>,
    /// Nodes that were removed, each with the revision at which it was.
    pub removed: Vec<(NodeId, i64)>,
}

/// What changed after some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed<'a> {
    /// Nodes that changed or are new.
    pub nodes: Vec<&'a Arc<ListedNode>>,
    /// Nodes that are gone; may name some that the asker never had.
    pub removed: Vec<&'a NodeId>,
}

#[derive(Debug)]
enum Entry {
    Present(Arc<ListedNode>),
    Removed,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Roster {
    revision: i64,
    forgotten_revision: i64,
    entries: HashMap<NodeId, (Entry, i64)>,
    by_revision: BTreeSet<(i64, NodeId)>,
    proofs: Proofs,
}

impl Roster {
    /// The revision of the list.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What proves a copy of all nodes right.
    pub fn proofs(&self) -> Proofs {
        self.proofs
    }

    /// Takes in what changed after any revision up to the roster's own. News that are older than
    /// the roster are ignored.
    pub fn apply(&mut self, news: News) {
        if news.revision <= self.revision {
            return;
        }
        self.revision = news.revision;
        for (node, revision) in news.nodes {
            let node_id = node.node_id.clone();
            let node = Arc::new(ListedNode::new(node));
            self.put(node_id, Entry::Present(node), revision);
        }
        for (node_id, revision) in news.removed {
            self.put(node_id, Entry::Removed, revision);
        }
        self.forget(news.forgotten_revision);
    }

    fn put(&mut self, node_id: NodeId, entry: Entry, revision: i64) {
        if let Entry::Present(node) = &entry {
            self.proofs.add(node);
        }
        self.by_revision.insert((revision, node_id.clone()));
        let old = self.entries.insert(node_id.clone(), (entry, revision));
        if let Some((old, old_revision)) = old {
            if let Entry::Present(node) = &old {
                self.proofs.remove(node);
            }
            if old_revision != revision {
                self.by_revision.remove(&(old_revision, node_id));
            }
        }
    }

    /// Drops the removals that the database no longer remembers.
    fn forget(&mut self, forgotten_revision: i64) {
        if forgotten_revision <= self.forgotten_revision {
            return;
        }
        self.forgotten_revision = forgotten_revision;
        let old: Vec<_> = self
            .by_revision
            .iter()
            .take_while(|(revision, _)| *revision <= forgotten_revision)
            .filter(|(_, node_id)| matches!(self.entries.get(node_id), Some((Entry::Removed, _))))
            .cloned()
            .collect();
        for place in old {
            self.entries.remove(&place.1);
            self.by_revision.remove(&place);
        }
    }

    /// Every node, in no order.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<ListedNode>> {
        self.entries.values().filter_map(|(entry, _)| match entry {
            Entry::Present(node) => Some(node),
            Entry::Removed => None,
        })
    }

    /// The node with this id.
    pub fn node(&self, node_id: &str) -> Option<&Node> {
        match self.entries.get(node_id) {
            Some((Entry::Present(node), _)) => Some(&**node),
            Some((Entry::Removed, _)) | None => None,
        }
    }

    /// Whether it can tell what changed after `revision`: not if the feed does not reach back that far, or `revision`
    /// is yet to come.
    pub fn reaches(&self, revision: i64) -> bool {
        (self.forgotten_revision..=self.revision).contains(&revision)
    }

    /// What changed after `revision`, oldest change first. `None`: see [`Self::reaches`].
    pub fn since(&self, revision: i64) -> Option<Changed<'_>> {
        if !self.reaches(revision) {
            return None;
        }
        let mut changed = Changed {
            nodes: Vec::new(),
            removed: Vec::new(),
        };
        // Node ids are not empty, so this place comes before every node of the next revision.
        let after = (revision + 1, NodeId::from(String::new()));
        for (_, node_id) in self.by_revision.range(after..) {
            match self.entries.get(node_id) {
                Some((Entry::Present(node), _)) => changed.nodes.push(node),
                Some((Entry::Removed, _)) => changed.removed.push(node_id),
                None => {}
            }
        }
        Some(changed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use mesh_rest::digest::{Digest, DigestedNode};
    use mesh_rest::status::Status;
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from(format!("node-{n}"))
    }

    fn node(n: u8, version: u8) -> Node {
        Node {
            node_id: id(n),
            hostname: format!("host-{}", version % 4),
            host_ip: Ipv4Addr::new(192, 0, 2, n),
            subnet: format!("10.42.{}.0/24", n + 1).parse().unwrap(),
            cpu_cores: None,
            ram_mb: None,
            // In no digest.
            overlay_mtu: (version > 5).then_some(1450),
            status: if version.is_multiple_of(2) {
                Status::Up
            } else {
                Status::Down
            },
            deregistered: false,
            left: version > 3,
            registered_at: 0,
            last_heartbeat: 0,
        }
    }

    /// One revision of the database: nodes that get a version, nodes that go.
    type Step = (Vec<(u8, u8)>, Vec<u8>, Option<u8>);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let put = prop::collection::vec((0_u8..6, 0_u8..8), 0..3);
        let gone = prop::collection::vec(0_u8..6, 0..2);
        // Seldom, removals are forgotten up to so many revisions back.
        let forget = prop::option::weighted(0.1, 0_u8..5);
        prop::collection::vec((put, gone, forget), 0..40)
    }

    type Copy = BTreeMap<NodeId, Node>;

    proptest! {
        /// A copy that was right at any revision is right again after what changed since, with the
        /// same proofs; the roster refuses exactly what it cannot tell.
        #[test]
        fn a_copy_of_any_age_catches_up(steps in steps()) {
            let mut roster = Roster::default();
            let mut now = Copy::new();
            let mut copies: Vec<Copy> = vec![now.clone()];
            let mut forgotten = 0;
            for (put, gone, forget) in steps {
                let revision = i64::try_from(copies.len()).unwrap();
                let mut news = News { revision, ..News::default() };
                for (n, version) in put {
                    // A removed id never comes back.
                    if news.nodes.iter().all(|(node, _)| node.node_id != id(n))
                        && !matches!(roster.entries.get(&id(n)), Some((Entry::Removed, _)))
                    {
                        now.insert(id(n), node(n, version));
                        news.nodes.push((node(n, version), revision));
                    }
                }
                for n in gone {
                    if now.contains_key(&id(n)) && news.nodes.iter().all(|(node, _)| node.node_id != id(n)) {
                        now.remove(&id(n));
                        news.removed.push((id(n), revision));
                    }
                }
                if let Some(back) = forget {
                    forgotten = forgotten.max(revision - i64::from(back));
                }
                news.forgotten_revision = forgotten;
                roster.apply(news.clone());
                // News of a revision that it has, or had, change nothing.
                for revision in [revision - 1, revision] {
                    roster.apply(News { revision, nodes: vec![(node(9, 0), revision)], ..news.clone() });
                }
                copies.push(now.clone());

                prop_assert_eq!(roster.revision(), revision);
                let all: Copy = roster.nodes().map(|node| (node.node_id.clone(), Node::clone(node))).collect();
                prop_assert_eq!(&all, &now);
                for n in 0..6 {
                    prop_assert_eq!(roster.node(id(n).as_str()), now.get(&id(n)));
                }
                // Each has one place in the order, and a removal that nobody can ask for has none.
                prop_assert_eq!(roster.by_revision.len(), roster.entries.len());
                let oldest_removal = roster.entries.values()
                    .filter(|(entry, _)| matches!(entry, Entry::Removed))
                    .map(|(_, revision)| *revision)
                    .min();
                prop_assert!(oldest_removal.is_none_or(|revision| revision > forgotten));
                let mut proofs = Proofs::default();
                now.values().for_each(|node| proofs.add(&ListedNode::new(node.clone())));
                prop_assert_eq!(roster.proofs(), proofs);
                prop_assert_eq!(roster.since(revision + 1), None);
                for (since, copy) in (0..).zip(&copies) {
                    let Some(changed) = roster.since(since) else {
                        prop_assert!(since < forgotten);
                        continue;
                    };
                    prop_assert!(since >= forgotten);
                    // Oldest first, and nothing that the asker has already.
                    let ids = changed.nodes.iter().map(|node| &node.node_id);
                    let revisions: Vec<_> = ids.map(|id| roster.entries[id].1).collect();
                    prop_assert!(revisions.is_sorted() && revisions.iter().all(|revision| *revision > since));
                    prop_assert!(changed.removed.iter().all(|id| roster.entries[*id].1 > since));
                    let mut copy = copy.clone();
                    copy.extend(changed.nodes.iter().map(|node| (node.node_id.clone(), Node::clone(node))));
                    for gone in changed.removed {
                        copy.remove(gone);
                    }
                    prop_assert_eq!(&copy, &now, "since {}", since);
                }
            }
        }
    }

    #[test]
    fn the_digest_is_that_of_what_the_list_says() {
        let mut roster = Roster::default();
        roster.apply(News {
            revision: 1,
            nodes: vec![(node(1, 0), 1)],
            ..News::default()
        });
        let mut expected = Digest::default();
        expected.add(&DigestedNode {
            node_id: "node-1",
            hostname: "host-0",
            host_ip: "192.0.2.1",
            subnet: "10.42.2.0/24",
            status: "up",
        });
        assert_eq!(roster.proofs().digest, expected);
        assert_ne!(expected, Digest::default());
    }
}
