//! Several control planes on one PostgreSQL database.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mesh_testbed::{Postgres, PostgresOptions};
use reqwest::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, Api, keyed, node};
use crate::process::{ControlPlane, Setup};
use crate::registration::three_hundred_at_once;

/// A server, and control planes on one database of it.
pub(crate) struct Replicas {
    // Dropped first.
    pub(crate) running: Vec<ControlPlane>,
    pub(crate) setup: Setup,
    pub(crate) url: String,
    pub(crate) postgres: Postgres,
}

impl Replicas {
    pub(crate) async fn start(count: usize, node_timeout: &str) -> Self {
        let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
        let url = postgres.create_database().unwrap();
        let setup = Setup::new().on(&url).with("--node-timeout", node_timeout);
        let running = (0..count).map(|_| setup.start()).collect();
        Self {
            running,
            setup,
            url,
            postgres,
        }
    }

    pub(crate) fn apis(&self) -> Vec<Api> {
        self.running.iter().map(Api::of).collect()
    }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

async fn feed(api: &Api, query: &str) -> Value {
    let answer = Answer::to(api.request(Method::GET, &format!("/api/nodes?{query}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

#[tokio::test]
async fn three_replicas_are_one_control_plane() {
    let replicas = Replicas::start(3, "10m").await;
    let apis = replicas.apis();
    let (first, subnet) = apis[0]
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    // Whoever waits at another is told, and the heartbeat of an unheard-of node is one of a known node.
    let news = feed(&apis[1], "since=0&wait=60").await;
    assert_eq!(news["nodes"][0]["node_id"], first.as_str());
    assert_eq!(apis[2].heartbeat(&first).await.status, 200);
    let again = apis[2]
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    assert_eq!(again, (first.clone(), subnet));
    assert_eq!(apis[1].deregister(&first).await.status, 200);
    for api in &apis {
        assert_eq!(api.status(&first).await, "down");
    }
    let answer = apis[2].register(node("other", "192.0.2.1")).await;
    assert_eq!(answer.admitted().1, "10.42.2.0/24");
    let reserve = apis[0]
        .post("/api/subnets/reserve")
        .json(&json!({"cidr": "10.42.3.0/24"}));
    assert_eq!(Answer::to(reserve).await.status, 200);
    assert_eq!(
        apis[1].register(node("c", "192.0.2.3")).await.admitted().1,
        "10.42.4.0/24"
    );
    // All show the same, with the same digest.
    let list = apis[0].list().await;
    for api in &apis {
        let mut other = api.list().await;
        for (node, like) in other["nodes"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .zip(list["nodes"].as_array().unwrap())
        {
            node["last_heartbeat"] = like["last_heartbeat"].clone();
        }
        assert_eq!(other, list);
    }
}

#[tokio::test]
async fn of_300_hosts_at_once_at_three_replicas_255_get_a_subnet_each() {
    let replicas = Replicas::start(3, "10m").await;
    three_hundred_at_once(&replicas.apis()).await;
}

#[tokio::test]
async fn a_node_stays_up_with_heartbeats_at_any_replica_and_goes_down_at_all_when_they_cease() {
    let replicas = Replicas::start(3, "2s").await;
    let apis = replicas.apis();
    let (node_id, _) = apis[0].register(node("a", "192.0.2.1")).await.admitted();
    let since = feed(&apis[0], "since=0").await["revision"].clone();
    // Three timeouts, at the replicas by turns.
    let mut last = Instant::now();
    for beat in 0..30 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let sent = Instant::now();
        assert_eq!(apis[beat % 3].heartbeat(&node_id).await.status, 200);
        // On a machine so slow that it was silent for a whole timeout, it may rightly have been down.
        assert!(
            last.elapsed() < Duration::from_secs(2),
            "this machine is too slow"
        );
        last = sent;
    }
    assert_eq!(
        feed(&apis[1], "since=0").await["revision"],
        since,
        "it was down in between"
    );
    for api in &apis {
        api.wait_for(&node_id, "down").await;
    }
    assert!(
        last.elapsed() >= Duration::from_secs(2),
        "down after {:?}",
        last.elapsed()
    );
    // Its return at one is a return at all.
    assert_eq!(apis[2].heartbeat(&node_id).await.status, 200);
    let at = deadline();
    while feed(&apis[0], "since=0").await["nodes"][0]["status"] != "up" {
        assert!(Instant::now() < at, "its return was not told");
    }
}

#[tokio::test]
async fn heartbeats_that_only_another_replica_received_keep_a_node_up() {
    let replicas = Replicas::start(2, "1500ms").await;
    let apis = replicas.apis();
    let (node_id, _) = apis[0].register(node("a", "192.0.2.1")).await.admitted();
    let mut last = Instant::now();
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let sent = Instant::now();
        assert_eq!(apis[1].heartbeat(&node_id).await.status, 200);
        assert!(
            last.elapsed() < Duration::from_millis(1500),
            "this machine is too slow"
        );
        last = sent;
    }
    assert_eq!(
        feed(&apis[0], "since=0").await["revision"],
        1,
        "it was down in between"
    );
}

#[tokio::test]
async fn wall_clocks_that_are_hours_apart_do_no_harm() {
    let replicas = Replicas::start(1, "10m").await;
    let (node_id, _) = replicas.apis()[0]
        .register(node("a", "192.0.2.1"))
        .await
        .admitted();
    for seconds in [
        "extract(epoch from now())::bigint + 3600",
        "extract(epoch from now())::bigint - 3600",
        "0",
    ] {
        // As a replica would have written whose clock is off.
        let update =
            format!("UPDATE nodes SET last_heartbeat = {seconds}, registered_at = {seconds}");
        replicas.postgres.execute(&replicas.url, &update).unwrap();
        let other = replicas.setup.start();
        let api = Api::of(&other);
        assert_eq!(api.status(&node_id).await, "up");
        assert!(other.stop().success());
    }
    assert_eq!(replicas.apis()[0].status(&node_id).await, "up");
    assert_eq!(feed(&replicas.apis()[0], "since=0").await["revision"], 1);
}

#[tokio::test]
async fn a_replica_killed_under_load_loses_nothing_that_was_acknowledged() {
    let mut replicas = Replicas::start(3, "10m").await;
    let apis = replicas.apis();
    let registrations: Vec<_> = (0..150)
        .map(|n| {
            let request = apis[n % 3]
                .post("/api/nodes/register")
                .json(&node(&format!("host-{n}"), &format!("198.51.100.{n}")));
            tokio::spawn(Answer::try_to(request))
        })
        .collect();
    let at = deadline();
    while apis[0].nodes().await.is_empty() {
        assert!(Instant::now() < at);
    }
    replicas.running.pop().unwrap().kill();
    let mut acknowledged = BTreeSet::new();
    for registration in registrations {
        if let Ok(answer) = registration.await.unwrap() {
            acknowledged.insert(answer.admitted());
        }
    }
    assert!(acknowledged.len() >= 100, "{}", acknowledged.len());
    let nodes = apis[1].nodes().await;
    let stored: BTreeSet<_> = nodes
        .iter()
        .map(|node| {
            (
                node["node_id"].as_str().unwrap().to_owned(),
                node["subnet"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert!(acknowledged.is_subset(&stored));
    let subnets: BTreeSet<_> = stored.iter().map(|(_, subnet)| subnet).collect();
    assert_eq!(subnets.len(), nodes.len(), "a subnet has two holders");
}

#[tokio::test]
async fn a_server_restarted_under_load_is_a_clear_503_and_nothing_is_lost() {
    let replicas = Replicas::start(2, "10m").await;
    let apis = replicas.apis();
    let (known, _) = apis[0]
        .register(node("known", "192.0.2.1"))
        .await
        .admitted();
    replicas.postgres.kill().await.unwrap();
    let answer = apis[0].register(node("refused", "192.0.2.2")).await;
    let detail = answer.problem(503, "database-unavailable");
    assert!(detail.contains("PostgreSQL"), "{detail}");
    let load: Vec<_> = (0..60)
        .map(|n| {
            let api = apis[n % 2].clone();
            tokio::spawn(async move {
                // As an agent does: until it is let in.
                let at = deadline();
                loop {
                    let body = node(&format!("host-{n}"), &format!("198.51.100.{n}"));
                    let answer = api.register(body).await;
                    if answer.status == 200 {
                        return answer.admitted();
                    }
                    answer.problem(503, "database-unavailable");
                    assert!(Instant::now() < at, "it did not recover");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
        })
        .collect();
    replicas.postgres.start().await.unwrap();
    replicas.postgres.restart().await.unwrap();
    let mut admitted = BTreeSet::new();
    for registration in load {
        admitted.insert(registration.await.unwrap().1);
    }
    assert_eq!(admitted.len(), 60);
    for api in &apis {
        let at = deadline();
        loop {
            let answer = Answer::to(api.request(Method::GET, "/api/nodes")).await;
            if answer.status == 200 {
                let nodes = answer.body["nodes"].as_array().unwrap().len();
                assert!(nodes >= 61, "{nodes} nodes");
                break;
            }
            assert!(Instant::now() < at, "it did not recover");
        }
        assert_eq!(api.heartbeat(&known).await.status, 200);
    }
}

#[tokio::test]
async fn a_replica_that_lost_the_database_turns_nobody_down_and_sends_agents_elsewhere() {
    let replicas = Replicas::start(1, "2s").await;
    let api = &replicas.apis()[0];
    let (node_id, _) = api.register(node("a", "192.0.2.1")).await.admitted();
    replicas.postgres.stop().await.unwrap();
    // At first a heartbeat is taken; after some seconds it is not, because it would be lost.
    let at = deadline();
    while api.heartbeat(&node_id).await.status == 200 {
        assert!(
            Instant::now() < at,
            "heartbeats are taken although nobody learns of them"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    api.heartbeat(&node_id)
        .await
        .problem(503, "database-unavailable");
    let answer = Answer::to(api.request(Method::GET, "/api/nodes?since=1&wait=60")).await;
    answer.problem(503, "database-unavailable");
    // Longer than the timeout of the node.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let back = Instant::now();
    replicas.postgres.start().await.unwrap();
    let at = deadline();
    while api.heartbeat(&node_id).await.status != 200 {
        assert!(Instant::now() < at, "it did not recover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let list = feed(api, "since=0").await;
    assert!(
        list["revision"] == 1 || back.elapsed() > Duration::from_secs(2),
        "{list}"
    );
}

#[tokio::test]
async fn a_replica_with_another_plan_is_refused() {
    let replicas = Replicas::start(1, "10m").await;
    replicas.apis()[0]
        .register(node("a", "192.0.2.1"))
        .await
        .admitted();
    let other = Setup::new()
        .on(&replicas.url)
        .with("--cluster-cidr", "10.43.0.0/16");
    let said = other.start_refused();
    assert!(
        said.contains("10.42.0.0/16 divided into /24") && said.contains("--cluster-cidr"),
        "{said}"
    );
    assert!(
        !said.contains("postgres://"),
        "the URL holds a password: {said}"
    );
}

#[test]
fn a_server_that_is_not_there_is_named_without_its_password() {
    let said = Setup::new()
        .on("postgres://quilt:secret@127.0.0.1:1/mesh")
        .start_refused();
    assert!(said.contains("mesh on 127.0.0.1:1"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test]
async fn a_replica_without_its_database_lives_and_is_not_ready_until_it_is_back() {
    let replicas = Replicas::start(1, "10m").await;
    let api = &replicas.apis()[0];
    let get = |path| Answer::to(api.request(Method::GET, path));
    // It follows the others a moment after it serves.
    let at = deadline();
    while get("/readyz").await.status != 200 {
        assert!(Instant::now() < at, "it did not become ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    replicas.postgres.stop().await.unwrap();
    let answer = get("/readyz").await;
    answer.problem(503, "not-ready");
    assert_eq!(answer.body["failing"][0], "database", "{}", answer.body);
    // After some seconds the others may have done anything.
    let at = deadline();
    loop {
        let answer = get("/readyz").await;
        answer.problem(503, "not-ready");
        if answer.body["failing"] == json!(["database", "follower"]) {
            break;
        }
        assert!(Instant::now() < at, "{}", answer.body);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for path in ["/livez", "/health"] {
        let answer = get(path).await;
        assert_eq!(
            (answer.status, answer.body),
            (200, json!({"status": "ok"})),
            "{path}"
        );
    }
    replicas.postgres.start().await.unwrap();
    let at = deadline();
    while get("/readyz").await.status != 200 {
        assert!(Instant::now() < at, "it did not become ready again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
