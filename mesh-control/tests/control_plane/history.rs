//! A database that is not what it was: restored from a backup, or emptied, under replicas that run.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mesh_testbed::{Postgres, PostgresOptions};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::answer::{Answer, Api, keyed};
use crate::joining::{Host, token};
use crate::process::{ControlPlane, Setup};
use crate::replicas::Replicas;

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn body(name: &str, host: u8) -> Value {
    keyed(&format!("key-of-{name}"), name, &format!("192.0.2.{host}"))
}

/// A node as its agent knows it.
struct Node {
    name: &'static str,
    host: u8,
    node_id: String,
    subnet: String,
}

impl Node {
    async fn join(api: &Api, name: &'static str, host: u8) -> Self {
        let (node_id, subnet) = let_in(api, body(name, host)).await;
        Self {
            name,
            host,
            node_id,
            subnet,
        }
    }

    /// Waits until its heartbeat is answered as that of a stranger.
    async fn is_lost(&self, api: &Api) {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = api.heartbeat(&self.node_id).await;
            match answer.status {
                404 => return,
                // While the server is exchanged.
                200 | 503 => assert!(Instant::now() < until, "{} is still known", self.name),
                other => panic!("{other}: {}", answer.body),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Registers again as its agent does.
    async fn comes_back(&self, api: &Api) {
        let mut body = body(self.name, self.host);
        body["subnet"] = json!(self.subnet);
        let (_, subnet) = let_in(api, body).await;
        assert_eq!(subnet, self.subnet, "{}", self.name);
    }
}

/// Registers as an agent does: until it is let in.
async fn let_in(api: &Api, body: Value) -> (String, String) {
    let until = Instant::now() + PATIENCE;
    loop {
        match Answer::try_to(api.post("/api/nodes/register").json(&body)).await {
            Ok(answer) if answer.status == 200 => return answer.admitted(),
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.body);
                assert!(Instant::now() < until, "not let in: {}", answer.body);
            }
            Err(error) => assert!(Instant::now() < until, "not let in: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A question of the change feed that waits, as an agent's does.
async fn news(api: &Api, revision: &Value, database: &Value, wait: u8) -> Value {
    let database = database.as_str().unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let query = format!("/api/nodes?since={revision}&database={database}&wait={wait}");
        let answer = Answer::to(api.request(Method::GET, &query)).await;
        if answer.status == 200 {
            return answer.body;
        }
        assert!(Instant::now() < until, "no answer: {}", answer.body);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn hostnames(list: &Value) -> BTreeSet<String> {
    let nodes = list["nodes"].as_array().unwrap().iter();
    nodes
        .map(|node| node["hostname"].as_str().unwrap().to_owned())
        .collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().copied().map(str::to_owned).collect()
}

/// How many lines say that the history has changed.
fn noticed(replica: &ControlPlane, seen: &mut Vec<String>) -> usize {
    seen.extend(replica.logged());
    seen.iter()
        .filter(|line| line.contains("WARN") && line.contains("history"))
        .count()
}

#[tokio::test]
async fn a_database_that_went_back_under_replicas_is_noticed_and_its_lost_nodes_keep_their_subnets()
{
    let replicas = Replicas::start(2, "10m").await;
    let apis = replicas.apis();
    let mut known = Vec::new();
    for (name, host) in [("a", 1), ("b", 2)] {
        known.push(Node::join(&apis[0], name, host).await);
    }
    let dump = replicas.postgres.dump(&replicas.url).unwrap();
    let mut lost = Vec::new();
    for (name, host) in [("c", 3), ("d", 4)] {
        lost.push(Node::join(&apis[1], name, host).await);
    }
    // Two agents that wait for news, one at each.
    let before = apis[0].list().await;
    let waiting: Vec<_> = apis
        .iter()
        .map(|api| {
            let (api, before) = (api.clone(), before.clone());
            tokio::spawn(
                async move { news(&api, &before["revision"], &before["database"], 60).await },
            )
        })
        .collect();
    replicas
        .postgres
        .replace_database(&replicas.url, Some(&dump))
        .unwrap();
    // New nodes come at once, at both.
    let newcomers: Vec<_> = (0..6)
        .map(|n: u8| {
            let api = apis[usize::from(n % 2)].clone();
            tokio::spawn(async move { let_in(&api, body(&format!("new-{n}"), 100 + n)).await.1 })
        })
        .collect();
    for node in &lost {
        for api in &apis {
            node.is_lost(api).await;
        }
    }
    // Both agents are told, once, that it is another history.
    for (waiting, api) in waiting.into_iter().zip(&apis) {
        let mut told = waiting.await.unwrap();
        assert_ne!(told["database"], before["database"]);
        assert_eq!(told["full"], true);
        assert!(hostnames(&told).is_superset(&names(&["a", "b"])), "{told}");
        for _ in 0..3 {
            let next = news(api, &told["revision"], &told["database"], 1).await;
            assert_eq!(next["full"], false, "{next}");
            told = next;
        }
    }
    for node in &known {
        for api in &apis {
            assert_eq!(api.heartbeat(&node.node_id).await.status, 200);
        }
    }
    let mut subnets: BTreeSet<String> = BTreeSet::new();
    for newcomer in newcomers {
        assert!(subnets.insert(newcomer.await.unwrap()));
    }
    for node in known.iter().chain(&lost) {
        assert!(!subnets.contains(&node.subnet), "{} is shared", node.subnet);
    }
    for (node, api) in lost.iter().zip(&apis) {
        node.comes_back(api).await;
    }
    let all = 2 + 2 + 6;
    for api in &apis {
        assert_eq!(api.nodes().await.len(), all);
    }
    for replica in &replicas.running {
        assert_eq!(noticed(replica, &mut Vec::new()), 1);
    }
}

#[tokio::test]
async fn a_replica_started_after_the_restore_leases_nothing_that_another_remembers() {
    let mut replicas = Replicas::start(2, "10m").await;
    let apis = replicas.apis();
    let known = Node::join(&apis[0], "a", 1).await;
    let dump = replicas.postgres.dump(&replicas.url).unwrap();
    let lost = [
        Node::join(&apis[0], "b", 2).await,
        Node::join(&apis[0], "c", 3).await,
    ];
    for _ in 0..2 {
        // The second remembers; the first is started when the database has gone back.
        replicas.running.remove(0).kill();
        replicas
            .postgres
            .replace_database(&replicas.url, Some(&dump))
            .unwrap();
        let started = replicas.setup.start();
        let api = Api::of(&started);
        let (_, subnet) = let_in(&api, body("new", 100)).await;
        for node in lost.iter().chain([&known]) {
            assert_ne!(subnet, node.subnet);
        }
        // The subnet that it is leased is remembered by both, when the database goes back once more.
        replicas.running.insert(0, started);
        replicas.running.rotate_left(1);
        for node in &lost {
            node.is_lost(&api).await;
        }
    }
    let api = &replicas.apis()[0];
    for node in &lost {
        node.comes_back(api).await;
    }
}

#[tokio::test]
async fn a_node_that_says_nothing_of_its_subnet_gets_the_one_that_is_remembered() {
    let replicas = Replicas::start(1, "10m").await;
    let api = &replicas.apis()[0];
    let dump = replicas.postgres.dump(&replicas.url).unwrap();
    let mut lost = Vec::new();
    for (name, host) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        lost.push(Node::join(api, name, host).await);
    }
    replicas
        .postgres
        .replace_database(&replicas.url, Some(&dump))
        .unwrap();
    // Another one that claims what is remembered as somebody's gets another one.
    lost[2].is_lost(api).await;
    let mut thief = body("thief", 9);
    thief["subnet"] = json!(lost[2].subnet);
    assert_eq!(let_in(api, thief).await.1, "10.42.5.0/24");
    for node in lost.iter().rev().take(2) {
        assert_eq!(let_in(api, body(node.name, node.host)).await.1, node.subnet);
    }
    // One that is not to come back is given up by an operator, and its subnet is the next.
    let release = api
        .post("/api/subnets/release")
        .json(&json!({"subnet": lost[0].subnet}));
    assert_eq!(Answer::to(release).await.status, 200);
    assert_eq!(let_in(api, body("new", 100)).await.1, lost[0].subnet);
    // What is left is remembered for a day, and then as if it had never been.
    assert_eq!(let_in(api, body("newer", 101)).await.1, "10.42.6.0/24");
    let a_day_later = "UPDATE remembered_leases SET until = until - 24 * 3600 * 1000";
    let url = &replicas.url;
    replicas.postgres.execute(url, a_day_later).unwrap();
    assert_eq!(let_in(api, body("newest", 102)).await.1, lost[1].subnet);
    let left = "SELECT count(*) FROM remembered_leases";
    assert_eq!(replicas.postgres.execute(url, left).unwrap().trim(), "0");
}

/// A name, a key and an address are said by anybody; what a node with a certificate had is for who shows that.
#[tokio::test]
async fn what_is_remembered_of_a_node_with_a_certificate_is_nobody_elses() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let url = postgres.create_database().unwrap();
    let setup = Setup::new().on(&url).with("--node-timeout", "10m");
    let control = setup.start();
    let dump = postgres.dump(&url).unwrap();
    let key = json!({"node_key": "key-of-a"});
    let host = Host::join(&control, &token(&setup, &[])).await;
    let answer = host.try_register(&control, "a", "192.0.2.1", key).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut other = Host::join(&control, &token(&setup, &[])).await;
    assert_eq!(
        other.register(&control, "b", "192.0.2.2").await,
        "10.42.2.0/24"
    );
    postgres.replace_database(&url, Some(&dump)).unwrap();
    let until = Instant::now() + PATIENCE;
    while host.beat(&control).await.status != 404 {
        assert!(Instant::now() < until, "it is still known");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Somebody who joins only now says that it is the other node.
    let thief = Host::join(&control, &token(&setup, &[])).await;
    let stolen = json!({"node_key": "key-of-a", "subnet": "10.42.1.0/24"});
    let answer = thief
        .try_register(&control, "a", "192.0.2.1", stolen.clone())
        .await;
    assert_eq!(
        (answer.status, answer.kind().as_str()),
        (409, "address-kept"),
        "{answer:?}"
    );
    let answer = loop {
        let answer = thief
            .try_register(&control, "a", "192.0.2.9", stolen.clone())
            .await;
        if answer.status != 503 {
            break answer;
        }
        assert!(Instant::now() < until, "{answer:?}");
    };
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("10.42.3.0/24"), "{answer:?}");
    // Those whose it is have it again, whatever they say of themselves.
    assert_eq!(
        host.register(&control, "renamed", "192.0.2.1").await,
        "10.42.1.0/24"
    );
    assert_eq!(other.renew(&control).await.status, 200);
    assert_eq!(
        other.register(&control, "b", "192.0.2.5").await,
        "10.42.2.0/24"
    );
}

#[tokio::test]
async fn an_empty_database_in_place_of_a_full_one_is_filled_by_the_nodes_that_return() {
    emptied(false).await;
}

#[tokio::test]
async fn an_empty_database_is_filled_as_well_where_a_replica_was_restarted_that_remembers_nothing()
{
    emptied(true).await;
}

async fn emptied(restart: bool) {
    let mut replicas = Replicas::start(2, "10m").await;
    let apis = replicas.apis();
    let mut nodes = Vec::new();
    for (n, name) in (1..).zip(["a", "b", "c", "d", "e"]) {
        nodes.push(Node::join(&apis[usize::from(n % 2)], name, n).await);
    }
    replicas
        .postgres
        .replace_database(&replicas.url, None)
        .unwrap();
    if restart {
        replicas.running.remove(0).kill();
        replicas.running.insert(0, replicas.setup.start());
    }
    let apis = replicas.apis();
    let newcomers: Vec<_> = (0..4)
        .map(|n: u8| {
            let api = apis[usize::from(n % 2)].clone();
            tokio::spawn(async move { let_in(&api, body(&format!("new-{n}"), 100 + n)).await.1 })
        })
        .collect();
    for node in &nodes {
        node.is_lost(&apis[1]).await;
    }
    for (n, node) in nodes.iter().enumerate() {
        node.comes_back(&apis[n % 2]).await;
    }
    let mut subnets: BTreeSet<String> = nodes.iter().map(|node| node.subnet.clone()).collect();
    for newcomer in newcomers {
        assert!(
            subnets.insert(newcomer.await.unwrap()),
            "a subnet is shared"
        );
    }
    for api in &apis {
        assert_eq!(api.nodes().await.len(), 9);
    }
    assert_eq!(noticed(&replicas.running[1], &mut Vec::new()), 1);
}

/// What it answered is remembered, although it did not come to read it; also where a new node asks another that never
/// heard of it.
#[tokio::test]
async fn a_lease_that_was_lost_before_anybody_read_it_is_remembered() {
    let replicas = Replicas::start(2, "10m").await;
    let apis = replicas.apis();
    Node::join(&apis[0], "a", 1).await;
    assert_eq!(apis[1].nodes().await.len(), 1);
    let dump = replicas.postgres.dump(&replicas.url).unwrap();
    let mut locking = PgConnection::connect(&replicas.url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE removed_nodes IN ACCESS EXCLUSIVE MODE")
        .execute(&mut locking)
        .await
        .unwrap();
    // Stored, and not read: that needs the table.
    let joining = tokio::spawn({
        let api = apis[0].clone();
        async move { Node::join(&api, "b", 2).await }
    });
    let until = Instant::now() + PATIENCE;
    let stored = "SELECT count(*) FROM nodes WHERE hostname = 'b'";
    let count = || replicas.postgres.execute(&replicas.url, stored).unwrap();
    while count().trim() != "1" {
        assert!(Instant::now() < until, "it was not stored");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    replicas
        .postgres
        .replace_database(&replicas.url, Some(&dump))
        .unwrap();
    assert_eq!(let_in(&apis[1], body("new", 100)).await.1, "10.42.3.0/24");
    let lost = joining.await.unwrap();
    for api in &apis {
        lost.is_lost(api).await;
    }
    lost.comes_back(&apis[1]).await;
}
