//! Joins as fast as they come, good ones and bad, from several addresses. How fast that is, `cargo xtask bench control
//! --join-flood` shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mesh_credentials::control_plane_check::KnownBy;
use mesh_credentials::join_token::JoinToken;
use mesh_credentials::node_key_pair::NodeKeyPair;
use mesh_credentials::secret::Secret;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client::{Connection, request, with_json};
use super::joined::{Served, body};
use crate::answer::node;
use crate::process::Setup;

/// Joins of each address.
const EACH: u32 = 500;

/// The addresses.
const SOURCES: u32 = 8;

/// What is tried, in turns, and what it may be answered beside 429.
const KINDS: [(&str, &[u16]); 5] = [
    ("a good token", &[200]),
    ("one host again and again", &[200]),
    ("a token that is used up", &[403]),
    ("a token that there is not", &[403]),
    ("what is none", &[403]),
];

/// What is sent of each kind, but for the first, which needs a key of its own each time.
struct Bad {
    again: String,
    used_up: String,
    unknown: String,
    malformed: String,
}

fn join(token: &str, key: &NodeKeyPair) -> String {
    let join = json!({"token": token, "request": key.request().unwrap()});
    with_json("POST", "/api/join", "", &join)
}

/// The joins of one address, over one connection.
async fn flood(
    mut connection: Connection<TlsStream<TcpStream>>,
    good: JoinToken,
    bad: Arc<Bad>,
    done: Arc<AtomicU32>,
) {
    for number in 0..EACH {
        let kind = number as usize % KINDS.len();
        let request = match kind {
            0 => &join(&good.to_string(), &NodeKeyPair::make().unwrap()),
            1 => &bad.again,
            2 => &bad.used_up,
            3 => &bad.unknown,
            _ => &bad.malformed,
        };
        let answer = connection.ask(request).await;
        let (what, expected) = KINDS[kind];
        let is_expected = expected.contains(&answer.status) || answer.status == 429;
        assert!(is_expected, "{what}: {} {}", answer.status, answer.body);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_joins_takes_no_node_down_and_an_honest_host_joins_beside_it() {
    let setup = Setup::new().with("--node-timeout", "10s");
    let served = Served::start_so(setup);
    let host = served.joined().await;
    let mut honest = served.as_node(&host).await;
    let register = with_json("POST", "/api/nodes/register", "", &node("a", "192.0.2.1"));
    assert_eq!(honest.ask(&register).await.status, 200);
    let before = served.control_plane.resident_bytes();
    let (good, one) = (served.token_for(2000).await, served.token().await);
    let (first, other) = (NodeKeyPair::make().unwrap(), NodeKeyPair::make().unwrap());
    body(&served.join(&one, &first).await);
    let unknown = JoinToken {
        secret: Secret::make().unwrap(),
        ..good.to_string().parse().unwrap()
    };
    let bad = Arc::new(Bad {
        again: join(&one.to_string(), &first),
        used_up: join(&one.to_string(), &other),
        unknown: join(&unknown.to_string(), &other),
        malformed: join(&one.to_string()[..20], &other),
    });
    let done = Arc::<AtomicU32>::default();
    let mut floods = tokio::task::JoinSet::new();
    for number in 0..SOURCES {
        let source = format!("127.0.0.{}", number + 2);
        let by_key = KnownBy::Key(good.authority);
        floods.spawn(flood(
            served.connect_from(&source, by_key, None).await,
            good.to_string().parse().unwrap(),
            Arc::clone(&bad),
            Arc::clone(&done),
        ));
    }
    // The node that is there, and another host that joins in the middle of it.
    let beat = request(
        "POST",
        &format!("/api/nodes/{}/heartbeat", host.node_id),
        "",
    );
    let mut joined_beside = false;
    while done.load(Ordering::Relaxed) < SOURCES * EACH {
        assert_eq!(honest.ask(&beat).await.status, 200);
        let list = body(&honest.ask(&request("GET", "/api/nodes", "")).await);
        assert_eq!(list["nodes"][0]["status"], "up", "{list}");
        if !joined_beside && done.load(Ordering::Relaxed) > SOURCES * EACH / 4 {
            served.joined().await;
            joined_beside = true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        if let Some(ended) = floods.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(joined_beside);
    while let Some(ended) = floods.join_next().await {
        ended.unwrap();
    }
    served.joined().await;
    let grown = served.control_plane.resident_bytes().saturating_sub(before);
    eprintln!("{} joins; {grown} bytes more", SOURCES * EACH);
    assert!(grown < 64 << 20, "{grown} bytes");
    let log = served.control_plane.log();
    assert!(
        !log.iter()
            .any(|line| line.replace("slow-down", "").contains("down")),
        "{log:?}"
    );
    // Said once for each address and minute, and kept as seldom.
    let audit: Value = {
        let stream = tokio::net::UnixStream::connect(served.admin_socket()).await;
        let mut admin = Connection::new(stream.unwrap());
        body(
            &admin
                .ask(&request("GET", "/api/audit?most=10000", ""))
                .await,
        )
    };
    let entries = audit["entries"].as_array().unwrap();
    let refused = entries.iter().filter(|entry| entry["action"] != "join");
    assert!(refused.count() < 100, "{}", entries.len());
}
