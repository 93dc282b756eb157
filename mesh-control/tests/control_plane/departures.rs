//! Nodes that leave for good, and what becomes of their subnets.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, Api, keyed, node};
use crate::process::Setup;

async fn leave(api: &Api, node_id: &str, key: &str) -> Answer {
    let request = api.post(&format!("/api/nodes/{node_id}/leave"));
    Answer::to(request.json(&json!({"node_key": key}))).await
}

async fn release_departed(api: &Api, body: Value) -> Vec<Value> {
    let answer = Answer::to(api.post("/api/subnets/release-departed").json(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["released"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_node_leaves_with_its_own_key_only_and_comes_back_with_its_subnet() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let (node_id, subnet) = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    let (keyless, _) = api.register(node("b", "192.0.2.2")).await.admitted();
    let revision = api.list().await["revision"].as_i64().unwrap();

    let detail = leave(&api, &node_id, "k-2").await;
    let detail = detail.problem(403, "other-key");
    assert!(detail.contains("not the node_key"), "{detail}");
    let detail = leave(&api, &keyless, "k-2").await;
    let detail = detail.problem(403, "other-key");
    assert!(detail.contains("/api/subnets/release"), "{detail}");
    leave(&api, "nobody", "k-1")
        .await
        .problem(404, "unknown-node");
    let wrong = api.post(&format!("/api/nodes/{node_id}/leave"));
    Answer::to(wrong.json(&json!({"node_key": 7})))
        .await
        .problem(422, "invalid-fields");
    assert_eq!(api.list().await["revision"], revision, "nothing happened");

    for _ in 0..2 {
        assert_eq!(leave(&api, &node_id, "k-1").await.status, 200);
        let shown = api.node(&node_id).await;
        assert_eq!(
            (&shown["status"], &shown["deregistered"], &shown["left"]),
            (&json!("down"), &json!(true), &json!(true))
        );
    }
    api.heartbeat(&node_id).await.problem(404, "unknown-node");
    let path = format!("/api/nodes?since={revision}");
    let news = Answer::to(api.request(Method::GET, &path)).await.body;
    assert_eq!(news["nodes"][0]["left"], true);

    // It stays so over a restart, and until it registers.
    control_plane.kill();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    assert_eq!(api.node(&node_id).await["left"], true);
    let again = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    assert_eq!(again, (node_id.clone(), subnet));
    let shown = api.node(&node_id).await;
    assert_eq!(
        (&shown["status"], &shown["left"]),
        (&json!("up"), &json!(false))
    );
}

#[tokio::test]
async fn a_node_whose_agent_was_stopped_can_still_leave() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    assert_eq!(api.deregister(&node_id).await.status, 200);
    assert_eq!(api.node(&node_id).await["left"], false);
    assert_eq!(leave(&api, &node_id, "k-1").await.status, 200);
    assert_eq!(api.node(&node_id).await["left"], true);
    // And once it left, today's call does not make it less than that.
    assert_eq!(api.deregister(&node_id).await.status, 200);
    assert_eq!(api.node(&node_id).await["left"], true);
}

#[tokio::test]
async fn the_subnets_of_nodes_that_left_are_released_in_bulk_and_no_others() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let mut nodes = Vec::new();
    // More than are released in one change.
    for n in 0..250_u32 {
        let (key, address) = (format!("k-{n}"), format!("192.0.2.{n}"));
        let body = keyed(&key, &format!("host-{n}"), &address);
        nodes.push(api.register(body).await.admitted());
    }
    for (n, (node_id, _)) in nodes.iter().enumerate().skip(2) {
        let key = format!("k-{n}");
        assert_eq!(leave(&api, node_id, &key).await.status, 200);
    }
    assert_eq!(api.deregister(&nodes[1].0).await.status, 200);

    let body = json!({"left_for_seconds": 3600});
    assert_eq!(release_departed(&api, body).await.len(), 0, "not so long");
    for wrong in [
        json!({"left_for_seconds": -1}),
        json!({"left_for_seconds": "1h"}),
        json!([]),
    ] {
        let request = api.post("/api/subnets/release-departed").json(&wrong);
        Answer::to(request).await.problem(422, "invalid-fields");
    }
    let released = release_departed(&api, json!({})).await;
    assert_eq!(released.len(), 248);
    let (node_id, subnet) = &nodes[2];
    let first = json!({"subnet": subnet, "node_id": node_id, "hostname": "host-2"});
    assert!(released.contains(&first));
    assert_eq!(release_departed(&api, json!({})).await.len(), 0);
    let left: Vec<_> = api.nodes().await;
    assert_eq!(left.len(), 2, "who is up, and who was only stopped");
}

#[tokio::test]
async fn a_subnet_is_released_by_itself_only_where_that_was_asked_for() {
    for (release_after, releases) in [(None, false), (Some("1s"), true)] {
        let mut setup = Setup::new();
        if let Some(time) = release_after {
            setup = setup.with("--release-after", time);
        }
        let control_plane = setup.start();
        let api = Api::of(&control_plane);
        let (node_id, _) = api
            .register(keyed("k-1", "a", "192.0.2.1"))
            .await
            .admitted();
        let (stopped, _) = api
            .register(keyed("k-2", "b", "192.0.2.2"))
            .await
            .admitted();
        assert_eq!(api.deregister(&stopped).await.status, 200);
        assert_eq!(leave(&api, &node_id, "k-1").await.status, 200);
        let deadline = Instant::now() + Duration::from_secs(if releases { 60 } else { 4 });
        let is_there = |nodes: &[Value]| nodes.iter().any(|node| node["node_id"] == node_id);
        while is_there(&api.nodes().await) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let nodes = api.nodes().await;
        assert_eq!(is_there(&nodes), !releases);
        assert!(nodes.iter().any(|node| node["node_id"] == *stopped));
    }
}
