//! Every call of the description, asked by everybody who has no right to it.

use std::collections::BTreeSet;

use mesh_rest::operator::Role;
use mesh_rest::security::Stage;
use serde_json::{Value, json};

use super::client::{Answer, plain, request, tls, with_json};
use super::server::{NodeIdentity, Server};
use crate::answer::node;

/// What everybody may ask. Nothing is added here without a reason that stands in SECURITY.md.
const PUBLIC: &[&str] = &[
    "GET /health",
    "GET /livez",
    "GET /readyz",
    "GET /api/ca",
    "POST /api/join",
];

/// And what the others may, beside that.
const OF_ANOTHER_NODE: &[&str] = &[
    "GET /api/nodes",
    "POST /api/nodes/register",
    "POST /api/renew",
];
const OF_AN_EXPIRED_NODE: &[&str] = &["POST /api/renew"];
const OF_A_READER: &[&str] = &[
    "GET /api/nodes",
    "GET /api/traffic",
    "GET /api/findings",
    "GET /api/subnets",
    "GET /api/checks/{id}",
    "GET /api/openapi.json",
    "GET /api/docs",
];
const OF_AN_OPERATOR: &[&str] = &[
    "POST /api/nodes/{id}/deregister",
    "POST /api/nodes/{id}/revoke",
    "POST /api/subnets/release",
    "POST /api/subnets/release-departed",
    "POST /api/subnets/reserve",
    "POST /api/subnets/unreserve",
    "POST /api/checks",
    "GET /api/tokens",
    "POST /api/tokens",
    "POST /api/tokens/{id}/revoke",
    "GET /api/audit",
];

/// A call as it would be answered 200, or 404 for what is not there.
fn call(method: &str, path: &str, node_id: &str, headers: &str) -> String {
    let body = match path {
        "/api/nodes/register" => Some(node("stranger", "192.0.2.99")),
        "/api/nodes/{id}/leave" => Some(json!({"node_key": "key-of-the-victim-0000000000000000"})),
        "/api/subnets/release" => Some(json!({"subnet": "10.42.1.0/24"})),
        "/api/subnets/reserve" => Some(json!({"cidr": "10.42.77.0/24"})),
        "/api/subnets/unreserve" => Some(json!({"cidr": "10.42.66.0/24"})),
        _ if method == "POST" => Some(json!({})),
        _ => None,
    };
    let path = path.replace("{id}", node_id);
    match body {
        Some(json) => with_json(method, &path, headers, &json),
        None => request(method, &path, headers),
    }
}

fn calls() -> Vec<(String, String)> {
    let document = serde_json::to_value(mesh_control::api::openapi::document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let calls = paths.iter().flat_map(|(path, calls)| {
        let methods = calls.as_object().unwrap().keys();
        methods.map(move |method| (method.to_uppercase(), path.clone()))
    });
    calls.collect()
}

/// Who asks, by what it shows.
enum Stranger<'a> {
    Plain(&'a str),
    Tls(Option<&'a NodeIdentity>, &'a str),
}

async fn ask(server: &Server, stranger: &Stranger<'_>, request: &str) -> Answer {
    match stranger {
        Stranger::Plain(_) => plain(server).await.ask(request).await,
        Stranger::Tls(identity, _) => tls(server, *identity).await.ask(request).await,
    }
}

impl Stranger<'_> {
    fn headers(&self) -> &str {
        match self {
            Self::Plain(headers) | Self::Tls(_, headers) => headers,
        }
    }
}

/// The state that nobody may have changed.
async fn state(server: &Server, admin: &str) -> (Value, Value) {
    let ask = async |path| {
        let answer = plain(server).await.ask(&request("GET", path, admin)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str::<Value>(&answer.body).unwrap()
    };
    (ask("/api/nodes").await, ask("/api/subnets").await)
}

/// A secured cluster with a node and a reservation.
async fn secured() -> (Server, String, String) {
    let server = Server::start(Stage::Secured).await;
    let mut victim = node("victim", "192.0.2.1");
    victim["node_key"] = "key-of-the-victim-0000000000000000".into();
    let registered = plain(&server)
        .await
        .ask(&with_json("POST", "/api/nodes/register", "", &victim))
        .await;
    assert_eq!(registered.status, 200, "{}", registered.body);
    let body: Value = serde_json::from_str(&registered.body).unwrap();
    let id = body["node_id"].as_str().unwrap().to_owned();
    let reserve = json!({"cidr": "10.42.66.0/24"});
    let reserve = with_json("POST", "/api/subnets/reserve", "", &reserve);
    assert_eq!(plain(&server).await.ask(&reserve).await.status, 200);
    server.node(&id, 0);
    let admin = server.operator("admin", Role::Operate, false);
    (server, id, admin)
}

#[tokio::test]
async fn nothing_beyond_the_written_list_is_answered_to_strangers_nor_changes_anything() {
    let (server, victim, admin) = secured().await;
    let other = server.node("other", 0);
    let expired = server.node("expired", -8 * 24 * 60 * 60);
    let long_expired = server.node("long-expired", -60 * 24 * 60 * 60);
    let early = server.node("early", 7200 + 3600);
    let revoked = server.node("revoked", 0);
    server.revoke("revoked");
    let reader = server.operator("reader", Role::Read, false);
    let revoked_operator = server.operator("was", Role::Operate, true);
    let forged = admin.replace("admin", "reader");
    let strangers: [(&str, Stranger<'_>, &[&[&str]]); 12] = [
        ("nobody", Stranger::Plain(""), &[PUBLIC]),
        ("nobody, over TLS", Stranger::Tls(None, ""), &[PUBLIC]),
        (
            "another node",
            Stranger::Tls(Some(&other), ""),
            &[PUBLIC, OF_ANOTHER_NODE],
        ),
        (
            "an expired node",
            Stranger::Tls(Some(&expired), ""),
            &[PUBLIC, OF_AN_EXPIRED_NODE],
        ),
        (
            "a node that expired long ago",
            Stranger::Tls(Some(&long_expired), ""),
            &[PUBLIC],
        ),
        (
            "a node of tomorrow",
            Stranger::Tls(Some(&early), ""),
            // Its renewal, as of one that has expired: it was signed while a clock was ahead.
            &[PUBLIC, OF_AN_EXPIRED_NODE],
        ),
        (
            "a revoked node",
            Stranger::Tls(Some(&revoked), ""),
            &[PUBLIC],
        ),
        ("a reader", Stranger::Plain(&reader), &[PUBLIC, OF_A_READER]),
        (
            "a reader on a node's connection",
            Stranger::Tls(Some(&other), &reader),
            &[PUBLIC, OF_A_READER],
        ),
        (
            "a revoked operator",
            Stranger::Plain(&revoked_operator),
            &[PUBLIC],
        ),
        ("a forged token", Stranger::Plain(&forged), &[PUBLIC]),
        (
            "a token that is none",
            Stranger::Plain("Authorization: Bearer x\r\n"),
            &[PUBLIC],
        ),
    ];
    let before = state(&server, &admin).await;
    let calls = calls();
    assert!(calls.len() >= 16, "{}", calls.len());
    for (who, stranger, lists) in &strangers {
        let allowed: BTreeSet<&str> = lists.iter().flat_map(|list| list.iter().copied()).collect();
        for (method, path) in &calls {
            let name = format!("{method} {path}");
            let is_registration = path == "/api/nodes/register";
            if is_registration && allowed.contains(name.as_str()) {
                // That the node is the certificate's is the handler's to see.
                continue;
            }
            let answer = ask(
                &server,
                stranger,
                &call(method, path, &victim, stranger.headers()),
            )
            .await;
            let is_refused = [401, 403, 429].contains(&answer.status);
            assert_eq!(
                is_refused,
                !allowed.contains(name.as_str()),
                "{who}: {name}: {} {}",
                answer.status,
                answer.body
            );
        }
        // The feed, as the victim.
        let feed = format!("/api/nodes?since=0&node={victim}");
        for feed in [
            feed.clone(),
            format!("{feed}&wait=1"),
            feed.replace("node=", "%6eode="),
        ] {
            let answer = ask(
                &server,
                stranger,
                &request("GET", &feed, stranger.headers()),
            )
            .await;
            assert!(
                [401, 403, 429].contains(&answer.status),
                "{who}: {feed}: {}",
                answer.body
            );
        }
        assert_eq!(state(&server, &admin).await, before, "{who}");
    }
    // Those who may are let in.
    for name in OF_AN_OPERATOR.iter().chain(OF_A_READER) {
        let (method, path) = name.split_once(' ').unwrap();
        let answer = plain(&server)
            .await
            .ask(&call(method, path, &victim, &admin))
            .await;
        assert!(
            ![401, 403, 429].contains(&answer.status),
            "{name}: {}",
            answer.body
        );
    }
}

/// A call that is described has one method, or two; by all others nothing is answered on its path either.
#[tokio::test]
async fn no_other_method_of_any_path_is_answered_to_strangers_nor_changes_anything() {
    let (server, victim, admin) = secured().await;
    let other = server.node("other", 0);
    let expired = server.node("expired", -8 * 24 * 60 * 60);
    let reader = server.operator("reader", Role::Read, false);
    let strangers: [(Stranger<'_>, &[&[&str]]); 4] = [
        (Stranger::Tls(None, ""), &[PUBLIC]),
        (Stranger::Tls(Some(&other), ""), &[PUBLIC, OF_ANOTHER_NODE]),
        (
            Stranger::Tls(Some(&expired), ""),
            &[PUBLIC, OF_AN_EXPIRED_NODE],
        ),
        (Stranger::Plain(&reader), &[PUBLIC, OF_A_READER]),
    ];
    let before = state(&server, &admin).await;
    let described: BTreeSet<_> = calls().into_iter().collect();
    let paths: BTreeSet<&String> = described.iter().map(|(_, path)| path).collect();
    for path in paths {
        let at = path.replace("{id}", &victim);
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            if described.contains(&(method.to_owned(), path.clone())) {
                continue;
            }
            for (stranger, _) in &strangers {
                let request = request(method, &at, stranger.headers());
                let answer = ask(&server, stranger, &request).await;
                let is_refused = (400..500).contains(&answer.status);
                assert!(
                    is_refused,
                    "{method} {path}: {} {}",
                    answer.status, answer.body
                );
            }
        }
        for (stranger, lists) in &strangers {
            let as_get = format!("GET {path}");
            let may_look = lists.iter().any(|list| list.contains(&as_get.as_str()));
            let headers = format!("{}Connection: close\r\n", stranger.headers());
            let head = request("HEAD", &at, &headers);
            let answer = match stranger {
                Stranger::Plain(_) => {
                    let mut connection = plain(&server).await;
                    connection.send(&head).await.unwrap();
                    connection.answer_head().await
                }
                Stranger::Tls(identity, _) => {
                    let mut connection = tls(&server, *identity).await;
                    connection.send(&head).await.unwrap();
                    connection.answer_head().await
                }
            };
            let status = answer.unwrap().status;
            let is_refused = [401, 403, 405, 429].contains(&status);
            assert_eq!(is_refused, !may_look, "HEAD {path}: {status}");
        }
    }
    assert_eq!(state(&server, &admin).await, before);
}

/// Whatever way a path is written, it leads to the call that it was let in for, or to none.
#[tokio::test]
async fn no_notation_of_a_path_and_no_header_leads_around_the_table() {
    let (server, victim, admin) = secured().await;
    let other = server.node("other", 0);
    let before = state(&server, &admin).await;
    let escaped: String = victim.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let upper = escaped.to_uppercase();
    for (method, path) in [
        ("POST", format!("/api/nodes/{escaped}/deregister")),
        ("POST", format!("/api/nodes/{upper}/deregister")),
        ("POST", format!("/api/nodes/{victim}/deregister?x=/health")),
        ("POST", format!("/api/nodes/{victim}%2fderegister")),
        ("POST", format!("/api//nodes/{victim}/deregister")),
        ("POST", format!("//api/nodes/{victim}/deregister")),
        ("POST", format!("/api/nodes/{victim}/deregister/")),
        ("POST", format!("/api/nodes/{victim}//deregister")),
        ("POST", format!("/api/nodes/other/../{victim}/deregister")),
        ("POST", format!("/health/../api/nodes/{victim}/deregister")),
        ("POST", format!("/API/nodes/{victim}/deregister")),
        ("POST", format!("/api/nodes/{victim}/dereg%69ster")),
        ("POST", format!("/api/nodes/{victim};/deregister")),
        (
            "POST",
            format!("http://localhost/api/nodes/{victim}/deregister"),
        ),
        (
            "POST",
            format!("http://localhost:1/api/nodes/{victim}/heartbeat"),
        ),
        ("POST", format!("/api/nodes/{victim}%00/heartbeat")),
        ("POST", format!("/api/nodes/%ff{victim}/heartbeat")),
        ("HEAD", "/api/traffic".to_owned()),
        ("HEAD", "/api/subnets".to_owned()),
        ("OPTIONS", "/api/subnets".to_owned()),
        ("GET", "/api/docs/".to_owned()),
        ("GET", "/api/docs/index.html".to_owned()),
        ("GET", "/api/docs/swagger-ui.css".to_owned()),
        ("GET", format!("/api/nodes/{victim}/deregister")),
        ("PUT", "/api/nodes/register".to_owned()),
    ] {
        for override_header in [
            "",
            "X-HTTP-Method-Override: GET\r\n",
            "X-Original-URL: /health\r\n",
            "X-Rewrite-URL: /health\r\n",
        ] {
            for identity in [None, Some(&other)] {
                let request = request(method, &path, override_header);
                let mut connection = tls(&server, identity).await;
                let answer = match method {
                    "HEAD" => {
                        connection
                            .send(&request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
                            .await
                            .unwrap();
                        // The answer to it has no body.
                        let answer = connection.answer_head().await;
                        answer.unwrap()
                    }
                    _ => connection.ask(&request).await,
                };
                assert!(
                    [400, 401, 403, 429].contains(&answer.status),
                    "{method} {path} {override_header}: {} {}",
                    answer.status,
                    answer.body
                );
            }
        }
    }
    // An operator who may look asks with another method.
    let reader = server.operator("reader", Role::Read, false);
    let headers = format!("{reader}X-HTTP-Method-Override: POST\r\n");
    let answer = plain(&server)
        .await
        .ask(&request("GET", "/api/subnets", &headers))
        .await;
    assert_eq!(answer.status, 200);
    let answer = plain(&server)
        .await
        .ask(&request("POST", "/api/traffic", &reader))
        .await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET,HEAD"))
    );
    assert_eq!(state(&server, &admin).await, before);
}

#[tokio::test]
async fn as_long_as_there_are_no_credentials_this_host_may_what_it_always_could() {
    let server = Server::start(Stage::Secured).await;
    for (method, path) in calls() {
        let is_of_credentials = [
            "/api/tokens",
            "/api/node-credentials",
            "/api/operators",
            "/api/security",
            "/api/audit",
            "/api/ca/",
            "/api/renew",
        ]
        .iter()
        .any(|prefix| path.starts_with(prefix))
            || path.ends_with("/revoke");
        let answer = plain(&server)
            .await
            .ask(&call(&method, &path, "nobody", ""))
            .await;
        let is_refused = [401, 403, 429].contains(&answer.status);
        assert_eq!(
            is_refused, is_of_credentials,
            "{method} {path}: {}",
            answer.body
        );
    }
    server.operator("first", Role::Read, false);
    let answer = plain(&server)
        .await
        .ask(&request("GET", "/api/nodes", ""))
        .await;
    assert_eq!(answer.status, 401, "{}", answer.body);
}
