//! The change feed: every list there was, and the difference between two of them.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use mesh_rest::{
    digest::{Digest, DigestedNode},
    proof::Proof,
};
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) served: bool,
    /// Whether it waits for news.
    pub(crate) waits: bool,
    /// Whether what it tells as news does not lead to its list.
    pub(crate) diverges: bool,
    /// Whether it makes etags, as earlier versions do not.
    pub(crate) etags: bool,
    /// How often it told the whole list.
    pub(crate) whole_lists: usize,
    database: String,
    /// The list at each revision.
    lists: Vec<Vec<Value>>,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self {
            served: true,
            waits: true,
            diverges: false,
            etags: true,
            whole_lists: 0,
            database: Uuid::new_v4().to_string(),
            lists: vec![Vec::new()],
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        i64::try_from(self.lists.len()).unwrap() - 1
    }

    pub(crate) fn database(&self) -> &str {
        &self.database
    }

    pub(super) fn restore(&mut self, revision: i64) -> Vec<Value> {
        let lists = usize::try_from(revision).unwrap() + 1;
        self.lists.truncate(lists);
        self.at(revision).to_vec()
    }

    fn update(&mut self, nodes: Vec<Value>) {
        if self.lists.last() != Some(&nodes) {
            self.lists.push(nodes);
        }
    }

    fn at(&self, revision: i64) -> &[Value] {
        &self.lists[usize::try_from(revision).unwrap()]
    }

    /// The answer to a query, unless there is nothing newer.
    pub(super) fn answer(
        &mut self,
        nodes: Vec<Value>,
        query: &BTreeMap<String, String>,
        stuck_at: Option<i64>,
    ) -> Option<Value> {
        if !self.served {
            return Some(json!({"revision": 7, "nodes": nodes}));
        }
        self.update(nodes);
        let now = stuck_at.unwrap_or(i64::MAX).min(self.revision());
        let Some(since) = query.get("since") else {
            return Some(self.whole(now));
        };
        let since: i64 = since.parse().unwrap();
        if query.get("database") != Some(&self.database) || since > now {
            let mut whole = self.whole(now);
            whole["full"] = json!(true);
            return Some(whole);
        }
        (since < now).then(|| self.news(since, now))
    }

    pub(super) fn nothing_new(&mut self, nodes: Vec<Value>) -> Value {
        self.update(nodes);
        let now = self.revision();
        self.news(now, now)
    }

    fn whole(&mut self, revision: i64) -> Value {
        self.whole_lists += 1;
        let answer = json!({
            "revision": revision, "database": self.database, "nodes": self.at(revision),
            "digest": digest(self.at(revision)),
        });
        self.with_etags(answer, revision)
    }

    fn with_etags(&self, mut answer: Value, revision: i64) -> Value {
        if self.etags {
            for node in answer["nodes"].as_array_mut().unwrap() {
                node["etag"] = json!(etag(node));
            }
            let mut proof = Proof::default();
            for node in self.at(revision) {
                proof.add(node["node_id"].as_str().unwrap(), &etag(node));
            }
            if self.diverges && answer["full"] == false {
                proof.add("somebody", "else");
            }
            answer["proof"] = json!(proof.to_string());
        }
        answer
    }

    fn news(&self, since: i64, now: i64) -> Value {
        let (before, after) = (self.at(since), self.at(now));
        let changed: Vec<_> = after.iter().filter(|node| !before.contains(node)).collect();
        let listed = |id: &Value| after.iter().any(|node| node["node_id"] == *id);
        let removed = before.iter().map(|node| &node["node_id"]);
        let removed: Vec<_> = removed.filter(|id| !listed(id)).collect();
        let answer = json!({
            "revision": now, "database": self.database, "digest": digest(after), "full": false,
            "nodes": changed, "removed": removed,
        });
        self.with_etags(answer, now)
    }
}

/// Of everything that the entry says.
fn etag(node: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    node.to_string().hash(&mut hasher);
    format!("e-{}", hasher.finish())
}

fn digest(nodes: &[Value]) -> String {
    let field = |node: &Value, name: &str| node[name].as_str().unwrap().to_owned();
    let mut digest = Digest::default();
    for node in nodes {
        digest.add(&DigestedNode {
            node_id: &field(node, "node_id"),
            hostname: &field(node, "hostname"),
            host_ip: &field(node, "host_ip"),
            subnet: &field(node, "subnet"),
            status: &field(node, "status"),
        });
    }
    digest.to_string()
}
