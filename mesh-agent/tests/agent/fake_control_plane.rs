//! A control plane that speaks the REST contract, and breaks it on request.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State as Shared},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;

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
    pub(crate) list_answer: Answer,
    pub(crate) register_answer: Answer,
    pub(crate) registrations: Vec<Value>,
    pub(crate) heartbeats: usize,
    pub(crate) deregistered: Vec<String>,
    pub(crate) lists: usize,
    /// Third octet of the subnet that the agent's node gets.
    pub(crate) lease: u8,
    born: usize,
}

pub(crate) struct FakeControlPlane {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: Option<Runtime>,
}

impl FakeControlPlane {
    pub(crate) fn start() -> Self {
        let state = State {
            nodes: Vec::new(),
            list_answer: Answer::Proper,
            register_answer: Answer::Proper,
            registrations: Vec::new(),
            heartbeats: 0,
            deregistered: Vec::new(),
            lists: 0,
            lease: 1,
            born: 0,
        };
        let mut control = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            state: Arc::new(Mutex::new(state)),
            server: None,
        };
        control.resume();
        control
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
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
            .with_state(Arc::clone(&self.state));
        server.spawn(async move { axum::serve(listener, routes).await });
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
    pub(crate) fn set(&self, n: u8, field: &str, value: &str) {
        let id = format!("peer-{n}");
        let mut state = self.state();
        let node = state.nodes.iter_mut().find(|node| node["node_id"] == *id);
        node.unwrap()[field] = json!(value);
    }

    /// Loses the whole database.
    pub(crate) fn wipe(&self) {
        self.state().nodes.clear();
    }

    pub(crate) fn answer_lists(&self, answer: Answer) {
        self.state().list_answer = answer;
    }

    pub(crate) fn registrations(&self) -> usize {
        self.state().registrations.len()
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

type States = Shared<Arc<Mutex<State>>>;

async fn register(Shared(state): States, body: Bytes) -> Response {
    let answer = state.lock().unwrap().register_answer.clone();
    if let Some(response) = improper(answer).await {
        return response;
    }
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut state = state.lock().unwrap();
    state.registrations.push(request.clone());
    let identity = |node: &Value| (node["node_key"].clone(), node["host_ip"].clone());
    let known = state
        .nodes
        .iter_mut()
        .find(|node| identity(node) == identity(&request));
    if let Some(node) = known {
        node["status"] = json!("up");
        return Json(json!({"node_id": node["node_id"], "subnet": node["subnet"]})).into_response();
    }
    state.born += 1;
    let node_id = format!("own-{}", state.born);
    let subnet = format!("10.42.{}.0/24", state.lease);
    let mut node = request;
    node["node_id"] = json!(node_id);
    node["subnet"] = json!(subnet);
    node["status"] = json!("up");
    node["registered_at"] = json!(1_700_000_001);
    state.nodes.push(node);
    Json(json!({"node_id": node_id, "subnet": subnet})).into_response()
}

async fn list(Shared(state): States) -> Response {
    let answer = {
        let mut state = state.lock().unwrap();
        state.lists += 1;
        state.list_answer.clone()
    };
    if let Some(response) = improper(answer).await {
        return response;
    }
    let nodes = state.lock().unwrap().nodes.clone();
    Json(json!({"nodes": nodes, "revision": 7})).into_response()
}

async fn heartbeat(Shared(state): States, Path(id): Path<String>) -> StatusCode {
    let mut state = state.lock().unwrap();
    if state.nodes.iter().any(|node| node["node_id"] == *id) {
        state.heartbeats += 1;
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    }
}

async fn deregister(Shared(state): States, Path(id): Path<String>) -> StatusCode {
    state.lock().unwrap().deregistered.push(id);
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
