//! A node's entry in the list: its etag, and its text, which is made once for all who are told.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;

use mesh_rest::digest::Digest;
use mesh_rest::node::NodeEntry;
use mesh_rest::proof::Proof;
use mesh_rest::status::Status;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::cluster::node::Node;

/// How many bytes of SHA-256 are an etag.
const ETAG_BYTES: usize = 8;

/// A node as the list shows it, but for what changes without a revision.
#[derive(Debug, PartialEq, Eq)]
pub struct ListedNode {
    node: Node,
    etag: String,
    /// The entry without its end.
    text: Box<[u8]>,
}

impl ListedNode {
    /// Makes the entry of a node.
    pub fn new(node: Node) -> Self {
        let mut entry = entry(&node);
        let etag = etag(&entry);
        entry.etag = Some(Cow::Borrowed(&etag));
        // An entry's members are named by text, and none fails to serialise.
        let mut text = serde_json::to_vec(&entry).unwrap_or_default();
        drop(entry);
        // The closing brace: more members follow.
        text.pop();
        Self {
            node,
            etag,
            text: text.into(),
        }
    }

    /// The entry of the same node with another status.
    pub fn with_status(&self, status: Status) -> Self {
        Self::new(Node {
            status,
            ..self.node.clone()
        })
    }

    /// Stands for everything that the entry says, but for what changes without a revision.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// About how many bytes the entry has as JSON.
    pub fn size(&self) -> usize {
        self.text.len() + 32
    }

    /// Writes the entry as JSON.
    pub fn write(&self, to: &mut Vec<u8>, last_heartbeat: i64, copy_held_off_at: Option<i64>) {
        to.extend_from_slice(&self.text);
        to.extend_from_slice(format!(r#","last_heartbeat":{last_heartbeat}"#).as_bytes());
        if let Some(at) = copy_held_off_at {
            to.extend_from_slice(format!(r#","copy_held_off_at":{at}"#).as_bytes());
        }
        to.push(b'}');
    }
}

impl Deref for ListedNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// What the list says of a node, without what stands for it and what changes without a revision.
pub(super) fn entry(node: &Node) -> NodeEntry<'_> {
    NodeEntry {
        node_id: Cow::Borrowed(node.node_id.as_str()),
        hostname: Cow::Borrowed(&node.hostname),
        host_ip: Cow::Owned(node.host_ip.to_string()),
        subnet: Cow::Owned(node.subnet.to_string()),
        cpu_cores: node.cpu_cores,
        ram_mb: node.ram_mb,
        overlay_mtu: node.overlay_mtu,
        status: Cow::Borrowed(node.status.as_str()),
        deregistered: node.deregistered,
        left: node.left,
        registered_at: node.registered_at,
        etag: None,
        last_heartbeat: None,
        copy_held_off_at: None,
    }
}

/// The etag of an entry. A member that is null or false counts as one that is not there: a version that adds a member
/// changes the etags of those nodes alone that have it, and agents do not find all of their copies other than the list.
fn etag(entry: &impl Serialize) -> String {
    // As in `ListedNode::new`.
    let members = serde_json::to_value(entry).unwrap_or_default();
    let said: BTreeMap<&String, &Value> = members
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !matches!(value, Value::Null | Value::Bool(false)))
        .collect();
    let text = serde_json::to_vec(&said).unwrap_or_default();
    let hash = Sha256::digest(&text);
    hash.iter()
        .take(ETAG_BYTES)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// By what an agent proves its copy of the list right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proofs {
    /// Of five fields, for agents that know no etags.
    pub digest: Digest,
    /// Of all etags.
    pub proof: Proof,
}

impl Proofs {
    /// Adds an entry.
    pub fn add(&mut self, node: &ListedNode) {
        self.digest.add(&entry(node).digested());
        self.proof.add(node.node_id.as_str(), &node.etag);
    }

    /// Takes an entry out again.
    pub fn remove(&mut self, node: &ListedNode) {
        self.digest.remove(&entry(node).digested());
        self.proof.remove(node.node_id.as_str(), &node.etag);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    use mesh_rest::node_id::NodeId;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    prop_compose! {
        fn nodes()(
            (node_id, hostname) in ("[ab]{1,2}", "[a\"\\\\ü]{0,2}"),
            (host_ip, subnet) in (0_u8..3, 0_u8..3),
            (cpu_cores, ram_mb) in (prop::option::of(0_u32..2), prop::option::of(0_u64..2)),
            overlay_mtu in prop::option::of(1400_u32..1402),
            (up, deregistered, left) in any::<(bool, bool, bool)>(),
            (registered_at, last_heartbeat) in (0_i64..2, 0_i64..9),
        ) -> Node {
            Node {
                node_id: NodeId::from(node_id),
                hostname,
                host_ip: Ipv4Addr::new(192, 0, 2, host_ip),
                subnet: format!("10.42.{subnet}.0/24").parse().unwrap(),
                cpu_cores,
                ram_mb,
                overlay_mtu,
                status: if up { Status::Up } else { Status::Down },
                deregistered,
                left,
                registered_at,
                last_heartbeat,
            }
        }
    }

    fn nodes_apart() -> impl Strategy<Value = (Node, Node)> {
        prop_oneof![
            (nodes(), nodes()),
            // The same but for one or two members.
            (nodes(), nodes(), 0_usize..12, 0_usize..12).prop_map(|(one, from, first, second)| {
                let mut other = one.clone();
                for member in [first, second] {
                    match member {
                        0 => other.node_id = from.node_id.clone(),
                        1 => other.hostname = from.hostname.clone(),
                        2 => other.host_ip = from.host_ip,
                        3 => other.subnet = from.subnet,
                        4 => other.cpu_cores = from.cpu_cores,
                        5 => other.ram_mb = from.ram_mb,
                        6 => other.overlay_mtu = from.overlay_mtu,
                        7 => other.status = from.status,
                        8 => other.deregistered = from.deregistered,
                        9 => other.left = from.left,
                        10 => other.registered_at = from.registered_at,
                        _ => other.last_heartbeat = from.last_heartbeat,
                    }
                }
                (one, other)
            }),
        ]
    }

    proptest! {
        #[test]
        fn an_etag_is_of_everything_but_what_changes_without_a_revision((one, other) in nodes_apart()) {
            let like_one = Node { last_heartbeat: one.last_heartbeat, ..other.clone() };
            let same = like_one == one;
            let (one, other) = (ListedNode::new(one), ListedNode::new(other));
            prop_assert_eq!(one.etag() == other.etag(), same);
            let proofs = [&one, &other].map(|node| {
                let mut proofs = Proofs::default();
                proofs.add(node);
                proofs
            });
            prop_assert_eq!(proofs[0].proof == proofs[1].proof, same);
        }

        #[test]
        fn the_text_is_what_the_description_says(
            node in nodes(), last_heartbeat in any::<i64>(), copy_held_off_at in prop::option::of(any::<i64>()),
        ) {
            let listed = ListedNode::new(node.clone());
            let mut text = Vec::new();
            listed.write(&mut text, last_heartbeat, copy_held_off_at);
            let described = NodeEntry {
                etag: Some(listed.etag().into()), last_heartbeat: Some(last_heartbeat), copy_held_off_at, ..entry(&node)
            };
            prop_assert_eq!(String::from_utf8(text).unwrap(), serde_json::to_string(&described).unwrap());
        }

        #[test]
        fn another_status_is_another_entry_and_the_same_again_the_same(node in nodes()) {
            let listed = ListedNode::new(node.clone());
            let other = if node.status == Status::Up { Status::Down } else { Status::Up };
            let other = listed.with_status(other);
            prop_assert_ne!(other.etag(), listed.etag());
            prop_assert_eq!(&other.with_status(node.status), &listed);
            prop_assert_eq!(listed.with_status(node.status), listed);
        }
    }

    #[test]
    fn a_member_of_a_later_version_changes_the_etags_of_those_who_have_it() {
        let before = json!({"node_id": "n", "cpu_cores": null, "left": false, "status": "up"});
        let with = |value: Value| {
            let mut later = before.clone();
            later["zone"] = value;
            etag(&later)
        };
        assert_eq!(with(json!(null)), etag(&before));
        assert_eq!(with(json!(false)), etag(&before));
        let having: HashSet<_> = [json!(true), json!(0), json!(""), json!("a"), json!([])]
            .map(with)
            .into();
        assert_eq!(having.len(), 5);
        assert!(!having.contains(&etag(&before)));
    }
}
