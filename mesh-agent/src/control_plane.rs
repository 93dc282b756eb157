//! The control plane's REST interface, from the node's side.
//!
//! A cluster may have several replicas of the control plane on one database. They are equal,
//! so each call goes to the one that answered last, and to the next when that fails. The one
//! that answers then is kept: nothing draws the nodes back to the first when it returns.

use std::{sync::Arc, time::Duration};

use backon::BackoffBuilder as _;
use mesh_rest::{heartbeat::Heartbeat, leave::Leave, overlay::Overlay};
use reqwest::{Client, Method, Url, redirect};
use serde::Serialize;
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use crate::{
    excerpt::Excerpt,
    node::{NodesAnswer, RegisterAnswer, RegisterRequest, parse_subnet},
    node_list::Question,
    retry,
    token::TokenKeeper,
};

mod error;
mod replica;

pub use error::ControlPlaneError;
pub use replica::ANSWER_LIMIT;
use replica::{Replica, is_path_segment};

/// How long a heartbeat waits for its turn on the connection before it takes another one, and a
/// question for a heartbeat that is due.
pub(crate) const LINE_PATIENCE: Duration = Duration::from_secs(1);

/// A client of one control plane, which may have several replicas. Clones share it.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bases: Vec<Url>,
    current: watch::Sender<Current>,
    /// Told each time that the first replica could not be reached.
    unreachable: watch::Sender<()>,
    deadline: Duration,
    connect_deadline: Duration,
    token: TokenKeeper,
    /// Whose turn it is on the one connection that is kept.
    line: Mutex<()>,
    /// When a question was last taken for a heartbeat.
    counted: watch::Sender<Option<Instant>>,
}

/// Where calls go, and over which connections.
#[derive(Debug, Clone)]
pub struct Current {
    /// Index of the base that answered last.
    index: usize,
    client: Client,
}

/// A node's lease, as answered to its registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The control plane's name for the node.
    pub node_id: String,
    /// Its subnet.
    pub subnet: ipnet::Ipv4Net,
    /// What all nodes have in common.
    pub overlay: Overlay,
    /// How often to beat, if the control plane told.
    pub heartbeat_interval: Option<Duration>,
}

impl ControlPlane {
    /// Makes a client for the control plane with replicas at `bases`: at least one, plain
    /// http, checked by [`crate::options`]. `deadline` bounds each attempt of a call, body
    /// included; `connect_deadline` the time until the connection stands. `token` is what this
    /// host shows itself by.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new(
        bases: Vec<Url>,
        deadline: Duration,
        connect_deadline: Duration,
        token: TokenKeeper,
    ) -> Result<Self, reqwest::Error> {
        let current = Current {
            index: 0,
            client: client(connect_deadline)?,
        };
        let shared = Shared {
            bases,
            current: watch::Sender::new(current),
            unreachable: watch::Sender::new(()),
            deadline,
            connect_deadline,
            token,
            line: Mutex::default(),
            counted: watch::Sender::new(None),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Changes when calls go to another replica than before, or over new connections.
    #[must_use]
    pub fn moves(&self) -> watch::Receiver<Current> {
        self.shared.current.subscribe()
    }

    /// Changes each time that the first replica could not be reached: its name may lead elsewhere by now.
    #[must_use]
    pub fn unreachable(&self) -> watch::Receiver<()> {
        self.shared.unreachable.subscribe()
    }

    /// Makes further calls on new connections: those that stand use an address that this
    /// host no longer has.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn renew_connections(&self) -> Result<(), reqwest::Error> {
        let client = client(self.shared.connect_deadline)?;
        let current = &self.shared.current;
        current.send_modify(|current| current.client = client);
        Ok(())
    }

    /// Registers the node. Each replica is asked once: how long to repeat it is the caller's
    /// decision.
    ///
    /// # Errors
    /// If every replica fails, or the answer names no usable node id and subnet.
    pub async fn register(&self, node: &RegisterRequest) -> Result<Lease, ControlPlaneError> {
        let register = |replica: Replica| {
            let call = replica.call(Method::POST, &["api", "nodes", "register"]);
            let name = call.name().to_owned();
            let call = call.with(|request| request.json(node));
            let call = call.showing(&self.shared.token);
            async move { lease(name, call.json().await?) }
        };
        self.ask(self.shared.bases.len(), register).await
    }

    /// The nodes of the cluster, or what changed. Asked for news, the control plane waits
    /// for some for `wait`, of at most 60 s; and it knows by it that the node lives that asks.
    ///
    /// # Errors
    /// [`ControlPlaneError::UnknownNode`] if the node has to register again; any other if every
    /// attempt fails, or the answer is none to the question.
    pub async fn nodes(
        &self,
        node_id: &str,
        question: &Question,
        wait: Duration,
    ) -> Result<NodesAnswer, ControlPlaneError> {
        let turn = self.shared.line.lock().await;
        let nodes = |replica: Replica| {
            let path = ["api", "nodes"];
            let call = match question {
                Question::Whole => replica.call(Method::GET, &path),
                Question::News { since, database } => {
                    let (since, seconds) = (since.to_string(), wait.as_secs_f64().to_string());
                    let query = [
                        ("since", since.as_str()),
                        ("wait", &seconds),
                        ("database", database),
                        ("node", node_id),
                    ];
                    replica
                        .asking(Method::GET, &path, &query)
                        .waiting(wait)
                        .showing(&self.shared.token)
                }
            };
            call.json()
        };
        let (asked, before) = (Instant::now(), self.shared.token.token());
        let answer = self.ask(self.attempts(), nodes).await;
        // Who hands out another token has taken the question for a sign of life.
        if answer.is_ok() && self.shared.token.token() != before {
            self.shared.counted.send_replace(Some(asked));
        }
        end(turn).await;
        answer
    }

    /// Whether a question that was asked since then counted as a heartbeat. One that is to be answered by now is waited
    /// for.
    pub async fn counted_since(&self, then: Instant) -> bool {
        let answered = timeout(LINE_PATIENCE, self.shared.line.lock()).await;
        drop(answered);
        self.shared.counted.borrow().is_some_and(|at| at >= then)
    }

    /// Says that the node is alive, and perhaps how its data plane fares.
    ///
    /// # Errors
    /// [`ControlPlaneError::UnknownNode`] if the node has to register again; any other if
    /// every attempt fails.
    pub async fn heartbeat(
        &self,
        node_id: &str,
        report: Option<&Heartbeat>,
    ) -> Result<(), ControlPlaneError> {
        // After the question that is waiting, which is told to be answered by now. One that is not
        // shall not make the node late.
        let turn = timeout(LINE_PATIENCE, self.shared.line.lock()).await;
        let answer = self.post_about(node_id, "heartbeat", report).await;
        if let Ok(turn) = turn {
            end(turn).await;
        }
        answer
    }

    /// Says that the node's agent stops. Repeated until it succeeds or the retries end.
    ///
    /// # Errors
    /// If every attempt fails.
    pub async fn deregister(&self, node_id: &str) -> Result<(), ControlPlaneError> {
        self.post_about(node_id, "deregister", None::<&()>).await
    }

    /// Says that the node leaves for good, which only who has its key may. Repeated until it
    /// succeeds or the retries end.
    ///
    /// # Errors
    /// If every attempt fails.
    pub async fn leave(&self, node_id: &str, node_key: &str) -> Result<(), ControlPlaneError> {
        let body = Leave {
            node_key: node_key.to_owned(),
        };
        self.post_about(node_id, "leave", Some(&body)).await
    }

    async fn post_about(
        &self,
        node_id: &str,
        verb: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(), ControlPlaneError> {
        let post = |replica: Replica| {
            let call = replica.call(Method::POST, &["api", "nodes", node_id, verb]);
            let call = match body {
                Some(body) => call.with(|request| request.json(body)),
                None => call,
            };
            let call = call.showing(&self.shared.token);
            call.about_node()
        };
        self.ask(self.attempts(), post).await
    }

    /// At least every replica once, and one that is alone a few times.
    fn attempts(&self) -> usize {
        self.shared.bases.len().max(1 + retry::RETRIES_PER_ROUND)
    }

    fn replica(&self, index: usize) -> Replica {
        Replica {
            client: self.shared.current.borrow().client.clone(),
            base: self.shared.bases[index % self.shared.bases.len()].clone(),
            deadline: self.shared.deadline,
        }
    }

    /// Asks one replica after another, from the one that answered last. Whoever answers,
    /// be it with a refusal, is asked first from then on.
    async fn ask<T, F>(
        &self,
        attempts: usize,
        call: impl Fn(Replica) -> F,
    ) -> Result<T, ControlPlaneError>
    where
        F: Future<Output = Result<T, ControlPlaneError>>,
    {
        let several = self.shared.bases.len() > 1;
        let mut pauses = retry::times(attempts.saturating_sub(1)).build();
        let first = self.shared.current.borrow().index;
        let mut index = first;
        let mut reason = None;
        loop {
            let result = call(self.replica(index)).await;
            if index == 0 && result.as_ref().is_err_and(ControlPlaneError::is_silence) {
                self.shared.unreachable.send_replace(());
            }
            match result {
                Err(error) if error.is_transient() || several && error.is_of_this_replica() => {
                    let Some(pause) = pauses.next() else {
                        return Err(error);
                    };
                    reason.get_or_insert(error);
                    // Jittered, or all nodes would be at the next replica in one moment.
                    sleep(pause).await;
                    index = (index + 1) % self.shared.bases.len();
                }
                result => {
                    if let Some(reason) = reason {
                        self.move_to(first, index, &reason);
                    }
                    return result;
                }
            }
        }
    }

    fn move_to(&self, from: usize, to: usize, reason: &ControlPlaneError) {
        let moved = self.shared.current.send_if_modified(|current| {
            // Another task may have moved in the meantime: its choice answered as well.
            let moves = current.index == from && from != to;
            if moves {
                current.index = to;
            }
            moves
        });
        if moved {
            warn!(
                from = %self.shared.bases[from], to = %self.shared.bases[to], %reason,
                "control plane replica failed; using the next"
            );
        }
    }
}

/// Ends a turn on the connection when it is back with the client: a call that begins before would be made over another.
async fn end(turn: MutexGuard<'_, ()>) {
    // The tasks that have the connection, and give it back, are ready by now: one wakes the next.
    for _ in 0..8 {
        yield_now().await;
    }
    drop(turn);
}

fn client(connect_deadline: Duration) -> Result<Client, reqwest::Error> {
    // No proxy from the environment and no redirects: a node talks to the control plane it
    // was given, not to whom a variable or an answer names.
    Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(connect_deadline)
        // Questions and heartbeats take turns on it.
        .pool_max_idle_per_host(1)
        .user_agent(concat!("quilt-mesh-agent/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn lease(call: String, answer: RegisterAnswer) -> Result<Lease, ControlPlaneError> {
    if !is_path_segment(&answer.node_id) {
        let reason = format!("node_id {} is no id", Excerpt(&answer.node_id));
        return Err(ControlPlaneError::Malformed { call, reason });
    }
    let overlay = match Overlay::told(answer.vxlan_port, answer.vni) {
        Ok(overlay) => overlay,
        Err(error) => {
            let reason = error.to_string();
            return Err(ControlPlaneError::Malformed { call, reason });
        }
    };
    match parse_subnet(&answer.subnet) {
        Ok(subnet) => Ok(Lease {
            node_id: answer.node_id,
            subnet,
            overlay,
            heartbeat_interval: answer.heartbeat_interval_ms.map(Duration::from_millis),
        }),
        Err(error) => Err(ControlPlaneError::Subnet {
            call,
            text: answer.subnet,
            error,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_base_url_is_kept() {
        for base in ["http://c/mesh", "http://c/mesh/"] {
            let second = Duration::from_secs(1);
            let bases = vec![base.parse().unwrap()];
            let control_plane =
                ControlPlane::new(bases, second, second, TokenKeeper::in_memory()).unwrap();
            let call = control_plane
                .replica(0)
                .call(Method::GET, &["api", "nodes"]);
            assert_eq!(call.name(), "GET http://c/mesh/api/nodes");
        }
    }
}
