//! The node list, as it is served and as a client of the change feed keeps it.

use std::collections::BTreeMap;

use mesh_rest::digest::{Digest, DigestedNode};
use mesh_rest::proof::Proof;
use reqwest::Method;
use serde_json::Value;

use crate::answer::{Answer, Api};
use crate::model::Listed;

/// A copy of the whole list.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NodeList {
    pub(crate) revision: u64,
    pub(crate) database: String,
    nodes: BTreeMap<String, Value>,
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member]
        .as_str()
        .unwrap_or_else(|| panic!("no text {member} in {value}"))
}

impl NodeList {
    /// The whole list of a replica; `None` if it does not answer.
    pub(crate) async fn fetch(api: &Api) -> Option<Self> {
        let answer = Answer::try_to(api.request(Method::GET, "/api/nodes"))
            .await
            .ok()?;
        if answer.status == 503 {
            return None;
        }
        assert_eq!(answer.status, 200, "{}", answer.body);
        let mut list = Self::default();
        list.replace(&answer.body);
        Some(list)
    }

    /// Waits for what is newer than this copy, and takes it in; `false` if there is no answer.
    pub(crate) async fn follow(&mut self, api: &Api) -> bool {
        let Self {
            revision, database, ..
        } = &self;
        let path = format!("/api/nodes?since={revision}&wait=1&database={database}");
        let Ok(answer) = Answer::try_to(api.request(Method::GET, &path)).await else {
            return false;
        };
        if answer.status == 503 {
            return false;
        }
        let body = &answer.body;
        assert_eq!(answer.status, 200, "{body}");
        let before = self.revision;
        if body["full"] == true {
            self.replace(body);
        } else {
            self.change(body);
        }
        assert!(
            self.revision >= before,
            "the revision went from {before} to {}: {body}",
            self.revision
        );
        true
    }

    fn head(&mut self, body: &Value) {
        self.revision = body["revision"].as_u64().unwrap();
        text(body, "database").clone_into(&mut self.database);
    }

    fn replace(&mut self, body: &Value) {
        self.nodes.clear();
        self.head(body);
        self.take_in(&body["nodes"]);
        self.check_proofs(body);
    }

    fn change(&mut self, body: &Value) {
        self.head(body);
        for id in body["removed"].as_array().unwrap() {
            self.nodes.remove(id.as_str().unwrap());
        }
        self.take_in(&body["nodes"]);
        self.check_proofs(body);
    }

    fn take_in(&mut self, nodes: &Value) {
        for node in nodes.as_array().unwrap() {
            let mut node = node.clone();
            // It changes without a revision.
            node.as_object_mut().unwrap().remove("last_heartbeat");
            self.nodes.insert(text(&node, "node_id").to_owned(), node);
        }
    }

    /// Digest and proof of an answer are those of the copy that the answer makes.
    fn check_proofs(&self, body: &Value) {
        let digest: Digest = self
            .nodes
            .values()
            .map(|node| DigestedNode {
                node_id: text(node, "node_id"),
                hostname: text(node, "hostname"),
                host_ip: text(node, "host_ip"),
                subnet: text(node, "subnet"),
                status: text(node, "status"),
            })
            .collect();
        assert_eq!(body["digest"], digest.to_string(), "{body} makes {self:#?}");
        let mut proof = Proof::default();
        for node in self.nodes.values() {
            proof.add(text(node, "node_id"), text(node, "etag"));
        }
        assert_eq!(body["proof"], proof.to_string(), "{body} makes {self:#?}");
    }

    /// The nodes as the model knows them.
    pub(crate) fn listed(&self) -> BTreeMap<String, Listed> {
        let listed = |node: &Value| Listed {
            subnet: text(node, "subnet").parse().unwrap(),
            hostname: text(node, "hostname").to_owned(),
            host_ip: text(node, "host_ip").parse().unwrap(),
            up: text(node, "status") == "up",
        };
        self.nodes
            .iter()
            .map(|(id, node)| (id.clone(), listed(node)))
            .collect()
    }
}
