//! What stands in the audit: who, from where, what, and in which order.

use std::time::{Duration, Instant};

use mesh_rest::audit::{AuditLine, AuditList};
use reqwest::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, Api};
use crate::joining::{Host, token, told};
use crate::process::Setup;

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

fn listed(setup: &Setup) -> Vec<AuditLine> {
    let text = told(setup, &["audit", "--json", "--most", "1000"]).unwrap();
    serde_json::from_str::<AuditList>(&text).unwrap().entries
}

/// The audit, as soon as this many calls were refused by it.
async fn with_refusals(setup: &Setup, count: usize) -> Vec<AuditLine> {
    let until = Instant::now() + PATIENCE;
    loop {
        let entries = listed(setup);
        let refused = entries.iter().filter(|it| it.action == "refused");
        if refused.count() >= count {
            return entries;
        }
        assert!(Instant::now() < until, "{entries:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn operator(setup: &Setup, name: &str, role: &str) -> String {
    let made = told(setup, &["operator", "create", name, "--role", role]).unwrap();
    made.trim().to_owned()
}

#[tokio::test]
async fn a_refused_call_is_that_of_who_showed_a_valid_credential_and_each_kind_is_an_entry() {
    let setup = Setup::new();
    let control = setup.start();
    let api = Api::of(&control);
    let ada = operator(&setup, "ada", "read");
    let eve = operator(&setup, "eve", "read");
    let host = Host::join(&control, &token(&setup, &[])).await;
    host.register(&control, "alpha", "192.0.2.1").await;
    let ask = async |token: Option<&str>, method: Method, path: &str| {
        let mut request = api.request(method, path).json(&json!({}));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        Answer::to(request).await.status
    };
    // All within the minute in which one source is spoken of.
    assert_eq!(
        ask(Some(&ada), Method::POST, "/api/subnets/release").await,
        403
    );
    assert_eq!(ask(Some(&ada), Method::POST, "/api/tokens").await, 403);
    assert_eq!(ask(Some(&eve), Method::POST, "/api/tokens").await, 403);
    assert_eq!(host.get(&control, "/api/traffic").await.status, 403);
    assert_eq!(ask(None, Method::GET, "/api/subnets").await, 401);
    let entries = with_refusals(&setup, 5).await;
    let refused: Vec<(&str, &str)> = entries
        .iter()
        .rev()
        .filter(|entry| entry.action == "refused")
        .map(|entry| (entry.who.as_str(), entry.subject.as_str()))
        .collect();
    let id = |token: &str| token.split('.').nth(1).unwrap().to_owned();
    let who = [
        format!("operator ada ({})", id(&ada)),
        format!("operator eve ({})", id(&eve)),
        format!("node {}", host.node_id()),
    ];
    let expected = [
        (who[0].as_str(), "POST /api/subnets/release"),
        (who[0].as_str(), "POST /api/tokens"),
        (who[1].as_str(), "POST /api/tokens"),
        (who[2].as_str(), "GET /api/traffic"),
        ("without a certificate", "GET /api/subnets"),
    ];
    assert_eq!(refused, expected);
    // People are told the node's name.
    let shown = told(&setup, &["audit"]).unwrap();
    let named = format!("node alpha ({})", host.node_id());
    assert!(shown.contains(&named), "{shown}");
}

#[tokio::test]
async fn what_happens_in_one_second_is_listed_in_the_order_in_which_it_happened() {
    let setup = Setup::new();
    let control = setup.start();
    let admin = operator(&setup, "ada", "operate");
    let api = Api::of(&control);
    let mut made = Vec::new();
    for _ in 0..20 {
        let request = api.post("/api/tokens").bearer_auth(&admin).json(&json!({}));
        let answer = Answer::to(request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let id = answer.body["id"].as_str().unwrap();
        made.push(format!("token {id} for 1"));
    }
    let entries = listed(&setup);
    let listed: Vec<&str> = entries
        .iter()
        .rev()
        .filter(|entry| entry.action == "create token")
        .map(|entry| entry.subject.as_str())
        .collect();
    assert_eq!(listed, made);
}

#[tokio::test]
async fn a_field_that_a_call_of_credentials_does_not_know_is_refused_with_its_name() {
    let setup = Setup::new();
    let control = setup.start();
    let admin = operator(&setup, "ada", "operate");
    let api = Api::of(&control);
    let before = told(&setup, &["token", "list"]).unwrap();
    let request = api.post("/api/tokens").bearer_auth(&admin);
    let answer = Answer::to(request.json(&json!({"ttl": "48h"}))).await;
    let detail = answer.problem(422, "invalid-fields");
    assert!(detail.contains("`ttl`"), "{detail}");
    assert!(detail.contains("`ttl_seconds`"), "{detail}");
    assert_eq!(told(&setup, &["token", "list"]).unwrap(), before);
    let known: [(&str, Value); 4] = [
        ("/api/operators", json!({"name": "eve", "role": "read"})),
        ("/api/security/stage", json!({"stage": "secured"})),
        ("/api/ca/rotate", json!({"step": "finish"})),
        ("/api/ca/import", json!({"keys": "x"})),
    ];
    for (path, mut body) in known {
        body["colour"] = json!("red");
        let stream = tokio::net::UnixStream::connect(setup.folder().join("admin.sock"));
        let mut socket = crate::access::client::Connection::new(stream.await.unwrap());
        let answer = socket
            .ask(&crate::access::client::with_json("POST", path, "", &body))
            .await;
        assert_eq!(answer.status, 422, "{path}: {}", answer.body);
        assert!(answer.body.contains("`colour`"), "{path}: {}", answer.body);
    }
}
