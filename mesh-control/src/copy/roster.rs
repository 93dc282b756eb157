//! The roster: the node list in memory, with the revision at which each node last changed.
//!
//! The pure core of the change feed. It keeps no log of changes: a node has one place in the order
//! of revisions, that of its last change, so that what changed since any revision is a range of that
//! order, and the feed reaches back as far as removals are remembered.

use std::collections::{BTreeSet, HashMap};

use mesh_rest::digest::{Digest, DigestedNode};

use crate::cluster::node::{Node, NodeId, Status};

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
    pub nodes: Vec<&'a Node>,
    /// Nodes that are gone; may name some that the asker never had.
    pub removed: Vec<&'a NodeId>,
}

#[derive(Debug)]
enum Entry {
    Present(Node),
    Removed,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Roster {
    revision: i64,
    forgotten_revision: i64,
    entries: HashMap<NodeId, (Entry, i64)>,
    by_revision: BTreeSet<(i64, NodeId)>,
    digest: Digest,
}

impl Roster {
    /// The revision of the list.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The digest of all nodes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Takes in what changed after any revision up to the roster's own. News that are older than
    /// the roster are ignored.
    pub fn apply(&mut self, news: News) {
        if news.revision <= self.revision {
            return;
        }
        self.revision = news.revision;
        for (node, revision) in news.nodes {
            self.put(node.node_id.clone(), Entry::Present(node), revision);
        }
        for (node_id, revision) in news.removed {
            self.put(node_id, Entry::Removed, revision);
        }
        self.forget(news.forgotten_revision);
    }

    fn put(&mut self, node_id: NodeId, entry: Entry, revision: i64) {
        if let Entry::Present(node) = &entry {
            add(&mut self.digest, node, node.status);
        }
        self.by_revision.insert((revision, node_id.clone()));
        let old = self.entries.insert(node_id.clone(), (entry, revision));
        if let Some((old, old_revision)) = old {
            if let Entry::Present(node) = &old {
                remove(&mut self.digest, node, node.status);
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
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.entries.values().filter_map(|(entry, _)| match entry {
            Entry::Present(node) => Some(node),
            Entry::Removed => None,
        })
    }

    /// The node with this id.
    pub fn node(&self, node_id: &str) -> Option<&Node> {
        match self.entries.get(node_id) {
            Some((Entry::Present(node), _)) => Some(node),
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

    /// The digest of the list in which some nodes have another status than in the roster.
    pub fn digest_with<'a>(&self, others: impl Iterator<Item = (&'a Node, Status)>) -> Digest {
        let mut digest = self.digest;
        for (node, status) in others {
            remove(&mut digest, node, node.status);
            add(&mut digest, node, status);
        }
        digest
    }
}

fn add(digest: &mut Digest, node: &Node, status: Status) {
    with_digested(node, status, |node| digest.add(node));
}

fn remove(digest: &mut Digest, node: &Node, status: Status) {
    with_digested(node, status, |node| digest.remove(node));
}

fn with_digested(node: &Node, status: Status, then: impl FnOnce(&DigestedNode<'_>)) {
    then(&DigestedNode {
        node_id: node.node_id.as_str(),
        hostname: &node.hostname,
        host_ip: &node.host_ip.to_string(),
        subnet: &node.subnet.to_string(),
        status: status.as_str(),
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from(format!("node-{n}"))
    }

    fn node(n: u8, version: u8) -> Node {
        Node {
            node_id: id(n),
            hostname: format!("host-{version}"),
            host_ip: Ipv4Addr::new(192, 0, 2, n),
            subnet: format!("10.42.{}.0/24", n + 1).parse().unwrap(),
            cpu_cores: None,
            ram_mb: None,
            overlay_mtu: None,
            status: if version.is_multiple_of(2) {
                Status::Up
            } else {
                Status::Down
            },
            deregistered: false,
            left: false,
            registered_at: 0,
            last_heartbeat: 0,
            copy_held_off_at: None,
        }
    }

    /// One revision of the database: nodes that get a version, nodes that go.
    type Step = (Vec<(u8, u8)>, Vec<u8>, Option<u8>);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let put = prop::collection::vec((0_u8..6, 0_u8..4), 0..3);
        let gone = prop::collection::vec(0_u8..6, 0..2);
        // Seldom, removals are forgotten up to so many revisions back.
        let forget = prop::option::weighted(0.1, 0_u8..5);
        prop::collection::vec((put, gone, forget), 0..40)
    }

    type Copy = BTreeMap<NodeId, Node>;

    proptest! {
        /// A copy that was right at any revision is right again after what changed since, with the
        /// same digest; the roster refuses exactly what it cannot tell.
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
                let all: Copy = roster.nodes().map(|node| (node.node_id.clone(), node.clone())).collect();
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
                let mut digest = Digest::default();
                now.values().for_each(|node| add(&mut digest, node, node.status));
                prop_assert_eq!(roster.digest(), digest);
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
                    copy.extend(changed.nodes.iter().map(|node| (node.node_id.clone(), (*node).clone())));
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
        assert_eq!(roster.digest(), expected);
        assert_ne!(expected, Digest::default());
    }

    #[test]
    fn the_digest_of_the_list_as_shown_counts_each_node_once() {
        let mut roster = Roster::default();
        roster.apply(News {
            revision: 1,
            nodes: vec![(node(1, 0), 1), (node(2, 0), 1)],
            ..News::default()
        });
        let shown = roster.digest_with(
            roster
                .nodes()
                .filter(|n| n.node_id == id(1))
                .map(|n| (n, Status::Down)),
        );
        let mut down = node(1, 0);
        down.status = Status::Down;
        let mut expected = Roster::default();
        expected.apply(News {
            revision: 1,
            nodes: vec![(down, 1), (node(2, 0), 1)],
            ..News::default()
        });
        assert_eq!(shown, expected.digest());
    }
}
