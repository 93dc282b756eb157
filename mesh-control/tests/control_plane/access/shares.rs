//! What one credential may have at a time, and how often it is given a certificate: it gets no further than that, and
//! nobody else notices.

use std::time::{Duration, Instant};

use mesh_credentials::node_key_pair::NodeKeyPair;
use mesh_rest::operator::Role;
use mesh_rest::security::Stage;
use serde_json::json;

use super::client::{Answer, PATIENCE, plain, request, tls, with_json};
use super::joined::{Host, Served, body};
use super::server::Server;

const QUESTION: &str = "/api/nodes?since=0&wait=60";

fn renewal(host: &Host) -> String {
    let renew = json!({"request": host.key.request().unwrap()});
    with_json("POST", "/api/renew", "", &renew)
}

fn is_told_to_wait(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.kind()),
        (429, "slow-down".to_owned())
    );
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_node_that_renews_in_a_loop_is_told_to_wait_and_another_renews() {
    let served = Served::start();
    let (a, b) = (served.joined().await, served.joined().await);
    let mut as_a = served.as_node(&a).await;
    let renewal_of_a = renewal(&a);
    let renewed = body(&as_a.ask(&renewal_of_a).await);
    assert_eq!(renewed["node_id"], a.node_id);
    let mut last = None;
    for _ in 0..30 {
        last = Some(as_a.ask(&renewal_of_a).await);
    }
    is_told_to_wait(&last.unwrap());
    // Nor over another connection.
    is_told_to_wait(&served.as_node(&a).await.ask(&renewal_of_a).await);
    // What else it does is no renewal.
    let list = as_a.ask(&request("GET", "/api/nodes", "")).await;
    assert_eq!(list.status, 200, "{}", list.body);
    let mut as_b = served.as_node(&b).await;
    body(&as_b.ask(&renewal(&b)).await);
}

#[tokio::test]
async fn a_host_that_asks_again_and_again_by_its_token_is_told_to_wait_and_another_joins() {
    let served = Served::start();
    let (token, key) = (served.token().await, NodeKeyPair::make().unwrap());
    let node_id = |answer: &Answer| body(answer)["node_id"].clone();
    let first = node_id(&served.join(&token, &key).await);
    // Its answer may have been lost.
    assert_eq!(node_id(&served.join(&token, &key).await), first);
    let mut last = None;
    for _ in 0..30 {
        last = Some(served.join(&token, &key).await);
    }
    is_told_to_wait(&last.unwrap());
    // The token is still of use to nobody else.
    let other = NodeKeyPair::make().unwrap();
    assert_eq!(served.join(&token, &other).await.kind(), "token-refused");
    served.joined().await;
}

#[tokio::test]
async fn a_node_has_no_more_connections_than_its_share_and_another_node_has_its_own() {
    const SHARE: usize = 64;
    let server = Server::start(Stage::Secured).await;
    let (a, b) = (server.node("a", 0), server.node("b", 0));
    let list = request("GET", "/api/nodes", "");
    let mut connections = Vec::new();
    for _ in 0..SHARE {
        let mut connection = tls(&server, Some(&a)).await;
        let answer = connection.ask(&list).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        connections.push(connection);
    }
    let mut one_too_many = tls(&server, Some(&a)).await;
    is_told_to_wait(&one_too_many.ask(&list).await);
    assert!(one_too_many.is_over().await);
    // One that asks nothing is not kept either.
    assert!(tls(&server, Some(&a)).await.is_over().await);
    assert_eq!(tls(&server, Some(&b)).await.ask(&list).await.status, 200);
    assert_eq!(
        tls(&server, None)
            .await
            .ask(&request("GET", "/health", ""))
            .await
            .status,
        200
    );
    // Those that are there go on, and one that goes makes room.
    assert_eq!(connections[0].ask(&list).await.status, 200);
    connections.pop();
    let deadline = Instant::now() + PATIENCE;
    while tls(&server, Some(&a)).await.ask(&list).await.status != 200 {
        assert!(Instant::now() < deadline, "there is no room");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_credential_has_no_more_requests_than_its_share_also_of_those_that_wait() {
    let server = Server::start(Stage::Secured).await;
    let (a, b) = (server.node("a", 0), server.node("b", 0));
    let operators = ["ada", "bob"].map(|id| server.operator(id, Role::Read, false));
    let question = request("GET", QUESTION, "");
    let mut of_a = Vec::new();
    for _ in 0..32 {
        let mut connection = tls(&server, Some(&a)).await;
        connection.send(&question).await.unwrap();
        of_a.push(connection);
    }
    let mut of_ada = Vec::new();
    for _ in 0..256 {
        let mut connection = plain(&server).await;
        let question = request("GET", QUESTION, &operators[0]);
        connection.send(&question).await.unwrap();
        of_ada.push(connection);
    }
    // Those are read in a moment; until then there is room.
    let deadline = Instant::now() + PATIENCE;
    let mut refused = loop {
        let mut connection = tls(&server, Some(&a)).await;
        let answer = connection.ask(&request("GET", "/api/nodes", "")).await;
        if answer.status != 200 {
            is_told_to_wait(&answer);
            break connection;
        }
        assert!(Instant::now() < deadline, "it has more than its share");
    };
    assert!(refused.is_over().await);
    let list = |headers: &str| request("GET", "/api/nodes", headers);
    loop {
        let answer = plain(&server).await.ask(&list(&operators[0])).await;
        if answer.status != 200 {
            is_told_to_wait(&answer);
            break;
        }
        assert!(Instant::now() < deadline, "it has more than its share");
    }
    let answer = plain(&server).await.ask(&list(&operators[1])).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        tls(&server, Some(&b)).await.ask(&list("")).await.status,
        200
    );
    // All of them end when it is revoked, and what they had is there again.
    server.revoke("a");
    for connection in &mut of_a {
        let answer = connection.answer().await.unwrap();
        assert!([401, 429].contains(&answer.status), "{}", answer.body);
    }
}
