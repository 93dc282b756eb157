//! Checks of the ways between all nodes: who is told of one, and what is kept of the answers.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_rest::check::{CheckReport, CheckState, WayChecked, WayFinding};
use mesh_rest::client::{Client, Connections, Notice, Notices};
use mesh_rest::feed_query::FeedQuery;
use mesh_rest::heartbeat::Heartbeat;
use mesh_rest::problem_kind::Kind;
use mesh_rest::registration::Registration;

use crate::answer::Api;
use crate::process::{ControlPlane, Setup};
use crate::replicas::Replicas;
use crate::traffic::report;

const DEADLINE: Duration = Duration::from_secs(90);

/// The checks that answers named, each answer's.
#[derive(Debug, Default)]
struct Named(Mutex<Vec<Option<String>>>);

impl Notices for Named {
    fn take(&self, notice: Notice) {
        self.0.lock().unwrap().push(notice.check);
    }
}

impl Named {
    fn last(&self) -> Option<String> {
        self.0.lock().unwrap().last().cloned().flatten()
    }
}

/// A client, and what its answers name.
fn client(control_plane: &ControlPlane) -> (Client, Arc<Named>) {
    let base = format!("http://{}", control_plane.address());
    let connections = Connections::new(DEADLINE, "test").unwrap();
    let named = Arc::new(Named::default());
    let client = Client::new(connections, base.parse().unwrap(), DEADLINE);
    (client.noticing(Arc::<Named>::clone(&named)), named)
}

async fn register(client: &Client, number: u8) -> String {
    let host = Registration::new(
        format!("host-{number}"),
        Ipv4Addr::new(192, 0, 2, 10 + number),
    );
    let node_id = client.register(&host).await.unwrap().node_id;
    node_id.to_string()
}

/// Waits for news, far longer than a test may take.
async fn question(client: &Client, node_id: &str) -> FeedQuery {
    let list = client.nodes(None).await.unwrap();
    FeedQuery {
        since: list.revision,
        wait: Duration::from_secs(60),
        database: Some(list.database.to_string()),
        node: Some(node_id.to_owned()),
    }
}

fn answer(id: &str, observed: &str) -> Heartbeat {
    Heartbeat {
        check: Some(CheckReport {
            id: id.to_owned(),
            peers: vec![WayChecked {
                subnet: "10.42.9.0/24".parse().unwrap(),
                error: None,
                containers_us: Some(210),
                carried_by: Some("fast".to_owned()),
                kernel_us: None,
                underlay_us: Some(90),
                largest: Some(1450),
                heard_ms: Some(5),
                findings: vec![WayFinding {
                    code: "kernel-path-silent".to_owned(),
                    severity: "warning".to_owned(),
                    observed: observed.to_owned(),
                }],
            }],
            ..CheckReport::default()
        }),
        ..Heartbeat::default()
    }
}

fn answered(state: &CheckState, node_id: &str) -> Option<CheckReport> {
    let mut nodes = state.nodes.iter();
    let node = nodes.find(|node| node.node_id.as_str() == node_id);
    node.unwrap_or_else(|| panic!("{node_id} is not in {state:?}"))
        .answer
        .clone()
}

#[tokio::test]
async fn a_node_that_waits_for_news_is_told_of_a_check_and_its_answer_is_shown() {
    let control_plane = Setup::new().start();
    let (node, named) = client(&control_plane);
    let (operator, _) = client(&control_plane);
    let node_id = register(&node, 1).await;
    let silent = register(&operator, 2).await;
    let query = question(&node, &node_id).await;
    assert_eq!(named.last(), None, "there is none");
    let waiting = {
        let node = node.clone();
        let query = query.clone();
        tokio::spawn(async move { node.nodes(Some(&query)).await })
    };
    tokio::task::yield_now().await;
    let id = operator.order_check().await.unwrap().id;
    let news = waiting.await.unwrap().unwrap();
    assert!(news.nodes.is_empty(), "nothing else is new: {news:?}");
    assert_eq!(named.last().as_deref(), Some(&*id));
    node.heartbeat(&node_id, None).await.unwrap();
    assert_eq!(named.last().as_deref(), Some(&*id), "and by its heartbeat");

    let state = operator.check(&id).await.unwrap();
    assert!(state.open && state.id == id);
    assert_eq!(answered(&state, &node_id), None);
    let long = "x".repeat(5000);
    let beat = answer(&id, &long);
    node.heartbeat(&node_id, Some(&beat)).await.unwrap();
    // To none that there is.
    let other = answer("5eed", "");
    node.heartbeat(&node_id, Some(&other)).await.unwrap();
    let state = operator.check(&id).await.unwrap();
    let report = answered(&state, &node_id).unwrap();
    let way = &report.peers[0];
    assert_eq!((way.containers_us, way.largest), (Some(210), Some(1450)));
    assert_eq!(way.findings[0].observed.len(), 1024, "cut");
    assert_eq!(answered(&state, &silent), None);

    // Told of it already, it waits for something else: the next check.
    let waiting = {
        let node = node.clone();
        tokio::spawn(async move { node.nodes(Some(&query)).await })
    };
    tokio::task::yield_now().await;
    let next = operator.order_check().await.unwrap().id;
    assert_ne!(next, id);
    waiting.await.unwrap().unwrap();
    assert_eq!(named.last().as_deref(), Some(&*next));

    // As many as there may be.
    let refused = operator.order_check().await.unwrap_err();
    assert_eq!(refused.kind(), Some(Kind::SlowDown));
    let wait = refused.retry_after().unwrap();
    assert!(
        !wait.is_zero() && wait <= Duration::from_secs(10),
        "{wait:?}"
    );
    let unknown = operator.check("5eed").await.unwrap_err();
    assert_eq!(unknown.kind(), Some(Kind::NoSuchCheck));
}

#[tokio::test]
async fn what_is_no_answer_is_refused_by_the_field_that_is_wrong() {
    let control_plane = Setup::new().start();
    let node = client(&control_plane).0;
    let node_id = register(&node, 1).await;
    let api = Api::of(&control_plane);
    let beat = async |body: serde_json::Value| {
        let answer = report(&api, &node_id, &body).await;
        (answer.status, answer.body.to_string())
    };
    let way = serde_json::json!({"subnet": "nonsense"});
    for (check, pointer) in [
        (serde_json::json!([]), "#/check"),
        (serde_json::json!({"id": 5}), "#/check"),
        (serde_json::json!({"id": "1", "peers": [way]}), "#/check"),
    ] {
        let (status, said) = beat(serde_json::json!({"check": check})).await;
        assert_eq!(status, 422, "{said}");
        assert!(said.contains(pointer), "{said}");
    }
    let (status, said) = beat(serde_json::json!({"check": {"id": "1", "of_later": true}})).await;
    assert_eq!(status, 200, "{said}");
}

#[tokio::test]
async fn nodes_of_every_replica_are_told_and_each_replica_shows_what_its_own_answered() {
    let replicas = Replicas::start(2, "10m").await;
    let [(here, here_named), (there, there_named)] =
        [0, 1].map(|number| client(&replicas.running[number]));
    let at_home = register(&here, 1).await;
    let away = register(&there, 2).await;
    let query = question(&there, &away).await;
    let waiting = {
        let there = there.clone();
        tokio::spawn(async move { there.nodes(Some(&query)).await })
    };
    tokio::task::yield_now().await;
    let id = here.order_check().await.unwrap().id;
    waiting.await.unwrap().unwrap();
    assert_eq!(there_named.last().as_deref(), Some(&*id));
    here.heartbeat(&at_home, Some(&answer(&id, "")))
        .await
        .unwrap();
    assert_eq!(here_named.last().as_deref(), Some(&*id));
    there
        .heartbeat(&away, Some(&answer(&id, "")))
        .await
        .unwrap();
    let (one, other) = (
        here.check(&id).await.unwrap(),
        there.check(&id).await.unwrap(),
    );
    assert!(answered(&one, &at_home).is_some() && answered(&one, &away).is_none());
    assert!(answered(&other, &at_home).is_none() && answered(&other, &away).is_some());
}
