//! Who is up.

use std::time::{Duration, Instant};

use crate::answer::{Answer, Api, keyed, node};
use crate::process::Setup;
use nix::sys::signal::Signal;
use reqwest::Method;

#[tokio::test]
async fn a_silent_node_goes_down_and_the_next_heartbeat_brings_it_up() {
    let control_plane = Setup::new().with("--node-timeout", "2s").start();
    let api = Api::of(&control_plane);
    let began = Instant::now();
    let (node_id, subnet) = api.register(node("a", "192.0.2.1")).await.admitted();
    api.wait_for(&node_id, "down").await;
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "down after {:?}",
        began.elapsed()
    );
    assert_eq!(api.node(&node_id).await["deregistered"], false);
    assert_eq!(api.heartbeat(&node_id).await.status, 200);
    let node = api.node(&node_id).await;
    assert_eq!(
        (&node["status"], &node["subnet"]),
        (&"up".into(), &subnet.into())
    );
    api.wait_for(&node_id, "down").await;
}

#[tokio::test]
async fn a_node_that_beats_stays_up_while_a_silent_one_goes_down() {
    let control_plane = Setup::new().with("--node-timeout", "2s").start();
    let api = Api::of(&control_plane);
    let (beating, _) = api.register(node("a", "192.0.2.1")).await.admitted();
    let heart = {
        let (api, node_id) = (api.clone(), beating.clone());
        tokio::spawn(async move {
            loop {
                assert_eq!(api.heartbeat(&node_id).await.status, 200);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    let (silent, _) = api.register(node("b", "192.0.2.2")).await.admitted();
    api.wait_for(&silent, "down").await;
    assert_eq!(api.status(&beating).await, "up");
    heart.abort();
}

#[tokio::test]
async fn a_heartbeat_answers_200_with_no_body_whatever_it_carries() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api.register(node("a", "192.0.2.1")).await.admitted();
    for body in ["", "{}", "{\"load\": 0.5}", "not json"] {
        let request = api
            .post(&format!("/api/nodes/{node_id}/heartbeat"))
            .body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.text().await.unwrap(), "");
    }
}

#[tokio::test]
async fn a_stranger_s_heartbeat_is_told_to_register() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let answer = api.heartbeat("nobody").await;
    let detail = answer.problem(404, "unknown-node");
    assert!(
        detail.contains("\"nobody\"") && detail.contains("register"),
        "{detail}"
    );
    api.deregister("nobody").await.problem(404, "unknown-node");
}

#[tokio::test]
async fn a_deregistered_node_is_down_at_once_and_a_late_heartbeat_does_not_revive_it() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    assert_eq!(api.deregister(&node_id).await.status, 200);
    assert_eq!(api.status(&node_id).await, "down");
    assert_eq!(api.node(&node_id).await["deregistered"], true);
    api.heartbeat(&node_id).await.problem(404, "unknown-node");
    assert_eq!(api.status(&node_id).await, "down");
    control_plane.kill();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    api.heartbeat(&node_id).await.problem(404, "unknown-node");
    assert_eq!(api.status(&node_id).await, "down");
}

#[tokio::test]
async fn a_restart_gives_a_live_node_a_full_timeout() {
    let mut setup = Setup::new();
    let control_plane = setup.start();
    let (node_id, _) = Api::of(&control_plane)
        .register(node("a", "192.0.2.1"))
        .await
        .admitted();
    control_plane.kill();
    // Let its last heartbeat be further back than the timeout of the next control plane.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    setup.set("--node-timeout", "1s");
    let began = Instant::now();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let status = api.status(&node_id).await;
    // On a machine so slow that a second went by, it may rightly be down.
    assert!(
        status == "up" || began.elapsed() >= Duration::from_secs(1),
        "{status}"
    );
    api.wait_for(&node_id, "down").await;
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_node_that_was_down_is_not_up_after_a_crash() {
    let mut setup = Setup::new().with("--node-timeout", "1s");
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api.register(node("a", "192.0.2.1")).await.admitted();
    // The second revision is the node going down: from then on it is on the disk.
    let deadline = Instant::now() + Duration::from_secs(60);
    while api.list().await["revision"] != 2 {
        assert!(Instant::now() < deadline, "going down was not written");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    control_plane.kill();
    setup.set("--node-timeout", "10m");
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    assert_eq!(api.status(&node_id).await, "down");
    assert_eq!(api.heartbeat(&node_id).await.status, 200);
    assert_eq!(api.status(&node_id).await, "up");
}

#[tokio::test]
async fn an_orderly_stop_writes_the_last_heartbeats() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api.register(node("a", "192.0.2.1")).await.admitted();
    let registered_at = api.node(&node_id).await["registered_at"].clone();
    // Beat until the second has changed, so that this heartbeat can be told from the registration.
    let deadline = Instant::now() + Duration::from_secs(60);
    let last_heartbeat = loop {
        assert_eq!(api.heartbeat(&node_id).await.status, 200);
        let last_heartbeat = api.node(&node_id).await["last_heartbeat"].clone();
        if last_heartbeat != registered_at {
            break last_heartbeat;
        }
        assert!(Instant::now() < deadline, "a heartbeat does not show");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(control_plane.stop().success());
    let control_plane = setup.start();
    let node = Api::of(&control_plane).node(&node_id).await;
    assert_eq!(node["last_heartbeat"], last_heartbeat);
    assert_eq!(node["registered_at"], registered_at);
}

#[tokio::test]
async fn health_is_ok() {
    let control_plane = Setup::new().start();
    let answer = Answer::to(Api::of(&control_plane).request(Method::GET, "/health")).await;
    assert_eq!(
        (answer.status, answer.body),
        (200, serde_json::json!({"status": "ok"}))
    );
}

/// Registers so many nodes.
async fn many(api: &Api, count: u8) -> Vec<String> {
    let mut nodes = Vec::new();
    for n in 1..=count {
        let body = node(&format!("host-{n}"), &format!("192.0.2.{n}"));
        nodes.push(api.register(body).await.admitted().0);
    }
    nodes
}

/// How many nodes are up.
async fn up(api: &Api) -> usize {
    let nodes = api.nodes().await;
    nodes.iter().filter(|node| node["status"] == "up").count()
}

#[tokio::test]
async fn a_control_plane_that_was_frozen_calls_nobody_down_for_its_own_absence() {
    let control_plane = Setup::new().with("--node-timeout", "3s").start();
    let api = Api::of(&control_plane);
    let nodes = many(&api, 3).await;
    let revision = api.list().await["revision"].clone();
    control_plane.signal(Signal::SIGSTOP);
    tokio::time::sleep(Duration::from_secs(5)).await;
    control_plane.signal(Signal::SIGCONT);
    // Each has a full timeout, and so beats in time.
    for _ in 0..4 {
        for node_id in &nodes {
            assert_eq!(api.heartbeat(node_id).await.status, 200);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(api.list().await["revision"], revision, "nobody was down");
    let said = |words| {
        control_plane
            .log()
            .iter()
            .filter(|line| line.contains(words))
            .count()
    };
    assert_eq!(said("did not run for a while"), 1);
    assert_eq!(said("node is down"), 0);
    // And then they are watched as before.
    api.wait_for(&nodes[0], "down").await;
}

#[tokio::test]
async fn many_that_fall_silent_at_once_are_held_for_one_more_timeout_and_then_called_down() {
    let control_plane = Setup::new().with("--node-timeout", "3s").start();
    let api = Api::of(&control_plane);
    let nodes = many(&api, 20).await;
    let silent = Instant::now();
    for node_id in &nodes {
        assert_eq!(api.heartbeat(node_id).await.status, 200);
    }
    let said = |words| {
        control_plane
            .log()
            .iter()
            .filter(|line| line.contains(words))
            .count()
    };
    while said("fell silent at once") == 0 {
        assert!(
            silent.elapsed() < Duration::from_secs(60),
            "not within a minute"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(up(&api).await, 20);
    // Half of them were only cut off.
    while api.status(&nodes[19]).await == "up" {
        for node_id in &nodes[..10] {
            assert_eq!(api.heartbeat(node_id).await.status, 200);
        }
        assert!(
            silent.elapsed() < Duration::from_secs(60),
            "not within a minute"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(silent.elapsed() >= Duration::from_secs(6), "two timeouts");
    assert_eq!(said("fell silent at once"), 1);
}

#[tokio::test]
async fn less_than_half_or_fewer_than_ten_are_called_down_in_time() {
    for (count, silent) in [(9, 9), (25, 12)] {
        let control_plane = Setup::new().with("--node-timeout", "3s").start();
        let api = Api::of(&control_plane);
        let nodes = many(&api, count).await;
        let last = Instant::now();
        while api.status(&nodes[0]).await == "up" {
            for node_id in &nodes[silent..] {
                assert_eq!(api.heartbeat(node_id).await.status, 200);
            }
            assert!(
                last.elapsed() < Duration::from_secs(60),
                "not within a minute"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let said = |words| control_plane.log().iter().any(|line| line.contains(words));
        while !said("node is down") {
            assert!(
                last.elapsed() < Duration::from_secs(60),
                "not within a minute"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!said("fell silent at once"));
    }
}

#[tokio::test]
async fn a_registration_is_told_how_often_to_beat_and_refused_if_it_cannot() {
    let control_plane = Setup::new().with("--node-timeout", "3s").start();
    let api = Api::of(&control_plane);
    let answer = api.register(node("a", "192.0.2.1")).await;
    assert_eq!(answer.body["node_timeout_ms"], 3000);
    assert_eq!(answer.body["heartbeat_interval_ms"], 1000);
    let mut body = node("b", "192.0.2.2");
    body["heartbeat_interval_ms"] = 1501.into();
    let refused = api.register(body.clone()).await;
    let detail = refused.problem(422, "invalid-fields");
    for words in [
        "silent for 3s",
        "each 1.501s",
        "1.5s is the longest",
        "--node-timeout",
    ] {
        assert!(detail.contains(words), "{detail}");
    }
    assert_eq!(api.nodes().await.len(), 1);
    body["heartbeat_interval_ms"] = 1500.into();
    assert_eq!(api.register(body).await.status, 200);
}
