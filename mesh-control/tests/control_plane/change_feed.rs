//! `GET /api/nodes?since=R&wait=S`: what changed, told to whoever waits for it.

use std::time::{Duration, Instant};

use mesh_rest::digest::{Digest, DigestedNode};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::answer::{Answer, Api, node};
use crate::process::Setup;

async fn ask(api: &Api, query: &str) -> Answer {
    Answer::to(api.request(Method::GET, &format!("/api/nodes?{query}"))).await
}

async fn feed(api: &Api, query: &str) -> Value {
    let answer = ask(api, query).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// Asks in the background, and returns once the control plane has the request.
async fn waiting(api: &Api, query: String) -> tokio::task::JoinHandle<Value> {
    let asking = api.clone();
    let waiter = tokio::spawn(async move { feed(&asking, &query).await });
    // Nothing tells that a request waits; one that comes too late is answered all the same.
    tokio::task::yield_now().await;
    waiter
}

fn ids(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap();
    list.iter().map(|id| id.as_str().unwrap()).collect()
}

fn node_ids(answer: &Value) -> Vec<&str> {
    let nodes = answer["nodes"].as_array().unwrap();
    nodes
        .iter()
        .map(|node| node["node_id"].as_str().unwrap())
        .collect()
}

/// The digest as an agent computes it.
fn digest(nodes: &Value) -> String {
    let text = |node: &Value, member: &str| node[member].as_str().unwrap().to_owned();
    let mut digest = Digest::default();
    for node in nodes.as_array().unwrap() {
        digest.add(&DigestedNode {
            node_id: &text(node, "node_id"),
            hostname: &text(node, "hostname"),
            host_ip: &text(node, "host_ip"),
            subnet: &text(node, "subnet"),
            status: &text(node, "status"),
        });
    }
    digest.to_string()
}

#[tokio::test]
async fn a_join_is_told_to_everyone_who_waits_and_shows_only_what_changed() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    api.register(node("a", "192.0.2.1")).await.admitted();
    let mut waiters = Vec::new();
    for _ in 0..20 {
        waiters.push(waiting(&api, "since=1&wait=60".to_owned()).await);
    }
    let (joined, _) = api.register(node("b", "192.0.2.2")).await.admitted();
    let list = api.list().await;
    for waiter in waiters {
        let news = waiter.await.unwrap();
        assert_eq!(node_ids(&news), [joined.as_str()]);
        assert_eq!(
            (&news["revision"], &news["full"], &news["removed"]),
            (&json!(2), &json!(false), &json!([]))
        );
        assert_eq!(news["digest"], digest(&list["nodes"]));
        assert_eq!(news["database"], list["database"]);
    }
}

#[tokio::test]
async fn a_leave_a_return_and_a_new_address_are_news_and_a_heartbeat_is_not() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api.register(node("a", "192.0.2.1")).await.admitted();
    api.register(node("b", "192.0.2.2")).await.admitted();
    api.heartbeat(&node_id).await;
    let quiet = feed(&api, "since=2&wait=0.05").await;
    assert_eq!(
        (&quiet["revision"], &quiet["nodes"]),
        (&json!(2), &json!([]))
    );
    assert_eq!(
        (&quiet["removed"], &quiet["full"]),
        (&json!([]), &json!(false))
    );
    assert_eq!(api.deregister(&node_id).await.status, 200);
    let news = feed(&api, "since=2&wait=60").await;
    assert_eq!(node_ids(&news), [node_id.as_str()]);
    assert_eq!(news["nodes"][0]["status"], "down");
    api.register(node("a", "192.0.2.1")).await.admitted();
    let news = feed(&api, "since=3&wait=60").await;
    assert_eq!(news["nodes"][0]["status"], "up");
    // Who was away for longer is told the last state once.
    assert_eq!(node_ids(&feed(&api, "since=2").await), [node_id.as_str()]);
}

#[tokio::test]
async fn a_node_that_falls_silent_is_news() {
    let control_plane = Setup::new().with("--node-timeout", "500ms").start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api.register(node("a", "192.0.2.1")).await.admitted();
    let news = feed(&api, "since=1&wait=60").await;
    assert_eq!(node_ids(&news), [node_id.as_str()]);
    assert_eq!(news["nodes"][0]["status"], "down");
    assert_eq!(news["digest"], digest(&news["nodes"]));
}

#[tokio::test]
async fn the_whole_list_is_told_to_whoever_cannot_be_told_changes() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let database = api.list().await["database"].as_str().unwrap().to_owned();
    for n in 1..=3 {
        let body = node(&format!("host-{n}"), &format!("192.0.2.{n}"));
        api.register(body).await.admitted();
    }
    let all = api.list().await;
    for query in [
        // From nothing, from the future, from another database; and none of these waits.
        "since=0".to_owned(),
        "since=0&wait=60".to_owned(),
        "since=4&wait=60".to_owned(),
        "since=9223372036854775807&wait=60".to_owned(),
        "since=3&wait=60&database=another".to_owned(),
        "since=1&wait=60&database=".to_owned(),
    ] {
        let answer = feed(&api, &query).await;
        assert_eq!(answer["full"], true, "{query}");
        for member in ["nodes", "revision", "digest", "database"] {
            assert_eq!(answer[member], all[member], "{query}");
        }
    }
    let answer = feed(&api, &format!("since=1&database={database}")).await;
    assert_eq!(
        (&answer["full"], node_ids(&answer).len()),
        (&json!(false), 2)
    );
}

#[tokio::test]
async fn a_database_keeps_its_id_and_the_feed_goes_on_over_restarts() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    api.register(node("a", "192.0.2.1")).await.admitted();
    let (second, _) = api.register(node("b", "192.0.2.2")).await.admitted();
    let before = api.list().await;
    control_plane.kill();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    assert_eq!(api.list().await, before);
    let database = before["database"].as_str().unwrap();
    let news = feed(&api, &format!("since=1&database={database}")).await;
    assert_eq!(
        (&news["full"], node_ids(&news)),
        (&json!(false), vec![second.as_str()])
    );

    let other = Setup::new().start();
    assert_ne!(
        api.list().await["database"],
        Api::of(&other).list().await["database"]
    );
}

#[tokio::test]
async fn the_feed_does_not_reach_back_beyond_forgotten_removals() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    for n in 1..=4 {
        let body = node(&format!("host-{n}"), &format!("192.0.2.{n}"));
        api.register(body).await.admitted();
    }
    assert!(control_plane.stop().success());
    let mut connection = setup.database().await;
    for statement in [
        "INSERT INTO removed_nodes VALUES ('gone-2', 2), ('gone-3', 3)",
        "UPDATE cluster SET forgotten_revision = 2",
    ] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection.close().await.unwrap();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    assert_eq!(feed(&api, "since=1").await["full"], true);
    let news = feed(&api, "since=2").await;
    assert_eq!(
        (&news["full"], ids(&news["removed"])),
        (&json!(false), vec!["gone-3"])
    );
    assert_eq!(node_ids(&news).len(), 2);
}

#[tokio::test]
async fn parameters_that_make_no_sense_are_400() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    for (query, words) in [
        ("since=x", "since must be a revision"),
        ("since=-1", "whole number"),
        ("since=1.5", "whole number"),
        ("since=", "whole number"),
        ("since=1&since=2", "more than once"),
        ("since=1&wait=61", "from 0 to 60"),
        ("since=1&wait=-1", "from 0 to 60"),
        ("since=1&wait=soon", "from 0 to 60"),
        ("since=1&wait=%ff", "from 0 to 60"),
        ("wait=5", "wait needs since"),
        ("database=x", "database needs since"),
    ] {
        let answer = ask(&api, query).await;
        let detail = answer.problem(400, "malformed");
        assert!(detail.contains(words), "{query}: {detail}");
    }
    // What is not known is left alone.
    assert_eq!(ask(&api, "colour=blue").await.status, 200);
}

#[tokio::test]
async fn a_stop_answers_those_who_wait_instead_of_waiting_with_them() {
    let control_plane = Setup::new().with("--shutdown-timeout", "50s").start();
    let api = Api::of(&control_plane);
    api.register(node("a", "192.0.2.1")).await.admitted();
    let mut waiters = Vec::new();
    for _ in 0..10 {
        waiters.push(waiting(&api, "since=1&wait=60".to_owned()).await);
    }
    // The waiters' requests were sent before this one is answered, at least most of them.
    api.list().await;
    let began = Instant::now();
    assert!(control_plane.stop().success());
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );
    for waiter in waiters {
        // One that came too late finds nobody there.
        if let Ok(answer) = waiter.await {
            assert_eq!(answer["nodes"], json!([]));
        }
    }
}

/// Longer than a client may take for a request's head, or may leave a connection idle.
#[tokio::test]
async fn a_wait_outlives_the_deadlines_of_other_requests() {
    let control_plane = Setup::new().with("--node-timeout", "10m").start();
    let api = Api::of(&control_plane);
    api.register(node("a", "192.0.2.1")).await.admitted();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(mesh_rest::client::trusting_nobody())
        .no_proxy()
        .build()
        .unwrap();
    let url = format!(
        "http://{}/api/nodes?since=1&wait=33",
        control_plane.address()
    );
    let began = Instant::now();
    let answer = Answer::to(client.get(url)).await;
    assert_eq!((answer.status, &answer.body["revision"]), (200, &json!(1)));
    assert!(began.elapsed() >= Duration::from_secs(33));
}
