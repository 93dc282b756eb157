//! The control plane's REST interface, from the node's side.
//!
//! A cluster may have several replicas of the control plane on one database. They are equal,
//! so each call goes to the one that answered last, and to the next when that fails. The one
//! that answers then is kept: nothing draws the nodes back to the first when it returns.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use mesh_rest::{
    admitted::Admitted,
    client::{CallError, Client, Connections, Tokens as _},
    feed_query::FeedQuery,
    heartbeat::Heartbeat,
    leave::Leave,
    node_list::NodesAnswer,
    overlay::Overlay,
    registration::Registration,
};
use reqwest::Url;
use rustls::ClientConfig;
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    task::yield_now,
    time::{Instant, timeout},
};

use crate::{
    excerpt::Excerpt, heard::Ears, node::parse_subnet, node_list::Question, problems::Problems,
    token::TokenKeeper,
};

mod asking;
mod error;
mod standing;

use asking::connections;
pub use error::ControlPlaneError;
pub use standing::Standing;

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
    token: Arc<TokenKeeper>,
    ears: Arc<Ears>,
    /// How TLS is spoken; nothing: not at all.
    tls: std::sync::Mutex<Option<ClientConfig>>,
    standing: watch::Sender<Standing>,
    /// Told each time that this host's credentials were not taken.
    doubts: watch::Sender<()>,
    /// Told each time that who was there was signed by nobody who is trusted here.
    strangers: watch::Sender<()>,
    /// Whose turn it is on the one connection that is kept.
    line: Mutex<()>,
    /// When a question was last taken for a heartbeat.
    counted: watch::Sender<Option<Instant>>,
    contact: std::sync::Mutex<Contact>,
}

/// What became of the last calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contact {
    /// Whether the last one succeeded.
    pub connected: bool,
    /// When anything was answered last, be it a refusal.
    pub heard: Option<Instant>,
}

/// Where calls go, and over which connections.
#[derive(Debug, Clone)]
pub struct Current {
    /// Index of the base that answered last.
    index: usize,
    connections: Connections,
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
    /// Makes a client for the control plane with replicas at `bases`: at least one, all of http or all of
    /// https, checked by [`crate::options`]. `deadline` bounds each attempt of a call, body
    /// included; `connect_deadline` the time until the connection stands. `token` is what this
    /// host shows itself by, `tls` how it speaks TLS, and `standing` whether it has what it needs for that. What answers say
    /// that is wrong is said there.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new(
        bases: Vec<Url>,
        deadline: Duration,
        connect_deadline: Duration,
        token: TokenKeeper,
        tls: Option<ClientConfig>,
        standing: Standing,
        problems: Problems,
    ) -> Result<Self, reqwest::Error> {
        let current = Current {
            index: 0,
            connections: connections(connect_deadline, tls.clone())?,
        };
        let shared = Shared {
            bases,
            current: watch::Sender::new(current),
            unreachable: watch::Sender::new(()),
            deadline,
            connect_deadline,
            token: Arc::new(token),
            ears: Arc::new(Ears::new(problems)),
            tls: std::sync::Mutex::new(tls),
            standing: watch::Sender::new(standing),
            doubts: watch::Sender::new(()),
            strangers: watch::Sender::new(()),
            line: Mutex::default(),
            counted: watch::Sender::new(None),
            contact: std::sync::Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The base URL of each replica, and which of them is used.
    #[must_use]
    pub fn replicas(&self) -> (&[Url], usize) {
        (&self.shared.bases, self.shared.current.borrow().index)
    }

    /// What became of the last calls.
    #[must_use]
    pub fn contact(&self) -> Contact {
        *self.lock_contact()
    }

    fn lock_contact(&self) -> std::sync::MutexGuard<'_, Contact> {
        // Nobody panics while holding it.
        let contact = self.shared.contact.lock();
        contact.unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when a question that waits is to be given up: calls go to another replica than before, or over new
    /// connections, or the node registers.
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
        let tls = self.shared.tls.lock();
        let tls = tls.unwrap_or_else(PoisonError::into_inner).clone();
        let connections = connections(self.shared.connect_deadline, tls)?;
        let current = &self.shared.current;
        current.send_modify(|current| current.connections = connections);
        Ok(())
    }

    /// Registers the node. Each replica is asked once: how long to repeat it is the caller's
    /// decision.
    ///
    /// # Errors
    /// If every replica fails, or the answer names no usable node id and subnet.
    pub async fn register(&self, node: &Registration) -> Result<Lease, ControlPlaneError> {
        // Nothing else may be under way: its answer would bring another token, and make this one outdated. First it
        // waits for its turn, so that no other question comes before it.
        let turn = timeout(LINE_PATIENCE, self.shared.line.lock());
        let give_way = async { self.shared.current.send_modify(|_| {}) };
        let (turn, ()) = tokio::join!(biased; turn, give_way);
        let ours = &self.node_of_certificate();
        let register = |replica: Client| async move {
            let admitted = replica.register(node).await?;
            of_certificate(&replica, lease(&replica, admitted)?, ours.as_deref())
        };
        let answer = self.ask_as_node(self.shared.bases.len(), register).await;
        if let Ok(turn) = turn {
            end(turn).await;
        }
        answer
    }

    /// The nodes of the cluster, or what changed. Asked for news, the control plane waits
    /// for some for `wait`, of at most 60 s; and it knows by it that the node lives that asks.
    ///
    /// # Errors
    /// [`CallError::UnknownNode`] if the node has to register again; any other if every
    /// attempt fails, or the answer is none to the question.
    pub async fn nodes(
        &self,
        node_id: &str,
        question: &Question,
        wait: Duration,
    ) -> Result<NodesAnswer<'static>, ControlPlaneError> {
        let turn = self.shared.line.lock().await;
        let query = match question {
            Question::Whole => None,
            Question::News { since, database } => Some(FeedQuery {
                since: *since,
                wait,
                database: Some(database.clone()),
                node: Some(node_id.to_owned()),
            }),
        };
        let query = query.as_ref();
        let nodes = |replica: Client| async move { Ok(replica.nodes(query).await?) };
        let (asked, before) = (Instant::now(), self.shared.token.token());
        let answer = self.ask_as_node(self.attempts(), nodes).await;
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
    /// [`CallError::UnknownNode`] if the node has to register again; any other if
    /// every attempt fails.
    pub async fn heartbeat(
        &self,
        node_id: &str,
        report: Option<&Heartbeat>,
    ) -> Result<(), ControlPlaneError> {
        // After the question that is waiting, which is told to be answered by now. One that is not
        // shall not make the node late.
        let turn = timeout(LINE_PATIENCE, self.shared.line.lock()).await;
        let beat = |replica: Client| async move { Ok(replica.heartbeat(node_id, report).await?) };
        let answer = self.ask_as_node(self.attempts(), beat).await;
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
        let deregister = |replica: Client| async move { Ok(replica.deregister(node_id).await?) };
        self.ask_as_node(self.attempts(), deregister).await
    }

    /// Says that the node leaves for good, which only who has its key may. Repeated until it
    /// succeeds or the retries end.
    ///
    /// # Errors
    /// If every attempt fails.
    pub async fn leave(&self, node_id: &str, node_key: &str) -> Result<(), ControlPlaneError> {
        let body = &Leave {
            node_key: node_key.to_owned(),
        };
        let leave = |replica: Client| async move { Ok(replica.leave(node_id, body).await?) };
        self.ask_as_node(self.attempts(), leave).await
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

/// The lease, if it is that of the node whose certificate this host has.
fn of_certificate(
    replica: &Client,
    lease: Lease,
    ours: Option<&str>,
) -> Result<Lease, ControlPlaneError> {
    match ours {
        Some(ours) if ours != lease.node_id => Err(ControlPlaneError::OtherNode {
            call: format!("POST {}", replica.url(&["api", "nodes", "register"])),
            ours: ours.to_owned(),
            answered: lease.node_id,
        }),
        _ => Ok(lease),
    }
}

/// Judges the answer to a registration.
fn lease(replica: &Client, answer: Admitted) -> Result<Lease, ControlPlaneError> {
    let call = || format!("POST {}", replica.url(&["api", "nodes", "register"]));
    let malformed = |reason| CallError::Malformed {
        call: call(),
        reason,
    };
    let node_id = answer.node_id.as_str();
    if !is_path_segment(node_id) {
        return Err(malformed(format!("node_id {} is no id", Excerpt(node_id))).into());
    }
    let overlay = answer
        .overlay()
        .map_err(|error| malformed(error.to_string()))?;
    let heartbeat_interval = answer.heartbeat_interval();
    match parse_subnet(&answer.subnet) {
        Ok(subnet) => Ok(Lease {
            node_id: answer.node_id.into(),
            subnet,
            overlay,
            heartbeat_interval,
        }),
        Err(error) => Err(ControlPlaneError::Subnet {
            call: call(),
            text: answer.subnet,
            error,
        }),
    }
}

/// Whether the id can stand in a URL path as it is: unreserved characters of RFC 3986
/// section 2.3, and not a dot segment.
fn is_path_segment(id: &str) -> bool {
    let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    (1..=128).contains(&id.len()) && id.chars().all(unreserved) && id != "." && id != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_from_the_network_cannot_change_the_path() {
        for id in [
            "7",
            "node-1",
            "550e8400-e29b-41d4-a716-446655440000",
            "a~b_c.d",
        ] {
            assert!(is_path_segment(id), "{id}");
        }
        for id in [
            "", ".", "..", "a/b", "a?b", "a#b", "a%2fb", "a b", "ä", "a\n",
        ] {
            assert!(!is_path_segment(id), "{id}");
        }
        assert!(!is_path_segment(&"x".repeat(129)));
    }
}
