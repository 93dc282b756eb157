//! The real process: a host joins by a token that was made over the admin socket, acts as its node, and is revoked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_credentials::control_plane_check::{ControlPlaneCheck, KnownBy};
use mesh_credentials::join_token::JoinToken;
use mesh_credentials::node_key_pair::NodeKeyPair;
use mesh_credentials::tls;
use mesh_credentials::trust::Trust;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::{Answer, Connection, PATIENCE, request, with_json};
use crate::answer::node;
use crate::process::{ControlPlane, Setup};

pub(super) struct Served {
    pub(super) control_plane: ControlPlane,
    setup: Setup,
}

/// What a host has when it has joined.
pub(super) struct Host {
    pub(super) node_id: String,
    certificate: String,
    pub(super) key: NodeKeyPair,
    trust: Trust,
}

pub(super) fn body(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

impl Served {
    pub(super) fn start() -> Self {
        Self::start_so(Setup::new())
    }

    pub(super) fn start_so(setup: Setup) -> Self {
        Self {
            control_plane: setup.start(),
            setup,
        }
    }

    pub(super) fn admin_socket(&self) -> std::path::PathBuf {
        self.setup.folder().join("admin.sock")
    }

    pub(super) async fn admin(&self, path: &str, json: &Value) -> Answer {
        let stream = UnixStream::connect(self.admin_socket()).await.unwrap();
        let request = with_json("POST", path, "", json);
        Connection::new(stream).ask(&request).await
    }

    pub(super) async fn token(&self) -> JoinToken {
        self.token_for(1).await
    }

    /// For so many hosts.
    pub(super) async fn token_for(&self, uses: u32) -> JoinToken {
        let made = body(&self.admin("/api/tokens", &json!({"uses": uses})).await);
        made["token"].as_str().unwrap().parse().unwrap()
    }

    async fn connect(
        &self,
        known_by: KnownBy,
        host: Option<&Host>,
    ) -> Connection<TlsStream<TcpStream>> {
        self.connect_from("127.0.0.1", known_by, host).await
    }

    /// The same from another address of loopback's.
    pub(super) async fn connect_from(
        &self,
        source: &str,
        known_by: KnownBy,
        host: Option<&Host>,
    ) -> Connection<TlsStream<TcpStream>> {
        let key = host.map(|host| host.key.pem());
        let identity = host
            .map(|host| host.certificate.as_str())
            .zip(key.as_deref());
        let config = tls::client(Arc::new(ControlPlaneCheck::new(known_by)), identity).unwrap();
        let address = self.control_plane.address();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(address.ip().into(), stream);
        Connection::new(timeout(PATIENCE, stream).await.unwrap().unwrap())
    }

    pub(super) async fn join(&self, token: &JoinToken, key: &NodeKeyPair) -> Answer {
        let join = json!({"token": token.to_string(), "request": key.request().unwrap()});
        let mut connection = self.connect(KnownBy::Key(token.authority), None).await;
        connection
            .ask(&with_json("POST", "/api/join", "", &join))
            .await
    }

    pub(super) async fn joined(&self) -> Host {
        let key = NodeKeyPair::make().unwrap();
        let joined = body(&self.join(&self.token().await, &key).await);
        let text = |member: &str| joined[member].as_str().unwrap().to_owned();
        Host {
            node_id: text("node_id"),
            certificate: text("certificate"),
            trust: Trust::from_pem(&text("authorities")).unwrap(),
            key,
        }
    }

    pub(super) async fn as_node(&self, host: &Host) -> Connection<TlsStream<TcpStream>> {
        let trust = KnownBy::Trust(host.trust.clone());
        self.connect(trust, Some(host)).await
    }
}

#[tokio::test]
async fn a_host_joins_by_a_token_acts_as_its_node_alone_and_is_out_when_it_is_revoked() {
    let served = Served::start();
    let (a, b) = (served.joined().await, served.joined().await);
    let mut as_a = served.as_node(&a).await;
    let register = with_json("POST", "/api/nodes/register", "", &node("a", "192.0.2.1"));
    let registered = body(&as_a.ask(&register).await);
    assert_eq!(registered["node_id"], a.node_id);
    let beat = |host: &Host| {
        let path = format!("/api/nodes/{}/heartbeat", host.node_id);
        request("POST", &path, "")
    };
    assert_eq!(as_a.ask(&beat(&a)).await.status, 200);
    let mut as_b = served.as_node(&b).await;
    assert_eq!(as_b.ask(&beat(&a)).await.kind(), "forbidden");
    // Loopback is no credential any more.
    let stream = TcpStream::connect(served.control_plane.address()).await;
    let answer = Connection::new(stream.unwrap()).ask(&beat(&a)).await;
    assert_eq!(answer.kind(), "unauthorized");
    // A renewal, over the same connection.
    let renew = json!({"request": a.key.request().unwrap()});
    let renewed = body(&as_a.ask(&with_json("POST", "/api/renew", "", &renew)).await);
    assert_eq!(renewed["node_id"], a.node_id);
    let question = format!("/api/nodes?since=1000000&wait=60&node={}", a.node_id);
    as_a.send(&request("GET", &question, "")).await.unwrap();
    let revoked = served
        .admin(&format!("/api/nodes/{}/revoke", a.node_id), &json!({}))
        .await;
    assert_eq!(revoked.status, 200, "{}", revoked.body);
    let answer = as_a.answer().await.unwrap();
    // It is far ahead of the list, and may be answered before it waits.
    if answer.status == 200 {
        assert_eq!(as_a.ask(&beat(&a)).await.kind(), "unauthorized");
    } else {
        assert_eq!(answer.kind(), "unauthorized");
    }
    assert!(as_a.is_over().await);
    assert_eq!(
        served.as_node(&a).await.ask(&beat(&a)).await.kind(),
        "unauthorized"
    );
    assert!(served.control_plane.stop().success());
}

#[tokio::test]
async fn what_is_no_export_of_authorities_is_refused_as_such() {
    let served = Served::start();
    let exported = body(&served.admin("/api/ca/export", &json!({})).await);
    let exported = exported["keys"].as_str().unwrap().to_owned();
    let only_key = exported.split_once("-----END CERTIFICATE-----").unwrap().1;
    for wrong in [
        "",
        "a file of something else",
        "-----BEGIN CERTIFICATE-----",
        &exported[..exported.len() / 2],
        only_key,
        &exported.replace("PRIVATE KEY", "CERTIFICATE"),
        &exported.repeat(20),
    ] {
        let answer = served
            .admin("/api/ca/import", &json!({"keys": wrong}))
            .await;
        assert_eq!(answer.kind(), "invalid-fields", "{wrong}: {}", answer.body);
        assert!(answer.body.contains("#/keys"), "{}", answer.body);
    }
    let answer = served
        .admin("/api/ca/import", &json!({"keys": exported}))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn a_flood_of_bad_join_tokens_is_slowed_down_and_a_good_one_passes() {
    let served = Served::start();
    let host = served.joined().await;
    let mut honest = served.as_node(&host).await;
    let register = with_json("POST", "/api/nodes/register", "", &node("a", "192.0.2.1"));
    assert_eq!(honest.ask(&register).await.status, 200);
    let path = format!("/api/nodes/{}/heartbeat", host.node_id);
    let mut bad = served.token().await;
    bad.secret = mesh_credentials::secret::Secret::make().unwrap();
    let key = NodeKeyPair::make().unwrap();
    let mut worst = Duration::ZERO;
    let mut kinds = Vec::new();
    let begun = Instant::now();
    for _ in 0..200 {
        kinds.push(served.join(&bad, &key).await.kind());
        let asked = Instant::now();
        assert_eq!(honest.ask(&request("POST", &path, "")).await.status, 200);
        worst = worst.max(asked.elapsed());
    }
    assert_eq!(kinds[0], "token-refused");
    // Thirty at once, and one every two seconds from then on: how many those are, this machine decides.
    let granted = kinds.iter().filter(|kind| *kind != "slow-down").count();
    let most = 31 + usize::try_from(begun.elapsed().as_secs()).unwrap() / 2;
    assert!(granted <= most, "{granted} of 200, not {most}");
    eprintln!("heartbeats beside 200 bad tokens are answered within {worst:?}");
    // The same source, with what is valid.
    served.joined().await;
    let log = super::slow_down::refusals_logged(&served.control_plane).await;
    let words = log.iter().filter(|line| line.contains("refused")).count();
    assert_eq!(words, 1, "{log:?}");
}
