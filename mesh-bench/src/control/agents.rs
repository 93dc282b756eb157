//! Simulated agents: what an agent says to the control plane, and nothing else of one.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use ipnet::Ipv4Net;
use mesh_rest::{
    admitted::Admitted,
    heartbeat::{DataPlane, Heartbeat},
    node_id::NodeId,
    node_list::NodesAnswer,
    registration::Registration,
    timing::pause_after_news,
};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{sleep, sleep_until},
};

use super::connection::{Connection, Way, connect};

/// How long the change feed is asked to wait for news.
const FEED_WAIT: Duration = Duration::from_secs(5);

/// Shorter than this the feed is not asked: the heartbeat goes first.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// Between two heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// Connections that are being opened at a time: more would only wait in the kernel's queue.
const OPENING: usize = 256;

/// What a heartbeat carries: the state of a data plane, as the agent of a quiet node reports it.
static HEARTBEAT: LazyLock<String> = LazyLock::new(|| {
    let data_plane = DataPlane {
        version: "0.1.0".to_owned(),
        fast_path: "active".to_owned(),
        generation: 7,
        ..DataPlane::default()
    };
    text(&Heartbeat {
        data_plane: Some(data_plane),
        ..Heartbeat::default()
    })
});

/// A body as JSON.
#[expect(
    clippy::expect_used,
    reason = "no type of the interface fails to serialise"
)]
pub(crate) fn text(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("serialising to memory")
}

/// The body of host `number`'s registration, which holds a subnet already or not. Its address is of the range for
/// benchmarks, 198.18.0.0/15.
pub(crate) fn registration(number: u32, subnet: Option<Ipv4Net>) -> String {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + number + 1);
    text(&Registration {
        cpu_cores: Some(8),
        ram_mb: Some(32_768),
        node_key: Some(format!("{number:032x}")),
        subnet,
        ..Registration::new(format!("host-{number}.example"), address)
    })
}

/// An agent that has read of a change.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) revision: i64,
    pub(crate) at: Instant,
}

/// Running agents. Dropping it ends them.
pub(crate) struct Agents {
    _tasks: JoinSet<()>,
    shared: Arc<Shared>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

struct Shared {
    /// How many there are.
    nodes: usize,
    connections: u8,
    opening: Semaphore,
    waiting: AtomicUsize,
    heartbeats: AtomicU64,
    errors: AtomicU64,
    /// How often the control plane was started anew.
    restarts: AtomicUsize,
    /// How many were answered by it since the last time.
    back: AtomicUsize,
    seen: mpsc::UnboundedSender<Seen>,
}

impl Agents {
    /// Starts an agent for each of these nodes, which are registered already, and reach the control plane so. They begin at
    /// `list`, as if they had fetched the list one by one before.
    pub(crate) fn start(
        nodes: &[(Admitted, Way)],
        list: &NodesAnswer<'_>,
        connections: u8,
    ) -> Self {
        let database: Arc<str> = (&*list.database).into();
        let (sender, seen) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            nodes: nodes.len(),
            connections,
            opening: Semaphore::new(OPENING),
            waiting: AtomicUsize::new(0),
            heartbeats: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            restarts: AtomicUsize::new(0),
            back: AtomicUsize::new(0),
            seen: sender,
        });
        let mut tasks = JoinSet::new();
        for (number, (node, way)) in nodes.iter().enumerate() {
            // As agents that were started at different times: spread over an interval.
            let first =
                Instant::now() + HEARTBEAT_INTERVAL.mul_f64(count(number) / count(nodes.len()));
            let agent = Agent {
                shared: Arc::clone(&shared),
                way: way.clone(),
                restarts: 0,
                node_id: node.node_id.clone(),
                heartbeat: format!("/api/nodes/{}/heartbeat", node.node_id),
                revision: list.revision,
                database: Arc::clone(&database),
                token: None,
            };
            tasks.spawn(agent.live(first));
        }
        Self {
            _tasks: tasks,
            shared,
            seen,
        }
    }

    /// How many agents have a connection and follow the feed.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Heartbeats that were answered, and requests that failed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.shared.heartbeats.load(Ordering::Relaxed),
            self.shared.errors.load(Ordering::Relaxed),
        )
    }

    /// The control plane is not there any more: [`Self::back`] counts anew.
    pub(crate) fn lost(&self) {
        self.shared.back.store(0, Ordering::SeqCst);
        self.shared.restarts.fetch_add(1, Ordering::SeqCst);
    }

    /// How many agents were answered over connections that they made since.
    pub(crate) fn back(&self) -> usize {
        self.shared.back.load(Ordering::SeqCst)
    }

    /// Forgets what was read so far.
    pub(crate) fn forget_seen(&mut self) {
        while self.seen.try_recv().is_ok() {}
    }

    /// The next agent that reads of a change.
    pub(crate) async fn next_seen(&mut self) -> Option<Seen> {
        self.seen.recv().await
    }
}

struct Agent {
    shared: Arc<Shared>,
    way: Way,
    /// Of how many restarts it has heard.
    restarts: usize,
    node_id: NodeId,
    heartbeat: String,
    revision: i64,
    database: Arc<str>,
    token: Option<String>,
}

impl Agent {
    async fn live(mut self, first_heartbeat: Instant) {
        if self.shared.connections == 1 {
            let mut due = first_heartbeat;
            loop {
                let failed = self.in_turns(&mut due).await;
                self.shared.pause_after(&failed).await;
            }
        }
        let hearts = beat(
            Arc::clone(&self.shared),
            self.way.clone(),
            self.heartbeat.clone(),
            first_heartbeat,
        );
        let feed = async {
            loop {
                let failed = self.follow().await;
                self.shared.pause_after(&failed).await;
            }
        };
        tokio::join!(feed, hearts);
    }

    /// Feed and heartbeats over one connection, until something fails.
    async fn in_turns(&mut self, due: &mut Instant) -> anyhow::Error {
        let restarts = self.shared.restarts.load(Ordering::SeqCst);
        let mut connection = match self.shared.open(&self.way).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        connection.token = self.token.take();
        let _waiting = Waiting::begin(&self.shared);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            let is_news = restarts != self.restarts;
            let outcome = if is_news || left < SHORTEST_WAIT {
                if !is_news {
                    *due += HEARTBEAT_INTERVAL;
                }
                self.shared
                    .heartbeat(&mut connection, &self.heartbeat)
                    .await
            } else {
                let path = self.question(left.min(FEED_WAIT));
                // Which counts as a heartbeat, too.
                let path = format!("{path}&node={}", self.node_id);
                self.ask(&mut connection, &path).await
            };
            if let Err(error) = outcome {
                self.token = connection.token;
                return error;
            }
            if is_news {
                self.restarts = restarts;
                self.shared.back.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// The feed over a connection of its own, until something fails.
    async fn follow(&mut self) -> anyhow::Error {
        let mut connection = match self.shared.open(&self.way).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        let _waiting = Waiting::begin(&self.shared);
        loop {
            let path = self.question(FEED_WAIT);
            if let Err(error) = self.ask(&mut connection, &path).await {
                return error;
            }
        }
    }

    /// What asks for what is newer.
    fn question(&self, wait: Duration) -> String {
        let Self {
            revision, database, ..
        } = self;
        let wait = wait.as_secs_f64();
        format!("/api/nodes?since={revision}&wait={wait:.3}&database={database}")
    }

    /// Asks the feed, once.
    async fn ask(&mut self, connection: &mut Connection, path: &str) -> anyhow::Result<()> {
        let news: NodesAnswer<'_> = connection.get(path).await?.json()?;
        let at = Instant::now();
        if news.revision > self.revision {
            // Nobody listens when the agents are being ended.
            let _ = self.shared.seen.send(Seen {
                revision: news.revision,
                at,
            });
            sleep(rand::random_range(pause_after_news(self.shared.nodes))).await;
        }
        self.revision = news.revision;
        Ok(())
    }
}

/// Heartbeats over a connection of their own.
async fn beat(shared: Arc<Shared>, way: Way, path: String, first: Instant) {
    let mut due = first;
    loop {
        let failed = async {
            let mut connection = shared.open(&way).await?;
            loop {
                sleep_until(due.into()).await;
                due += HEARTBEAT_INTERVAL;
                shared.heartbeat(&mut connection, &path).await?;
            }
        };
        let failed: anyhow::Result<Infallible> = failed.await;
        let Err(error) = failed;
        shared.pause_after(&error).await;
    }
}

impl Shared {
    async fn open(&self, way: &Way) -> anyhow::Result<Connection> {
        let slot = self.opening.acquire().await?;
        let stream = connect(way).await?;
        // The control plane has all their handshakes before it.
        drop(slot);
        Connection::over(stream, way).await
    }

    async fn heartbeat(&self, connection: &mut Connection, path: &str) -> anyhow::Result<()> {
        let answer = connection.post(path, &HEARTBEAT).await?;
        ensure!(
            answer.status == 200,
            "a heartbeat was answered {}",
            answer.status
        );
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn pause_after(&self, error: &anyhow::Error) {
        if self.errors.fetch_add(1, Ordering::Relaxed) == 0 {
            eprintln!("the first failure of an agent: {error:#}");
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// An agent that follows the feed, counted as long as it does.
struct Waiting(Arc<Shared>);

impl Waiting {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A number of agents or bytes, for arithmetic.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn count(things: usize) -> f64 {
    things as f64
}
