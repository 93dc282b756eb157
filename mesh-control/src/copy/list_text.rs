//! The text of a list, put together from that of its entries.
//!
//! What an answer says is gathered under the lock, entry by entry without a copy; then, without the lock, it becomes one
//! text, which all who ask for the same share.

use std::borrow::Cow;
use std::sync::Arc;

use mesh_rest::node_id::NodeId;
use mesh_rest::node_list::NodesAnswer;
use mesh_rest::overlay::Overlay;
use mesh_rest::status::Status;

use super::listed_node::{ListedNode, Proofs};

/// What an answer says.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) revision: i64,
    pub(super) database: String,
    /// Of the list at this revision.
    pub(super) proofs: Proofs,
    pub(super) overlay: Overlay,
    pub(super) nodes: Vec<Shown>,
    pub(super) kind: Kind,
}

/// What kind of answer it is.
#[derive(Debug)]
pub(super) enum Kind {
    /// The list, not asked for by a revision.
    List,
    /// The list, for want of changes to tell.
    Full,
    /// What changed, and who is gone.
    Changes(Vec<NodeId>),
}

/// An entry as it is shown.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) node: Arc<ListedNode>,
    /// What it is by now, which may be yet to be written.
    pub(crate) status: Status,
    pub(crate) last_heartbeat: i64,
    pub(crate) copy_held_off_at: Option<i64>,
}

impl Gathered {
    /// The answer as JSON. Serialising to memory is not expected to fail.
    pub(super) fn text(mut self) -> Result<Vec<u8>, serde_json::Error> {
        self.nodes.sort_unstable_by_key(|shown| shown.node.subnet);
        for shown in &mut self.nodes {
            if shown.status != shown.node.status {
                let now = shown.node.with_status(shown.status);
                self.proofs.remove(&shown.node);
                self.proofs.add(&now);
                shown.node = Arc::new(now);
            }
        }
        let (full, removed) = match self.kind {
            Kind::List => (None, None),
            Kind::Full => (Some(true), Some(Vec::new())),
            Kind::Changes(removed) => (Some(false), Some(removed)),
        };
        let rest = serde_json::to_vec(&NodesAnswer {
            revision: self.revision,
            database: Cow::Borrowed(&self.database),
            digest: Some(self.proofs.digest.to_string()),
            proof: Some(self.proofs.proof.to_string()),
            vxlan_port: Some(self.overlay.vxlan_port.into()),
            vni: Some(self.overlay.vni.into()),
            full,
            nodes: Vec::new(),
            removed,
        })?;
        let (before, after) = around_nodes(&rest);
        // Grown bit by bit it would take twice as much, for as long as a client reads it.
        let size: usize = self.nodes.iter().map(|shown| shown.node.size()).sum();
        let mut text = Vec::with_capacity(rest.len() + size);
        text.extend_from_slice(before);
        for (position, shown) in self.nodes.iter().enumerate() {
            if position > 0 {
                text.push(b',');
            }
            let Shown {
                node,
                last_heartbeat,
                copy_held_off_at,
                ..
            } = shown;
            node.write(&mut text, *last_heartbeat, *copy_held_off_at);
        }
        text.extend_from_slice(after);
        Ok(text)
    }
}

/// An answer without nodes as what comes before them and what comes after. Within a text there is a backslash before
/// each quotation mark, so that the name of the member stands nowhere before the member.
fn around_nodes(answer: &[u8]) -> (&[u8], &[u8]) {
    const MEMBER: &[u8] = br#","nodes":["#;
    let found = answer
        .windows(MEMBER.len())
        .position(|window| window == MEMBER);
    answer.split_at(found.map_or(answer.len(), |at| at + MEMBER.len()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use mesh_rest::node::NodeEntry;
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::node::Node;
    use crate::copy::listed_node::entry;

    /// As no control plane makes one: with what looks like the member that the nodes stand in.
    const DATABASE: &str = r#"db","nodes":["#;

    fn node(n: u8, status: Status) -> Node {
        Node {
            node_id: NodeId::from(format!("node-{n}")),
            hostname: format!("host-{n}"),
            host_ip: Ipv4Addr::new(192, 0, 2, n),
            subnet: format!("10.42.{n}.0/24").parse().unwrap(),
            cpu_cores: Some(4),
            ram_mb: None,
            overlay_mtu: None,
            status,
            deregistered: false,
            left: false,
            registered_at: 7,
            last_heartbeat: 7,
        }
    }

    fn gathered(nodes: Vec<Shown>, kind: Kind) -> Gathered {
        let mut proofs = Proofs::default();
        for shown in &nodes {
            proofs.add(&shown.node);
        }
        Gathered {
            revision: 9,
            database: DATABASE.to_owned(),
            proofs,
            overlay: Overlay::default(),
            nodes,
            kind,
        }
    }

    fn status(up: bool) -> Status {
        if up { Status::Up } else { Status::Down }
    }

    proptest! {
        /// Ordered by subnet; and digest, proof and etags are those of the statuses that it shows.
        #[test]
        fn the_text_of_a_list_is_what_the_description_says(
            nodes in prop::collection::btree_map(0_u8..9, any::<(bool, bool, i64, Option<i64>)>(), 0..6),
            removed in prop::option::of(prop::collection::vec("[ab]", 0..3)), full in any::<bool>(),
        ) {
            let now: Vec<Node> = nodes.iter().map(|(n, (_, now, ..))| node(*n, status(*now))).collect();
            let told = nodes.values().map(|(_, _, last_heartbeat, held_off)| (*last_heartbeat, *held_off));
            let mut proofs = Proofs::default();
            let entries = now.iter().zip(told).map(|(node, (last_heartbeat, copy_held_off_at))| {
                let listed = ListedNode::new(node.clone());
                proofs.add(&listed);
                NodeEntry {
                    etag: Some(listed.etag().to_owned().into()),
                    last_heartbeat: Some(last_heartbeat),
                    copy_held_off_at,
                    ..entry(node)
                }
            });
            let entries: Vec<_> = entries.collect();
            // The subnets are not in the order of the map.
            let shown = nodes.iter().rev().map(|(n, (stored, now, last_heartbeat, held_off))| Shown {
                node: Arc::new(ListedNode::new(node(*n, status(*stored)))),
                status: status(*now),
                last_heartbeat: *last_heartbeat,
                copy_held_off_at: *held_off,
            });
            let removed: Option<Vec<_>> = removed.map(|removed| removed.into_iter().map(NodeId::from).collect());
            let kind = match (&removed, full) {
                (Some(removed), false) => Kind::Changes(removed.clone()),
                (_, true) => Kind::Full,
                (None, false) => Kind::List,
            };
            let asked = !matches!(kind, Kind::List);
            let described = serde_json::to_string(&NodesAnswer {
                revision: 9,
                database: DATABASE.into(),
                digest: Some(proofs.digest.to_string()),
                proof: Some(proofs.proof.to_string()),
                vxlan_port: Some(4789),
                vni: Some(100),
                full: asked.then_some(full),
                nodes: entries,
                removed: asked.then(|| removed.into_iter().flatten().filter(|_| !full).collect()),
            });
            let text = gathered(shown.collect(), kind).text().unwrap();
            prop_assert_eq!(String::from_utf8(text).unwrap(), described.unwrap());
        }
    }
}
