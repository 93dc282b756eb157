//! The measurements.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use mesh_rest::{admitted::Admitted, node_list::NodesAnswer};
use mesh_testbed::Postgres;
use serde::Serialize;
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    Setting,
    agents::{Agents, count, registration},
    connection::{Answer, Connection},
    server::{Server, Store},
};
use crate::figure::milliseconds;

/// Room for 65,535 subnets of the usual size.
pub(super) const LARGE: [&str; 4] = ["--cluster-cidr", "10.0.0.0/8", "--node-prefix", "24"];

/// Nodes that exist on paper only send no heartbeats, and shall stay up for as long as a run takes.
pub(super) const TIMEOUT: [&str; 2] = ["--node-timeout", "10m"];

/// Longest wait for what the agents do: only a run that fails takes it.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// Connections that are being opened at a time, so that the kernel's queue of 4096 suffices.
pub(super) const OPENING: usize = 512;

/// Everything that was measured on one store.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) store: Store,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) exhaustion: Exhaustion,
}

/// What was measured with one number of agents.
#[derive(Debug, Serialize)]
pub(crate) struct Cluster {
    pub(crate) agents: usize,
    pub(crate) storm: Storm,
    pub(crate) list: WholeList,
    pub(crate) idle: Idle,
    pub(crate) join: Join,
}

/// All agents register at once, each over a connection of its own.
#[derive(Debug, Serialize)]
pub(crate) struct Storm {
    pub(crate) seconds: f64,
    /// Registrations that were not answered 200.
    pub(crate) errors: usize,
    pub(crate) processor_seconds: f64,
    /// When the last has its answer.
    pub(crate) resident_bytes: u64,
}

/// `GET /api/nodes`.
#[derive(Debug, Serialize)]
pub(crate) struct WholeList {
    pub(crate) bytes: usize,
    pub(crate) milliseconds: f64,
}

/// Nothing happens but heartbeats and waiting for news.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) cores: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) proportional_bytes: u64,
    /// Before the first agent.
    pub(crate) resident_bytes_empty: u64,
    pub(crate) heartbeats: u64,
    /// Requests of agents that failed.
    pub(crate) errors: u64,
}

/// Nodes join one after the other; from the answer of each registration to each agent's reading of it.
#[derive(Debug, Serialize)]
pub(crate) struct Join {
    pub(crate) samples: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) processor_ms_per_join: f64,
}

/// 300 hosts register at once where there are 255 subnets.
#[derive(Debug, Serialize)]
pub(crate) struct Exhaustion {
    pub(crate) distinct_subnets: usize,
    pub(crate) admitted: usize,
    pub(crate) refused_503: usize,
    pub(crate) other: usize,
}

impl Cluster {
    /// Processor time that one agent costs, in microseconds per second.
    pub(crate) fn processor_us_per_agent(&self) -> f64 {
        self.idle.cores * 1e6 / count(self.agents)
    }

    /// Resident memory that one agent costs, in bytes.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn bytes_per_agent(&self) -> f64 {
        let grown = self
            .idle
            .resident_bytes
            .saturating_sub(self.idle.resident_bytes_empty);
        grown as f64 / count(self.agents)
    }
}

/// One cluster from its first registration on.
pub(crate) async fn cluster(
    postgres: Option<&Postgres>,
    agents: usize,
    setting: &Setting,
) -> anyhow::Result<Cluster> {
    let server = Server::start(postgres, &[LARGE.as_slice(), &TIMEOUT].concat()).await?;
    let empty = server.usage()?;
    let hosts = u32::try_from(agents)?;

    let started = Instant::now();
    let (mut nodes, failures) = admitted(register_all(server.address, 0..hosts).await?)?;
    let seconds = started.elapsed().as_secs_f64();
    let registered = server.usage()?;
    let storm = Storm {
        seconds,
        errors: failures.len(),
        processor_seconds: (registered.processor - empty.processor).as_secs_f64(),
        resident_bytes: registered.resident,
    };
    if let Some(failure) = failures.first() {
        eprintln!(
            "{} of {agents} registrations failed, the first: {failure}",
            failures.len()
        );
    }
    if nodes.len() < agents {
        nodes = register_in_turn(server.address, hosts).await?;
    }

    let mut connection = Connection::open(server.address).await?;
    let asked = Instant::now();
    let answer = connection.get("/api/nodes").await?;
    let list = WholeList {
        bytes: answer.body.len(),
        milliseconds: milliseconds(asked.elapsed()),
    };
    let all: NodesAnswer<'_> = answer.json()?;

    let nodes: Vec<_> = nodes
        .into_iter()
        .map(|node| (node, server.address.into()))
        .collect();
    let mut agents_waiting = Agents::start(&nodes, &all, setting.connections);
    all_wait(&agents_waiting, nodes.len()).await?;
    // A round of heartbeats, so that every buffer has the size it will keep.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let idle = idle(&server, &agents_waiting, setting.idle(), empty.resident).await?;
    let join = join(
        &server,
        &mut agents_waiting,
        nodes.len(),
        hosts,
        setting.joins,
    )
    .await?;
    drop(agents_waiting);
    server.stop().await?;
    Ok(Cluster {
        agents,
        storm,
        list,
        idle,
        join,
    })
}

/// Waits until all follow the feed.
pub(super) async fn all_wait(agents: &Agents, expected: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    while agents.waiting() < expected {
        if started.elapsed() > PATIENCE {
            bail!(
                "only {} of {expected} agents have a connection",
                agents.waiting()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn idle(
    server: &Server,
    agents: &Agents,
    watched: Duration,
    empty: u64,
) -> anyhow::Result<Idle> {
    let (before, counts) = (server.usage()?, agents.counts());
    tokio::time::sleep(watched).await;
    let (after, later) = (server.usage()?, agents.counts());
    Ok(Idle {
        cores: after.cores_since(&before),
        resident_bytes: after.resident,
        proportional_bytes: after.proportional,
        resident_bytes_empty: empty,
        heartbeats: later.0 - counts.0,
        errors: later.1,
    })
}

async fn join(
    server: &Server,
    agents: &mut Agents,
    waiting: usize,
    first_host: u32,
    joins: u16,
) -> anyhow::Result<Join> {
    let mut connection = Connection::open(server.address).await?;
    let mut delays = Vec::with_capacity(waiting * usize::from(joins));
    let mut processor = Duration::ZERO;
    for number in 0..u32::from(joins) {
        agents.forget_seen();
        let before = server.usage()?;
        let answer = connection
            .post(
                "/api/nodes/register",
                &registration(first_host + number, None),
            )
            .await?;
        let answered = Instant::now();
        let _: Admitted = answer.json()?;
        let mut revision = None;
        let mut readers = 0;
        while readers < waiting {
            let seen = timeout(PATIENCE, agents.next_seen())
                .await
                .with_context(|| format!("only {readers} of {waiting} agents heard of a join"))?
                .context("the agents ended")?;
            // The revision of the join is the first newer one that anybody reads.
            if seen.revision >= *revision.get_or_insert(seen.revision) {
                readers += 1;
                delays.push(milliseconds(seen.at.saturating_duration_since(answered)));
            }
        }
        processor += server.usage()?.processor - before.processor;
        // Everybody waits again before the next.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    delays.sort_by(f64::total_cmp);
    let at = |per_cent: usize| {
        delays[(delays.len() * per_cent)
            .div_ceil(100)
            .clamp(1, delays.len())
            - 1]
    };
    Ok(Join {
        samples: delays.len(),
        p50_ms: at(50),
        p99_ms: at(99),
        max_ms: at(100),
        processor_ms_per_join: milliseconds(processor) / f64::from(joins),
    })
}

/// Every subnet of the default CIDR is asked for at the same time, and 45 more.
pub(crate) async fn exhaustion(postgres: Option<&Postgres>) -> anyhow::Result<Exhaustion> {
    let server = Server::start(postgres, &TIMEOUT).await?;
    let answers = register_all(server.address, 0..300).await?;
    server.stop().await?;
    let refused_503 = answers.iter().filter(|answer| answer.status == 503).count();
    let (nodes, failures) = admitted(answers)?;
    let subnets: BTreeSet<&str> = nodes.iter().map(|node| node.subnet.as_str()).collect();
    Ok(Exhaustion {
        distinct_subnets: subnets.len(),
        admitted: nodes.len(),
        refused_503,
        other: failures.len() - refused_503,
    })
}

/// Registers these hosts at once, each over a connection of its own, and once.
pub(super) async fn register_all(
    address: SocketAddr,
    hosts: std::ops::Range<u32>,
) -> anyhow::Result<Vec<Answer>> {
    let opening = Arc::new(Semaphore::new(OPENING));
    let mut registrations = JoinSet::new();
    for number in hosts {
        let opening = Arc::clone(&opening);
        registrations.spawn(async move {
            let slot = opening.acquire_owned().await?;
            let mut connection = Connection::open(address).await?;
            drop(slot);
            connection
                .post("/api/nodes/register", &registration(number, None))
                .await
        });
    }
    registrations.join_all().await.into_iter().collect()
}

/// Registers these hosts one after the other, those that are registered already as well: for when
/// not all of them succeeded at once.
pub(super) async fn register_in_turn(
    address: SocketAddr,
    hosts: u32,
) -> anyhow::Result<Vec<Admitted>> {
    let mut connection = Connection::open(address).await?;
    let mut nodes = Vec::new();
    for number in 0..hosts {
        let answer = connection
            .post("/api/nodes/register", &registration(number, None))
            .await?;
        nodes.push(answer.json()?);
    }
    Ok(nodes)
}

/// Who was admitted, and what the others were told.
pub(super) fn admitted(answers: Vec<Answer>) -> anyhow::Result<(Vec<Admitted>, Vec<String>)> {
    let (mut nodes, mut failures) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer.status {
            200 => nodes.push(answer.json()?),
            status => failures.push(format!(
                "{status} {}",
                String::from_utf8_lossy(&answer.body)
            )),
        }
    }
    Ok((nodes, failures))
}
