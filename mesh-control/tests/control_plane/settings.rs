//! What all nodes have in common, and the MTU that each tells of itself.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, Api, keyed, node};
use crate::process::Setup;
use crate::replicas::Replicas;

async fn feed(api: &Api, query: &str) -> Value {
    let answer = Answer::to(api.request(Method::GET, &format!("/api/nodes?{query}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

async fn beat(api: &Api, node_id: &str, body: Value) -> Answer {
    let path = format!("/api/nodes/{node_id}/heartbeat");
    Answer::to(api.post(&path).json(&body)).await
}

/// Port and VNI of an answer.
fn told(answer: &Value) -> (u64, u64) {
    let number = |member: &str| answer[member].as_u64().unwrap();
    (number("vxlan_port"), number("vni"))
}

/// A node that says its MTU when it registers.
fn with_mtu(mtu: u32) -> Value {
    let mut node = keyed("k-1", "a", "192.0.2.1");
    node["overlay_mtu"] = json!(mtu);
    node
}

#[tokio::test]
async fn a_registration_every_list_and_every_change_tell_the_options() {
    for (setup, expected) in [
        (Setup::new(), (4789, 100)),
        (
            Setup::new()
                .with("--vxlan-port", "8472")
                .with("--vni", "16777215"),
            (8472, 16_777_215),
        ),
        (
            Setup::new().with_environment("QUILT_MESH_VXLAN_PORT", "1"),
            (1, 100),
        ),
    ] {
        let control_plane = setup.start();
        let api = Api::of(&control_plane);
        let answer = api.register(node("a", "192.0.2.1")).await;
        assert_eq!(told(&answer.body), expected);
        assert_eq!(told(&api.list().await), expected);
        assert_eq!(told(&feed(&api, "since=0").await), expected);
        let nothing_new = feed(&api, "since=1&wait=0.01").await;
        assert_eq!(told(&nothing_new), expected);
        assert_eq!(nothing_new["nodes"], json!([]));
    }
}

#[test]
fn options_that_vxlan_has_no_room_for_are_refused() {
    for (option, value) in [
        ("--vxlan-port", "0"),
        ("--vxlan-port", "65536"),
        ("--vni", "0"),
        ("--vni", "16777216"),
    ] {
        let said = Setup::new().with(option, value).start_refused();
        assert!(said.contains(option) && said.contains(value), "{said}");
    }
}

#[tokio::test]
async fn other_options_after_a_restart_are_news_for_who_has_the_old_ones() {
    let mut setup = Setup::new();
    let control_plane = setup.start();
    let lease = Api::of(&control_plane)
        .register(node("a", "192.0.2.1"))
        .await
        .admitted();
    assert!(control_plane.stop().success());
    setup.set("--vxlan-port", "8472");
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let start = Instant::now();
    let news = feed(&api, "since=1&wait=60").await;
    assert!(start.elapsed() < Duration::from_secs(30), "it waited");
    assert_eq!((told(&news), &news["revision"]), ((8472, 100), &json!(2)));
    assert_eq!(news["nodes"], json!([]), "no node has changed");
    assert_eq!(api.register(node("a", "192.0.2.1")).await.admitted(), lease);
    // The same options again are no news.
    assert!(control_plane.stop().success());
    let control_plane = setup.start();
    let list = Api::of(&control_plane).list().await;
    assert_eq!((told(&list), &list["revision"]), ((8472, 100), &json!(2)));
}

#[tokio::test]
async fn a_node_s_mtu_is_shown_to_all_and_goes_into_no_digest() {
    let mut setup = Setup::new();
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api
        .register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    let before = api.list().await;
    assert_eq!(before["nodes"][0].get("overlay_mtu"), None);
    assert_eq!(
        beat(&api, &node_id, json!({"overlay_mtu": 1450}))
            .await
            .status,
        200
    );
    let news = feed(&api, "since=1&wait=60").await;
    assert_eq!(news["nodes"][0]["overlay_mtu"], 1450);
    assert_eq!(
        news["digest"], before["digest"],
        "agents of old compute the same"
    );
    assert_eq!(news["full"], false);
    // What is told again, or not told, is no news.
    let revision = news["revision"].clone();
    assert_eq!(
        beat(&api, &node_id, json!({"overlay_mtu": 1450}))
            .await
            .status,
        200
    );
    assert_eq!(api.heartbeat(&node_id).await.status, 200);
    // Longer than heartbeats wait to be written.
    let quiet = feed(&api, &format!("since={revision}&wait=7")).await;
    assert_eq!(quiet["revision"], revision);
    beat(&api, &node_id, json!({"overlay_mtu": 67}))
        .await
        .problem(422, "invalid-fields");
    // It is there after a restart, and what was not written by then is written at the stop.
    assert_eq!(
        beat(&api, &node_id, json!({"overlay_mtu": 1400}))
            .await
            .status,
        200
    );
    assert!(control_plane.stop().success());
    setup.set("--node-timeout", "10m");
    let control_plane = setup.start();
    let api = Api::of(&control_plane);
    assert_eq!(api.node(&node_id).await["overlay_mtu"], 1400);
}

#[tokio::test]
async fn a_registration_says_the_mtu_as_it_says_the_address() {
    let control_plane = Setup::new().start();
    let api = Api::of(&control_plane);
    let (node_id, _) = api.register(with_mtu(1450)).await.admitted();
    assert_eq!(api.node(&node_id).await["overlay_mtu"], 1450);
    let revision = api.list().await["revision"].clone();
    api.register(with_mtu(1450)).await.admitted();
    assert_eq!(
        api.list().await["revision"],
        revision,
        "nothing has changed"
    );
    api.register(with_mtu(8950)).await.admitted();
    let news = feed(&api, &format!("since={revision}&wait=60")).await;
    assert_eq!(news["nodes"][0]["overlay_mtu"], 8950);
    // An agent that knows of none, or a node without an overlay: nobody goes by what it said before.
    api.register(keyed("k-1", "a", "192.0.2.1"))
        .await
        .admitted();
    assert_eq!(api.node(&node_id).await.get("overlay_mtu"), None);
    let detail = api.register(with_mtu(65_536)).await;
    assert!(
        detail
            .problem(422, "invalid-fields")
            .contains("68 to 65535")
    );
}

#[tokio::test]
async fn replicas_tell_each_other_of_a_node_s_mtu() {
    let replicas = Replicas::start(2, "10m").await;
    let apis = replicas.apis();
    let (node_id, _) = apis[0].register(with_mtu(1450)).await.admitted();
    assert_eq!(
        beat(&apis[1], &node_id, json!({"overlay_mtu": 1400}))
            .await
            .status,
        200
    );
    let news = feed(&apis[0], "since=1&wait=60").await;
    assert_eq!(news["nodes"][0]["overlay_mtu"], 1400);
    // The other one told it: that this one hears the same is no news.
    let revision = news["revision"].clone();
    assert_eq!(
        beat(&apis[0], &node_id, json!({"overlay_mtu": 1400}))
            .await
            .status,
        200
    );
    let quiet = feed(&apis[1], &format!("since={revision}&wait=7")).await;
    assert_eq!(quiet["revision"], revision);
}

#[tokio::test]
async fn of_two_replicas_with_different_options_the_one_that_started_last_tells_nodes() {
    different("--vxlan-port", "8472", (8472, 600_000)).await;
    different("--node-timeout", "5m", (4789, 300_000)).await;
}

/// Two replicas, the later of which has another value of an option; then port and node timeout in milliseconds are these.
async fn different(option: &str, value: &str, (port, timeout): (u64, u64)) {
    let replicas = Replicas::start(1, "10m").await;
    let first = &replicas.apis()[0];
    let (node_id, _) = first.register(node("a", "192.0.2.1")).await.admitted();
    let setup = Setup::new()
        .on(&replicas.url)
        .with("--node-timeout", "10m")
        .with(option, value);
    let other = setup.start();
    let other = Api::of(&other);
    let answer = other.register(node("a", "192.0.2.1")).await;
    assert_eq!(told(&answer.body), (port, 100));
    assert_eq!(answer.body["node_timeout_ms"], timeout);
    // The first notices within seconds, and refuses everybody, so that they ask the other.
    let deadline = Instant::now() + Duration::from_secs(30);
    while first.heartbeat(&node_id).await.status == 200 {
        assert!(Instant::now() < deadline, "it did not notice");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answers = [
        first.heartbeat(&node_id).await,
        first.register(node("b", "192.0.2.2")).await,
        Answer::to(first.request(Method::GET, "/api/nodes")).await,
        Answer::to(first.request(Method::GET, "/api/nodes?since=1&wait=1")).await,
    ];
    for answer in answers {
        let detail = answer.problem(503, "database-unavailable");
        for words in [
            format!("started with --vxlan-port {port} --vni 100 --node-timeout {timeout}ms")
                .as_str(),
            "this one with --vxlan-port 4789 --vni 100 --node-timeout 600000ms",
            "restart all of them with the same",
        ] {
            assert!(detail.contains(words), "{detail}");
        }
    }
    assert_eq!(other.heartbeat(&node_id).await.status, 200);
    // Restarted with the same, the first is one of them again.
    let mut replicas = replicas;
    replicas.running.clear();
    replicas.running.push(setup.start());
    let first = &replicas.apis()[0];
    assert_eq!(told(&first.list().await), (port, 100));
    assert_eq!(first.heartbeat(&node_id).await.status, 200);
    assert_eq!(other.heartbeat(&node_id).await.status, 200);
}
