//! Requests whose sender may not ask any more when their bodies are there: every call of the table that is sent one.

use std::collections::BTreeSet;

use mesh_control::api::access::{Rule, TABLE};
use mesh_rest::operator::Role;
use mesh_rest::security::Stage;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::{Connection, plain, request, tls, with_json};
use super::server::Server;
use crate::answer::node;

/// A body as each call wants it. A call that is not here gets an empty object, which is refused before all else as well.
pub(crate) fn body(path: &str) -> Value {
    match path {
        "/api/nodes/register" => node("late", "192.0.2.77"),
        "/api/nodes/{id}/leave" => json!({"node_key": "any"}),
        "/api/subnets/release" => json!({"subnet": "10.42.1.0/24"}),
        "/api/subnets/reserve" => json!({"cidr": "10.42.77.0/24"}),
        "/api/subnets/unreserve" => json!({"cidr": "10.42.66.0/24"}),
        "/api/operators" => json!({"name": "eve", "role": "operate"}),
        _ => json!({}),
    }
}

/// A request whose body is asked for, and not sent yet: what is left of it. The server has judged its head when it asks.
pub(crate) async fn begin<S>(
    connection: &mut Connection<S>,
    path: &str,
    headers: &str,
    json: &Value,
) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let headers = format!("Expect: 100-continue\r\n{headers}");
    let whole = with_json("POST", path, &headers, json);
    let (head, body) = whole.split_once("\r\n\r\n").unwrap();
    let answer = connection.ask(&format!("{head}\r\n\r\n")).await;
    assert_eq!(answer.status, 100, "{path}: {}", answer.body);
    body.to_owned()
}

/// Who asks in time, and may not any more when the body comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Node,
    Operator,
}

fn senders(rule: Rule) -> &'static [Sender] {
    match rule {
        // Whoever may is known by what the body says, or cannot be revoked.
        Rule::Public | Rule::Admin => &[],
        Rule::Renewal | Rule::Registration | Rule::OwnNode => &[Sender::Node],
        Rule::OwnNodeOrOperate => &[Sender::Node, Sender::Operator],
        Rule::NodeList | Rule::Read => &[],
        Rule::Operate | Rule::Credentials => &[Sender::Operator],
    }
}

async fn state(server: &Server, admin: &str) -> Vec<Value> {
    let mut state = Vec::new();
    for path in ["/api/nodes", "/api/subnets", "/api/tokens"] {
        let answer = plain(server).await.ask(&request("GET", path, admin)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        state.push(serde_json::from_str(&answer.body).unwrap());
    }
    state
}

#[tokio::test]
async fn who_is_revoked_before_the_body_is_there_changes_nothing_by_any_call() {
    let server = Server::start(Stage::Secured).await;
    let reserve = with_json(
        "POST",
        "/api/subnets/reserve",
        "",
        &json!({"cidr": "10.42.66.0/24"}),
    );
    assert_eq!(plain(&server).await.ask(&reserve).await.status, 200);
    let calls = TABLE.iter().filter(|entry| entry.method != "GET");
    let calls: Vec<_> = calls
        .flat_map(|entry| {
            senders(entry.rule)
                .iter()
                .map(move |sender| (entry, *sender))
        })
        .collect();
    // While nobody has credentials; each is known by a certificate later.
    let mut nodes = Vec::new();
    for number in 0..calls.len() {
        let register = node(
            &format!("late-{number}"),
            &format!("192.0.2.{}", 100 + number),
        );
        let register = with_json("POST", "/api/nodes/register", "", &register);
        let answer = plain(&server).await.ask(&register).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let registered: Value = serde_json::from_str(&answer.body).unwrap();
        nodes.push(registered["node_id"].as_str().unwrap().to_owned());
    }
    let admin = server.operator("admin", Role::Operate, false);
    let mut asked = BTreeSet::new();
    for ((entry, sender), id) in calls.into_iter().zip(&nodes) {
        let identity = server.node(id, 0);
        let operator_id = format!("late{}", asked.len());
        let operator = server.operator(&operator_id, Role::Operate, false);
        let before = state(&server, &admin).await;
        let (path, json) = (entry.path.replace("{id}", id), body(entry.path));
        let answer = match sender {
            Sender::Node => {
                let mut connection = tls(&server, Some(&identity)).await;
                let rest = begin(&mut connection, &path, "", &json).await;
                server.revoke(id);
                connection.ask(&rest).await
            }
            Sender::Operator => {
                let mut connection = plain(&server).await;
                let rest = begin(&mut connection, &path, &operator, &json).await;
                server.operator(&operator_id, Role::Operate, true);
                connection.ask(&rest).await
            }
        };
        let what = format!(
            "{sender:?}: {} {}: {}",
            entry.method, entry.path, answer.body
        );
        assert_eq!(
            (answer.status, answer.kind().as_str()),
            (401, "unauthorized"),
            "{what}"
        );
        assert_eq!(state(&server, &admin).await, before, "{what}");
        asked.insert(entry.path);
    }
    // Each call that is left out is so for what it needs.
    for entry in TABLE.iter().filter(|entry| entry.method != "GET") {
        let is_left_out = [Rule::Public, Rule::Admin].contains(&entry.rule);
        assert_eq!(asked.contains(entry.path), !is_left_out, "{}", entry.path);
    }
}

#[tokio::test]
async fn an_operator_who_may_only_look_by_the_time_the_body_is_there_changes_nothing() {
    let server = Server::start(Stage::Secured).await;
    let operator = server.operator("ada", Role::Operate, false);
    let admin = server.operator("admin", Role::Operate, false);
    let before = state(&server, &admin).await;
    let mut connection = plain(&server).await;
    let (path, json) = ("/api/subnets/reserve", body("/api/subnets/reserve"));
    let rest = begin(&mut connection, path, &operator, &json).await;
    server.operator("ada", Role::Read, false);
    let answer = connection.ask(&rest).await;
    assert_eq!((answer.status, answer.kind().as_str()), (403, "forbidden"));
    assert_eq!(state(&server, &admin).await, before);
}

#[tokio::test]
async fn a_certificate_that_expires_before_the_body_is_there_changes_nothing() {
    let server = Server::start(Stage::Secured).await;
    let identity = server.node("late", 0);
    let admin = server.operator("admin", Role::Operate, false);
    let before = state(&server, &admin).await;
    let mut connection = tls(&server, Some(&identity)).await;
    let (path, json) = ("/api/nodes/register", body("/api/nodes/register"));
    let rest = begin(&mut connection, path, "", &json).await;
    server.set_clock(8 * 24 * 60 * 60);
    let answer = connection.ask(&rest).await;
    assert_eq!(answer.kind(), "certificate-expired", "{}", answer.body);
    assert_eq!(state(&server, &admin).await, before);
}
