//! What proves copies of the node list right: the digest of agents of earlier versions, and the etags.

use std::collections::BTreeMap;

use mesh_rest::digest::{Digest, DigestedNode};
use mesh_rest::proof::Proof;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::answer::{Answer, Api, keyed, node};
use crate::process::Setup;

fn text<'a>(node: &'a Value, member: &str) -> &'a str {
    node[member].as_str().unwrap()
}

/// As agents of earlier versions compute it, which know five fields and no others.
fn digest<'a>(nodes: impl IntoIterator<Item = &'a Value>) -> String {
    let digested = nodes.into_iter().map(|node| DigestedNode {
        node_id: text(node, "node_id"),
        hostname: text(node, "hostname"),
        host_ip: text(node, "host_ip"),
        subnet: text(node, "subnet"),
        status: text(node, "status"),
    });
    digested.collect::<Digest>().to_string()
}

fn proof<'a>(nodes: impl IntoIterator<Item = &'a Value>) -> String {
    let mut proof = Proof::default();
    for node in nodes {
        proof.add(text(node, "node_id"), text(node, "etag"));
    }
    proof.to_string()
}

/// Whether an answer proves nodes right.
type Proves = fn(&Value, &BTreeMap<String, Value>) -> bool;

const DIGEST: Proves = |answer, nodes| answer["digest"] == digest(nodes.values());
const ETAGS: Proves = |answer, nodes| answer["proof"] == proof(nodes.values());

/// A copy of the list, as an agent keeps it.
struct Copy {
    proves: Proves,
    answer: Value,
    nodes: BTreeMap<String, Value>,
    whole_lists: usize,
}

impl Copy {
    async fn take(api: &Api, proves: Proves) -> Self {
        let mut copy = Self {
            proves,
            answer: Value::Null,
            nodes: BTreeMap::new(),
            whole_lists: 0,
        };
        copy.take_whole(api).await;
        copy
    }

    async fn take_whole(&mut self, api: &Api) {
        self.replace(api.list().await);
    }

    fn replace(&mut self, list: Value) {
        self.whole_lists += 1;
        self.nodes.clear();
        self.put(&list);
        assert!((self.proves)(&list, &self.nodes), "{list}");
        self.answer = list;
    }

    fn put(&mut self, answer: &Value) {
        for node in answer["nodes"].as_array().unwrap() {
            self.nodes
                .insert(text(node, "node_id").to_owned(), node.clone());
        }
    }

    /// Takes what is news, and waits for it.
    async fn follow(&mut self, api: &Api) {
        let (revision, database) = (&self.answer["revision"], text(&self.answer, "database"));
        let path = format!("/api/nodes?since={revision}&wait=60&database={database}");
        let answer = Answer::to(api.request(Method::GET, &path)).await.body;
        if answer["full"] == true {
            return self.replace(answer);
        }
        for id in answer["removed"].as_array().unwrap() {
            self.nodes.remove(id.as_str().unwrap());
        }
        self.put(&answer);
        if (self.proves)(&answer, &self.nodes) {
            self.answer = answer;
        } else {
            self.take_whole(api).await;
        }
    }

    /// Whether it is what the control plane says.
    async fn is_current(&self, api: &Api) -> bool {
        let list = api.list().await;
        let lasting = |node: &Value| {
            let mut node = node.clone();
            node.as_object_mut().unwrap().remove("last_heartbeat");
            node
        };
        let listed = list["nodes"].as_array().unwrap();
        let listed: BTreeMap<_, _> = listed
            .iter()
            .map(|node| (text(node, "node_id"), lasting(node)))
            .collect();
        let copied = self
            .nodes
            .iter()
            .map(|(id, node)| (id.as_str(), lasting(node)));
        listed == copied.collect()
    }
}

/// Also of what its digest does not know.
#[tokio::test]
async fn agents_with_and_without_etags_miss_no_change_and_take_the_whole_list_once() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let with_mtu = |mtu: u32| {
        let mut body = keyed("k-a", "a", "192.0.2.1");
        body["overlay_mtu"] = json!(mtu);
        body
    };
    let (a, _) = api.register(with_mtu(1450)).await.admitted();
    let (b, subnet) = api
        .register(keyed("k-b", "b", "192.0.2.2"))
        .await
        .admitted();
    let mut copies = [
        Copy::take(&api, DIGEST).await,
        Copy::take(&api, ETAGS).await,
    ];
    let post = |path: String, body: Value| {
        let request = api.post(&path).json(&body);
        async move { assert_eq!(Answer::to(request).await.status, 200, "{path}") }
    };
    let mut digests_alike = 0;
    for step in 0..8 {
        let before = copies[0].answer["digest"].clone();
        match step {
            0 => drop(api.register(with_mtu(1400)).await.admitted()),
            1 => assert_eq!(api.deregister(&b).await.status, 200),
            2 => post(format!("/api/nodes/{b}/leave"), json!({"node_key": "k-b"})).await,
            3 => drop(api.register(node("c", "192.0.2.3")).await.admitted()),
            4 => {
                let mut body = with_mtu(1400);
                body["cpu_cores"] = json!(8);
                drop(api.register(body).await.admitted());
            }
            5 => post("/api/subnets/release".to_owned(), json!({"subnet": subnet})).await,
            6 => post(format!("/api/nodes/{a}/leave"), json!({"node_key": "k-a"})).await,
            _ => drop(api.register(with_mtu(1350)).await.admitted()),
        }
        for copy in &mut copies {
            copy.follow(&api).await;
            assert!(copy.is_current(&api).await, "step {step}: {:?}", copy.nodes);
        }
        digests_alike += usize::from(copies[0].answer["digest"] == before);
    }
    assert_eq!(digests_alike, 3, "MTU, leaving after a stop, processors");
    for copy in copies {
        assert_eq!(copy.whole_lists, 1, "the first");
    }
}

/// A database that cannot be written is ahead of by the status that the list shows.
#[tokio::test]
async fn a_status_that_is_yet_to_be_written_is_in_etag_and_proof_of_the_list() {
    let setup = Setup::new().with("--node-timeout", "500ms");
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api.register(node("a", "192.0.2.1")).await.admitted();
    let up = api.list().await;
    let mut other = setup.database().await;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    api.wait_for(&node_id, "down").await;
    let list = api.list().await;
    let nodes = list["nodes"].as_array().unwrap();
    assert_eq!(nodes[0]["status"], "down");
    assert_eq!(list["revision"], up["revision"], "it is not written");
    assert_ne!(nodes[0]["etag"], up["nodes"][0]["etag"]);
    assert_eq!(list["digest"], digest(nodes));
    assert_eq!(list["proof"], proof(nodes));
    other.close().await.unwrap();
    // Written, it is what it was shown as.
    let mut copy = Copy::take(&api, ETAGS).await;
    while copy.answer["revision"] == up["revision"] {
        copy.follow(&api).await;
    }
    assert_eq!(copy.nodes[&node_id]["etag"], nodes[0]["etag"]);
    assert_eq!(copy.answer["proof"], list["proof"]);
}

#[tokio::test]
async fn etags_stay_the_same_over_a_restart() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    api.register(keyed("k-a", "a", "192.0.2.1"))
        .await
        .admitted();
    let mut copy = Copy::take(&api, ETAGS).await;
    control_plane.kill();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    api.register(node("b", "192.0.2.2")).await.admitted();
    copy.follow(&api).await;
    assert!(copy.is_current(&api).await);
    assert_eq!(copy.whole_lists, 1);
}
