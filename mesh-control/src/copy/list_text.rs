//! The text of a list, put together from that of its entries.
//!
//! What an answer says is gathered under the lock, entry by entry without a copy; then, without the lock, it becomes one
//! text, which all who ask for the same share.

use std::sync::Arc;

use mesh_rest::overlay::Overlay;
use serde::Serialize;

use super::listed_node::{ListedNode, Proofs};
use crate::cluster::node::{NodeId, Status};

/// For the names and brackets around nodes, in bytes.
const ROOM_FOR_THE_REST: usize = 64;

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
pub(super) struct Shown {
    pub(super) node: Arc<ListedNode>,
    /// What it is by now, which may be yet to be written.
    pub(super) status: Status,
    pub(super) last_heartbeat: i64,
    pub(super) copy_held_off_at: Option<i64>,
}

/// The members of an answer beside the nodes.
#[derive(Serialize)]
struct Head<'a> {
    revision: i64,
    database: &'a str,
    digest: String,
    proof: String,
    vxlan_port: u16,
    vni: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    full: Option<bool>,
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
        let head = serde_json::to_vec(&Head {
            revision: self.revision,
            database: &self.database,
            digest: self.proofs.digest.to_string(),
            proof: self.proofs.proof.to_string(),
            vxlan_port: self.overlay.vxlan_port,
            vni: self.overlay.vni,
            full: match self.kind {
                Kind::List => None,
                Kind::Full => Some(true),
                Kind::Changes(_) => Some(false),
            },
        })?;
        // Grown bit by bit it would take twice as much, for as long as a client reads it.
        let size: usize = self.nodes.iter().map(|shown| shown.node.size()).sum();
        let mut text = Vec::with_capacity(head.len() + size + ROOM_FOR_THE_REST);
        // Without the closing brace: more members follow.
        text.extend_from_slice(head.strip_suffix(b"}").unwrap_or(&head));
        text.extend_from_slice(br#","nodes":["#);
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
        text.push(b']');
        let removed = match self.kind {
            Kind::List => None,
            Kind::Full => Some(Vec::new()),
            Kind::Changes(removed) => Some(removed),
        };
        if let Some(removed) = removed {
            text.extend_from_slice(br#","removed":"#);
            serde_json::to_writer(&mut text, &removed)?;
        }
        text.push(b'}');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::cluster::node::{Node, NodeChanges, NodeEntry, NodeList};

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
            database: "db".to_owned(),
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
            let entries: Vec<NodeEntry> = nodes.iter().map(|(n, (_, now, last_heartbeat, held_off))| {
                let node = node(*n, status(*now));
                let etag = ListedNode::new(node.clone()).etag().to_owned();
                NodeEntry { node, etag, last_heartbeat: *last_heartbeat, copy_held_off_at: *held_off }
            }).collect();
            let mut proofs = Proofs::default();
            for entry in &entries {
                proofs.add(&ListedNode::new(entry.node.clone()));
            }
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
            let (vxlan_port, vni) = (4789, 100);
            let (digest, proof) = (proofs.digest.to_string(), proofs.proof.to_string());
            let described = match &kind {
                Kind::List => serde_json::to_string(&NodeList {
                    revision: 9, database: "db".to_owned(), digest, proof, vxlan_port, vni, nodes: entries,
                }),
                Kind::Full | Kind::Changes(_) => serde_json::to_string(&NodeChanges {
                    revision: 9, database: "db", digest, proof, vxlan_port, vni, full, nodes: entries,
                    removed: removed.iter().flatten().filter(|_| !full).collect(),
                }),
            };
            let text = gathered(shown.collect(), kind).text().unwrap();
            prop_assert_eq!(String::from_utf8(text).unwrap(), described.unwrap());
        }
    }
}
