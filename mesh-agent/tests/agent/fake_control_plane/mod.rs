//! A control plane that speaks the REST contract, and breaks it on request.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, Request, State as Shared},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use mesh_rest::{
    check::CHECK_HEADER, join::INSECURE_HEADER, problem::ProblemDocument, problem_kind::Kind,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

mod feed;
pub(crate) mod mesh;

use feed::Feed;
use mesh::{Mesh, NodeOfCertificate, Peer, SharedMesh, TlsListener};

/// How `GET /api/nodes` (or a registration) is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Proper,
    Body(String),
    Status(u16),
    Problem(u16, &'static str),
    Redirect(String),
    /// One byte of JSON white space at a time, for ever.
    Drip,
    Hang,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) nodes: Vec<Value>,
    pub(crate) feed: Feed,
    pub(crate) list_answer: Answer,
    pub(crate) register_answer: Answer,
    pub(crate) registrations: Vec<Value>,
    pub(crate) heartbeats: usize,
    /// What the last heartbeat carried.
    pub(crate) carried: Option<Value>,
    /// What the last one that carried something did.
    pub(crate) told: Value,
    /// What was told of checks.
    pub(crate) checks: Vec<Value>,
    /// The status that refuses heartbeats which carry something.
    pub(crate) refuse_carried: Option<u16>,
    /// What it says to the heartbeats of a host that is held off as a copy.
    pub(crate) held_off: Option<&'static str>,
    pub(crate) deregistered: Vec<String>,
    /// Ids of nodes that left, each with the key it gave.
    pub(crate) left: Vec<(String, String)>,
    pub(crate) lists: usize,
    /// The number of the token that it answered a node's question with last, by which that counted as a heartbeat. `None`:
    /// it does not hand out any.
    pub(crate) tokens: Option<u64>,
    /// UDP port and VNI that it tells; `None` is a control plane from before there were any.
    pub(crate) overlay: Option<(u16, u32)>,
    /// Third octet of the subnet that the agent's node gets.
    pub(crate) lease: u8,
    born: usize,
}

impl State {
    /// The header with the next token, for a question that a node asks.
    fn next_token(
        &mut self,
        query: &BTreeMap<String, String>,
    ) -> Option<[(&'static str, String); 1]> {
        let number = self
            .tokens
            .as_mut()
            .filter(|_| query.contains_key("node"))?;
        *number += 1;
        Some([(
            mesh_rest::heartbeat_token::HEADER,
            format!("{number}.{number:016x}"),
        )])
    }

    fn node(&mut self, n: u8) -> &mut Value {
        let id = format!("peer-{n}");
        let node = self.nodes.iter_mut().find(|node| node["node_id"] == *id);
        node.unwrap()
    }
}

/// What one replica is.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    /// Calls it got.
    pub(crate) calls: usize,
    /// The revision that it does not get beyond.
    pub(crate) stuck_at: Option<i64>,
    /// Why it says that it lets everybody in.
    pub(crate) insecure: Option<&'static str>,
    /// The check that it names.
    pub(crate) check: Option<String>,
    /// Whether it answers everything with 503.
    pub(crate) broken: bool,
}

pub(crate) struct FakeControlPlane {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    replica: Arc<Mutex<Replica>>,
    /// It speaks TLS, and lets hosts join.
    mesh: Option<SharedMesh>,
    server: Option<Runtime>,
}

impl FakeControlPlane {
    pub(crate) fn start() -> Self {
        Self::at(Ipv4Addr::LOCALHOST)
    }

    /// One that speaks TLS, and lets hosts join.
    pub(crate) fn with_authority() -> Self {
        Self::serving(
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            Arc::new(Mutex::new(Self::fresh())),
            Some(mesh::mesh()),
        )
    }

    /// One that listens at an address of this host.
    pub(crate) fn at(address: Ipv4Addr) -> Self {
        let state = Arc::new(Mutex::new(Self::fresh()));
        Self::serving(SocketAddr::from((address, 0)), state, None)
    }

    fn fresh() -> State {
        State {
            nodes: Vec::new(),
            feed: Feed::new(),
            list_answer: Answer::Proper,
            register_answer: Answer::Proper,
            registrations: Vec::new(),
            heartbeats: 0,
            carried: None,
            told: Value::Null,
            checks: Vec::new(),
            refuse_carried: None,
            held_off: None,
            deregistered: Vec::new(),
            left: Vec::new(),
            lists: 0,
            tokens: None,
            overlay: Some((4789, 100)),
            lease: 1,
            born: 0,
        }
    }

    /// Another replica on the same database.
    pub(crate) fn replica(&self) -> Self {
        self.replica_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    pub(crate) fn replica_at(&self, address: SocketAddr) -> Self {
        Self::serving(address, Arc::clone(&self.state), self.mesh.clone())
    }

    fn serving(address: SocketAddr, state: Arc<Mutex<State>>, mesh: Option<SharedMesh>) -> Self {
        let mut control = Self {
            address,
            state,
            replica: Arc::default(),
            mesh,
            server: None,
        };
        control.resume();
        control
    }

    /// One that knows no change feed.
    pub(crate) fn without_feed() -> Self {
        let control = Self::start();
        control.state().feed.served = false;
        control
    }

    pub(crate) fn this_replica(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.mesh.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    pub(crate) fn mesh(&self) -> MutexGuard<'_, Mesh> {
        self.mesh.as_ref().unwrap().lock().unwrap()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Ends the server and every connection to it.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Serves, on the same port as before.
    pub(crate) fn resume(&mut self) {
        let server = server();
        let listener = server.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/api/nodes/register", post(register))
            .route("/api/nodes", get(list))
            .route("/api/nodes/{id}/heartbeat", post(heartbeat))
            .route("/api/nodes/{id}/deregister", post(deregister))
            .route("/api/nodes/{id}/leave", post(leave))
            .layer(axum::middleware::from_fn_with_state(
                Arc::clone(&self.replica),
                called,
            ))
            .with_state((Arc::clone(&self.state), Arc::clone(&self.replica)));
        match self.mesh.clone() {
            None => drop(server.spawn(async move { axum::serve(listener, routes).await })),
            Some(mesh) => {
                let routes = mesh::guarded(routes, &mesh);
                let routes = routes.into_make_service_with_connect_info::<Peer>();
                server.spawn(
                    async move { axum::serve(TlsListener::new(listener, mesh), routes).await },
                );
            }
        }
        self.server = Some(server);
    }

    /// Adds node `n` with subnet 10.42.n.0/24 and address 192.0.2.n.
    pub(crate) fn add_peer(&self, n: u8) {
        self.state().nodes.push(json!({
            "node_id": format!("peer-{n}"), "hostname": format!("node{n}"),
            "host_ip": format!("192.0.2.{n}"), "subnet": format!("10.42.{n}.0/24"),
            "cpu_cores": 2, "ram_mb": 1024, "status": "up",
            "registered_at": 1_700_000_000, "last_heartbeat": 1_700_000_000,
        }));
    }

    /// Changes one field of node `n`.
    pub(crate) fn set(&self, n: u8, field: &str, value: impl Into<Value>) {
        self.change(n, |node| node[field] = value.into());
    }

    fn change(&self, n: u8, change: impl FnOnce(&mut Value)) {
        change(self.state().node(n));
    }

    /// The agent of node `n` is stopped.
    pub(crate) fn stop_agent(&self, n: u8) {
        self.change(n, |node| {
            node["status"] = json!("down");
            node["deregistered"] = json!(true);
        });
    }

    /// Node `n` leaves for good.
    pub(crate) fn leave(&self, n: u8) {
        self.stop_agent(n);
        self.change(n, |node| node["left"] = json!(true));
    }

    /// Node `n` registers again.
    pub(crate) fn come_back(&self, n: u8) {
        self.change(n, |node| {
            node["status"] = json!("up");
            node["deregistered"] = json!(false);
            node["left"] = json!(false);
        });
    }

    /// An operator takes node `n` out of the cluster.
    pub(crate) fn forget(&self, n: u8) {
        let id = format!("peer-{n}");
        self.state().nodes.retain(|node| node["node_id"] != *id);
    }

    /// Goes back to an older revision of the same database.
    pub(crate) fn restore(&self, revision: i64) {
        let mut state = self.state();
        state.nodes = state.feed.restore(revision);
    }

    /// Goes back to an older revision of the same database, and from there another way, of which nobody sees the
    /// beginning.
    pub(crate) fn restore_and_set(
        &self,
        revision: i64,
        n: u8,
        field: &str,
        value: impl Into<Value>,
    ) {
        let mut state = self.state();
        state.nodes = state.feed.restore(revision);
        state.node(n)[field] = value.into();
    }

    /// Loses the whole database.
    pub(crate) fn wipe(&self) {
        let mut state = self.state();
        state.nodes.clear();
        let (served, etags) = (state.feed.served, state.feed.etags);
        state.feed = Feed::new();
        (state.feed.served, state.feed.etags) = (served, etags);
    }

    pub(crate) fn answer_lists(&self, answer: Answer) {
        self.state().list_answer = answer;
    }

    pub(crate) fn registrations(&self) -> usize {
        self.state().registrations.len()
    }

    pub(crate) fn whole_lists(&self) -> usize {
        self.state().feed.whole_lists
    }

    pub(crate) fn heartbeats(&self) -> usize {
        self.state().heartbeats
    }

    pub(crate) fn lists(&self) -> usize {
        self.state().lists
    }
}

impl Drop for FakeControlPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A runtime for one server, so that ending it ends every connection too.
pub(crate) fn server() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

type States = Shared<(Arc<Mutex<State>>, Arc<Mutex<Replica>>)>;

async fn called(
    Shared(replica): Shared<Arc<Mutex<Replica>>>,
    request: Request,
    next: Next,
) -> Response {
    let broken = {
        let mut replica = replica.lock().unwrap();
        replica.calls += 1;
        replica.broken
    };
    let mut response = match broken {
        true => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        false => next.run(request).await,
    };
    if let Some(id) = &replica.lock().unwrap().check {
        let id = header::HeaderValue::from_str(id).unwrap();
        response.headers_mut().insert(CHECK_HEADER, id);
    }
    if let Some(why) = replica.lock().unwrap().insecure {
        let why = header::HeaderValue::from_static(why);
        response.headers_mut().insert(INSECURE_HEADER, why);
    }
    response
}

fn with_overlay(mut answer: Value, overlay: Option<(u16, u32)>) -> Value {
    if let Some((vxlan_port, vni)) = overlay {
        answer["vxlan_port"] = json!(vxlan_port);
        answer["vni"] = json!(vni);
    }
    answer
}

async fn register(
    Shared((state, _)): States,
    certificate: Option<Extension<NodeOfCertificate>>,
    body: Bytes,
) -> Response {
    let answer = state.lock().unwrap().register_answer.clone();
    if let Some(response) = improper(answer).await {
        return response;
    }
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut state = state.lock().unwrap();
    state.registrations.push(request.clone());
    let identity = |node: &Value| match &node["node_key"] {
        Value::Null => node["host_ip"].clone(),
        key => key.clone(),
    };
    let known = state
        .nodes
        .iter_mut()
        .find(|node| identity(node) == identity(&request));
    if let Some(node) = known {
        node["status"] = json!("up");
        node["host_ip"] = request["host_ip"].clone();
        node["overlay_mtu"] = request["overlay_mtu"].clone();
        let answer = json!({"node_id": node["node_id"], "subnet": node["subnet"]});
        return Json(with_overlay(answer, state.overlay)).into_response();
    }
    state.born += 1;
    let born = json!(format!("own-{}", state.born));
    let node_id = mesh::node_of(certificate).unwrap_or(born);
    let subnet = format!("10.42.{}.0/24", state.lease);
    let mut node = request;
    node["node_id"] = json!(node_id);
    node["subnet"] = json!(subnet);
    node["status"] = json!("up");
    node["registered_at"] = json!(1_700_000_001);
    state.nodes.push(node);
    let answer = json!({"node_id": node_id, "subnet": subnet});
    Json(with_overlay(answer, state.overlay)).into_response()
}

async fn list(
    Shared((state, replica)): States,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let answer = {
        let mut state = state.lock().unwrap();
        state.lists += 1;
        state.list_answer.clone()
    };
    if let Some(response) = improper(answer).await {
        return response;
    }
    let wait = query.get("wait").map_or(0.0, |wait| wait.parse().unwrap());
    let waits = state.lock().unwrap().feed.waits;
    let wait = if waits { wait } else { 0.0 };
    let end = Instant::now() + Duration::from_secs_f64(wait);
    loop {
        let answer = {
            let mut state = state.lock().unwrap();
            let nodes = state.nodes.clone();
            let stuck_at = replica.lock().unwrap().stuck_at;
            state.feed.answer(nodes, &query, stuck_at)
        };
        if let Some(answer) = answer {
            let mut state = state.lock().unwrap();
            let answer = Json(with_overlay(answer, state.overlay));
            return (state.next_token(&query), answer).into_response();
        }
        if Instant::now() >= end {
            let mut state = state.lock().unwrap();
            let nodes = state.nodes.clone();
            let answer = state.feed.nothing_new(nodes);
            let answer = Json(with_overlay(answer, state.overlay));
            return (state.next_token(&query), answer).into_response();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn heartbeat(Shared((state, _)): States, Path(id): Path<String>, body: Bytes) -> Response {
    if let Some(detail) = state.lock().unwrap().held_off {
        let problem = ProblemDocument::new(Kind::Copy, detail);
        return (StatusCode::CONFLICT, Json(problem)).into_response();
    }
    beat(&state, &id, &body).into_response()
}

fn beat(state: &Mutex<State>, id: &str, body: &[u8]) -> StatusCode {
    let mut state = state.lock().unwrap();
    if let (Some(status), false) = (state.refuse_carried, body.is_empty()) {
        return StatusCode::from_u16(status).unwrap();
    }
    if state.nodes.iter().any(|node| node["node_id"] == *id) {
        state.heartbeats += 1;
        state.carried = serde_json::from_slice(body).ok();
        if let Some(carried) = &state.carried {
            let carried = carried.clone();
            if !carried["check"].is_null() {
                state.checks.push(carried["check"].clone());
            }
            state.told = carried;
        }
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    }
}

async fn deregister(Shared((state, _)): States, Path(id): Path<String>) -> StatusCode {
    state.lock().unwrap().deregistered.push(id);
    StatusCode::OK
}

async fn leave(
    Shared((state, _)): States,
    Path(id): Path<String>,
    Json(body): Json<Value>,
) -> StatusCode {
    let key = body["node_key"].as_str().unwrap().to_owned();
    state.lock().unwrap().left.push((id, key));
    StatusCode::OK
}

async fn improper(answer: Answer) -> Option<Response> {
    let json = [(header::CONTENT_TYPE, "application/json")];
    let status = |code| StatusCode::from_u16(code).unwrap();
    match answer {
        Answer::Proper => None,
        Answer::Body(body) => Some((json, body).into_response()),
        Answer::Status(code) => Some(status(code).into_response()),
        Answer::Problem(code, detail) => {
            let problem = json!({"type": "about:blank", "title": "Refused", "detail": detail});
            Some((status(code), Json(problem)).into_response())
        }
        Answer::Redirect(to) => {
            Some((StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response())
        }
        Answer::Drip => {
            let (drops, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
            tokio::spawn(async move {
                while drops.send(Ok(Bytes::from_static(b" "))).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
            Some((json, Body::from_stream(ReceiverStream::new(body))).into_response())
        }
        Answer::Hang => std::future::pending().await,
    }
}
