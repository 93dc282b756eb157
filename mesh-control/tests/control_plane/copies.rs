//! Hosts that were cloned with the state of their agent.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, Api, keyed};
use crate::process::{ControlPlane, Setup};
use crate::replicas::Replicas;

const HEADER: &str = "quilt-mesh-token";

/// What an agent has on its disk.
#[derive(Debug, Clone)]
struct Host {
    body: Value,
    node_id: String,
    token: Option<String>,
}

impl Host {
    fn new(key: &str, hostname: &str, host_ip: &str) -> Self {
        Self {
            body: keyed(key, hostname, host_ip),
            node_id: String::new(),
            token: None,
        }
    }

    /// The same host elsewhere.
    fn copied_to(&self, host_ip: &str) -> Self {
        let mut copy = self.clone();
        copy.body["host_ip"] = json!(host_ip);
        copy
    }

    /// The answer to a call with the host's token, and what it answers kept.
    async fn post(&mut self, api: &Api, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = api.post(path);
        if let Some(token) = &self.token {
            request = request.header(HEADER, token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let (status, next) = (
            answer.status().as_u16(),
            answer.headers().get(HEADER).cloned(),
        );
        let text = answer.text().await.unwrap();
        assert_eq!(next.is_some(), status == 200, "{status} {text}");
        if let Some(next) = next {
            self.token = Some(next.to_str().unwrap().to_owned());
        }
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn register(&mut self, api: &Api) -> (u16, Value) {
        let body = self.body.clone();
        let (status, answer) = self.post(api, "/api/nodes/register", Some(&body)).await;
        if status == 200 {
            self.node_id = answer["node_id"].as_str().unwrap().to_owned();
        }
        (status, answer)
    }

    async fn beat(&mut self, api: &Api) -> u16 {
        let path = format!("/api/nodes/{}/heartbeat", self.node_id);
        self.post(api, &path, None).await.0
    }
}

async fn registered(api: &Api) -> Host {
    let mut host = Host::new("k-1", "alpha", "192.0.2.1");
    assert_eq!(host.register(api).await.0, 200);
    host
}

fn lines(control_plane: &ControlPlane, words: &str) -> usize {
    let log = control_plane.log();
    log.iter().filter(|line| line.contains(words)).count()
}

#[tokio::test]
async fn a_copy_of_a_live_host_is_held_off_and_both_the_log_and_the_list_say_so() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let mut original = registered(&api).await;
    let mut copy = original.copied_to("192.0.2.9");
    for _ in 0..2 {
        assert_eq!(original.beat(&api).await, 200);
    }
    for _ in 0..3 {
        let (status, answer) = copy.register(&api).await;
        assert_eq!(
            (status, &answer["type"]),
            (409, &json!("urn:quilt-mesh:problem:copy"))
        );
        let detail = answer["detail"].as_str().unwrap();
        for words in ["alpha", "192.0.2.1", "node-token", "state directory"] {
            assert!(detail.contains(words), "{detail}");
        }
        assert_eq!(answer["holder"]["host_ip"], "192.0.2.1");
        assert_eq!(copy.beat(&api).await, 409);
        assert_eq!(original.beat(&api).await, 200);
    }
    let shown = api.node(&original.node_id).await;
    assert_eq!(shown["host_ip"], "192.0.2.1");
    assert!(shown["copy_held_off_at"].as_i64().is_some(), "{shown}");
    let said = control_plane
        .until_logged("a copy of this node's host")
        .await;
    assert_eq!(said.len(), 1, "said once: {said:?}");
}

#[tokio::test]
async fn a_copy_of_the_very_latest_state_gives_the_address_back_to_the_original_that_is_there() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let mut original = registered(&api).await;
    assert_eq!(original.beat(&api).await, 200);
    let before = original.clone();
    assert_eq!(original.beat(&api).await, 200);
    // Under the same address it may be the original, whose answer was lost.
    let mut same = before.clone();
    assert_eq!(same.beat(&api).await, 200);
    // The token that the original used last: it may be the original, and have moved.
    let mut copy = before.copied_to("192.0.2.9");
    assert_eq!(copy.register(&api).await.0, 200);
    for _ in 0..3 {
        assert_eq!(copy.beat(&api).await, 200);
    }
    // But it has not.
    assert_eq!(original.beat(&api).await, 200);
    assert_eq!(copy.beat(&api).await, 409);
    assert_eq!(copy.register(&api).await.0, 409);
    // Its agent sees itself listed elsewhere.
    assert_eq!(original.register(&api).await.0, 200);
    assert_eq!(api.node(&original.node_id).await["host_ip"], "192.0.2.1");
    assert_eq!(copy.register(&api).await.0, 409);
}

#[tokio::test]
async fn a_copy_that_starts_while_the_originals_question_waits_does_not_keep_its_place() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let mut original = registered(&api).await;
    assert_eq!(original.beat(&api).await, 200);
    let revision = api.list().await["revision"].as_i64().unwrap();
    let mut copy = original.copied_to("192.0.2.9");
    // The token is used, so that it makes no difference which of the two below arrives first; mostly the question does,
    // and waits.
    assert_eq!(original.clone().beat(&api).await, 200);
    let (answer, ()) = tokio::join!(original.ask(&api, revision, 50.0), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(copy.register(&api).await.0, 200);
    });
    assert_eq!(copy.beat(&api).await, 200);
    assert_eq!(
        (answer.0, &answer.1["nodes"][0]["host_ip"]),
        (200, &json!("192.0.2.9"))
    );
    assert_eq!(original.register(&api).await.0, 200);
    assert_eq!(copy.beat(&api).await, 409);
    assert_eq!(api.node(&original.node_id).await["host_ip"], "192.0.2.1");
}

/// Who was told news pauses before it asks again. What it was handed out with them, and the copy has, was not used yet.
#[tokio::test]
async fn a_copy_that_starts_before_its_original_asks_again_does_not_keep_its_place() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let mut original = registered(&api).await;
    assert_eq!(original.beat(&api).await, 200);
    let revision = api.list().await["revision"].as_i64().unwrap();
    let mut copy = original.copied_to("192.0.2.9");
    assert_eq!(copy.register(&api).await.0, 200);
    // It even goes on.
    assert_eq!(copy.beat(&api).await, 200);
    let answer = original.ask(&api, revision, 50.0).await;
    assert_eq!(
        (answer.0, &answer.1["nodes"][0]["host_ip"]),
        (200, &json!("192.0.2.9"))
    );
    assert_eq!(copy.beat(&api).await, 200, "until the original shows");
    assert_eq!(original.register(&api).await.0, 200);
    assert_eq!(copy.beat(&api).await, 409);
    assert_eq!(copy.register(&api).await.0, 409);
    assert_eq!(original.beat(&api).await, 200);
    assert_eq!(api.node(&original.node_id).await["host_ip"], "192.0.2.1");
}

/// The host may show that it is there while the copy's registration is being written.
#[tokio::test]
async fn a_host_keeps_its_place_from_a_copy_that_comes_in_the_same_moment() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let mut original = registered(&api).await;
    for round in 0..100 {
        let mut copy = original.copied_to("192.0.2.9");
        assert_eq!(original.beat(&api).await, 200);
        // At some time before, while or after the registration is made.
        let pause = Duration::from_micros(50 * round);
        let beat = async {
            let paused = tokio::task::spawn_blocking(move || std::thread::sleep(pause));
            paused.await.unwrap();
            original.beat(&api).await
        };
        let (beat, (let_in, _)) = tokio::join!(beat, copy.register(&api));
        assert_eq!(beat, 200, "round {round}");
        if let_in == 200 {
            copy.beat(&api).await;
        }
        assert_eq!(original.beat(&api).await, 200, "round {round}, {let_in}");
        assert_eq!(copy.beat(&api).await, 409, "round {round}, {let_in}");
        // Its agent sees itself listed elsewhere.
        assert_eq!(original.register(&api).await.0, 200);
    }
}

#[tokio::test]
async fn a_host_that_moves_while_its_question_waits_is_let_in_at_once() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let mut host = registered(&api).await;
    assert_eq!(host.beat(&api).await, 200);
    let revision = api.list().await["revision"].as_i64().unwrap();
    let mut before = host.clone();
    host.body["host_ip"] = json!("192.0.2.7");
    // Used, whichever of the two below arrives first.
    assert_eq!(before.clone().beat(&api).await, 200);
    let (answer, ()) = tokio::join!(before.ask(&api, revision, 50.0), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(host.register(&api).await.0, 200);
    });
    // Nobody hears this.
    assert_eq!(answer.0, 200);
    for _ in 0..3 {
        assert_eq!(host.beat(&api).await, 200);
    }
    assert_eq!(api.node(&host.node_id).await["host_ip"], "192.0.2.7");
    assert_eq!(lines(&control_plane, "copy"), 0);
}

#[tokio::test]
async fn a_host_that_moves_restarts_or_missed_an_answer_goes_on() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let mut host = registered(&api).await;
    assert_eq!(host.beat(&api).await, 200);
    // The answer was lost, twice.
    for _ in 0..2 {
        let mut unheard = host.clone();
        assert_eq!(unheard.beat(&api).await, 200);
    }
    assert_eq!(host.beat(&api).await, 200);
    // It moves, with what it was answered last.
    host.body["host_ip"] = json!("192.0.2.7");
    assert_eq!(host.register(&api).await.0, 200);
    assert_eq!(host.beat(&api).await, 200);
    // An agent of an earlier version, and the newer one again.
    let token = host.token.take();
    assert_eq!(host.beat(&api).await, 200);
    host.token = token;
    assert_eq!(host.beat(&api).await, 200);
    // The control plane crashes, and knows less than it answered.
    control_plane.kill();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    assert_eq!(host.beat(&api).await, 200);
    assert_eq!(api.node(&host.node_id).await["status"], "up");
    assert_eq!(lines(&control_plane, "copy"), 0);
}

#[tokio::test]
async fn a_copy_is_held_off_after_a_restart_of_the_control_plane_as_before() {
    let setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let mut original = registered(&api).await;
    let mut copy = original.copied_to("192.0.2.9");
    for _ in 0..3 {
        assert_eq!(original.beat(&api).await, 200);
    }
    // In order, so that all is written.
    control_plane.stop();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    assert_eq!(copy.register(&api).await.0, 409);
    assert_eq!(original.beat(&api).await, 200);
}

#[tokio::test]
async fn a_host_restored_from_a_snapshot_goes_on_once_its_original_is_silent() {
    let control_plane = Setup::new().with("--node-timeout", "1s").start();
    let api = Api::of(&control_plane);
    let mut original = registered(&api).await;
    let mut restored = original.clone();
    for _ in 0..3 {
        assert_eq!(original.beat(&api).await, 200);
    }
    assert_eq!(restored.beat(&api).await, 409);
    let deadline = Instant::now() + Duration::from_secs(60);
    while restored.register(&api).await.0 != 200 {
        assert!(Instant::now() < deadline, "it is held off for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(restored.beat(&api).await, 200);
    // Should the original come back, it is the one that is held off.
    assert_eq!(original.beat(&api).await, 409);
    assert_eq!(restored.beat(&api).await, 200);
}

#[tokio::test]
async fn a_copy_is_held_off_whichever_replica_it_asks() {
    let replicas = Replicas::start(2, "10m").await;
    let apis = replicas.apis();
    let mut original = registered(&apis[0]).await;
    let copy = original.copied_to("192.0.2.9");
    for n in 0..6 {
        assert_eq!(original.beat(&apis[n % 2]).await, 200);
        // What one replica knows the others are told within a moment.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    for api in &apis {
        let mut copy = copy.clone();
        assert_eq!(copy.register(api).await.0, 409);
        assert_eq!(copy.beat(api).await, 409);
    }
    for n in 0..4 {
        assert_eq!(original.beat(&apis[n % 2]).await, 200);
    }
}

impl Host {
    /// Asks for news, and says who asks; waits for some for so many seconds.
    async fn ask(&mut self, api: &Api, since: i64, wait: f64) -> (u16, Value) {
        let path = format!("/api/nodes?since={since}&wait={wait}&node={}", self.node_id);
        let mut request = api.request(Method::GET, &path);
        if let Some(token) = &self.token {
            request = request.header(HEADER, token);
        }
        let answer = request.send().await.unwrap();
        let (status, next) = (
            answer.status().as_u16(),
            answer.headers().get(HEADER).cloned(),
        );
        if let Some(next) = next {
            self.token = Some(next.to_str().unwrap().to_owned());
        }
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap())
    }
}

#[tokio::test]
async fn a_question_counts_as_a_heartbeat_of_the_node_that_asks() {
    let control_plane = Setup::new().with("--node-timeout", "2s").start();
    let api = Api::of(&control_plane);
    let mut host = registered(&api).await;
    let revision = api.list().await["revision"].as_i64().unwrap();
    let copy = host.copied_to("192.0.2.9");
    // Waiting or not, it never beats.
    for wait in [0.5, 0.0].repeat(6) {
        let token = host.token.clone();
        let (status, answer) = host.ask(&api, revision, wait).await;
        assert_eq!((status, &answer["revision"]), (200, &json!(revision)));
        assert_ne!(host.token, token, "another token with each");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for wait in [0.0, 20.0] {
        let (status, answer) = copy.clone().ask(&api, revision, wait).await;
        assert_eq!(
            (status, &answer["type"]),
            (409, &json!("urn:quilt-mesh:problem:copy"))
        );
    }
    assert_eq!(host.ask(&api, revision, 0.1).await.0, 200);
    // Told at once, and not after the wait, that it has to register.
    assert_eq!(api.deregister(&host.node_id).await.status, 200);
    for wait in [0.0, 20.0] {
        let (status, answer) = host.ask(&api, revision + 1, wait).await;
        assert_eq!(
            (status, &answer["type"]),
            (404, &json!("urn:quilt-mesh:problem:unknown-node"))
        );
    }
    // And of who does not say who asks, nothing is asked.
    let path = format!("/api/nodes?since={revision}");
    let answer = Answer::to(api.request(Method::GET, &path)).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_question_brings_a_node_up_that_was_called_down() {
    let control_plane = Setup::new().with("--node-timeout", "1s").start();
    let api = Api::of(&control_plane);
    let mut host = registered(&api).await;
    api.wait_for(&host.node_id, "down").await;
    let revision = api.list().await["revision"].as_i64().unwrap();
    assert_eq!(host.ask(&api, revision, 0.0).await.0, 200);
    assert_eq!(api.status(&host.node_id).await, "up");
}

#[tokio::test]
async fn the_token_of_a_question_that_waited_is_no_older_than_those_handed_out_meanwhile() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let mut host = registered(&api).await;
    let revision = api.list().await["revision"].as_i64().unwrap();
    let mut waiting = host.clone();
    let (answer, ()) = tokio::join!(waiting.ask(&api, revision, 1.5), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        for _ in 0..3 {
            assert_eq!(host.beat(&api).await, 200);
        }
    });
    assert_eq!(answer.0, 200);
    assert_eq!(waiting.beat(&api).await, 200);
}
