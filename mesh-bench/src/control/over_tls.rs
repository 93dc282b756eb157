//! The same agents plain and over TLS, in turns: what an idle one costs, and how soon all are back when the control plane
//! was killed and starts again.

mod table;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use mesh_rest::{admitted::Admitted, node_list::NodesAnswer};
use serde::Serialize;
use tokio::time::sleep;

use super::{
    agents::{Agents, count},
    connection::{Connection, Way},
    joining,
    measure::{LARGE, PATIENCE, TIMEOUT, all_wait},
    server::Server,
};

/// How often each way is measured.
const ROUNDS: usize = 3;

/// A round of heartbeats, so that every buffer has the size it will keep, and what a rush left is given back.
const SETTLES: Duration = Duration::from_secs(12);

/// Between two looks at those that come back.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A control plane with nodes that reach it in one way.
struct Cluster {
    name: &'static str,
    server: Server,
    nodes: Vec<(Admitted, Way)>,
    /// Resident bytes before the first node.
    empty: u64,
    rounds: Vec<Round>,
}

/// What one round showed.
#[derive(Debug, Clone, Serialize)]
struct Round {
    /// Cores while nothing happens but heartbeats and waiting.
    cores: f64,
    /// Resident bytes with all nodes and no connection.
    without_agents: u64,
    /// And with all agents waiting.
    idle: u64,
    /// From the kill until the control plane listens again, in seconds.
    down: f64,
    /// And until the last agent had an answer.
    back: f64,
    /// Processor time from its start until then, in seconds.
    processor: f64,
    /// The most resident meanwhile, in bytes.
    peak: u64,
    /// Requests that failed while nothing happened.
    errors: u64,
    /// Connections and requests that failed until all were back.
    attempts: u64,
}

impl Cluster {
    /// Nodes that need no certificate, as there is none at all.
    async fn plain(agents: u32) -> anyhow::Result<Self> {
        let server = started().await?;
        let empty = server.usage()?.resident;
        let ways = vec![server.address.into(); usize::try_from(agents)?];
        let nodes = joining::register(ways, 0..agents).await?;
        Ok(Self::new("plain", server, nodes, empty))
    }

    /// Nodes that joined by a token.
    async fn over_tls(agents: u32) -> anyhow::Result<Self> {
        let server = started().await?;
        let empty = server.usage()?.resident;
        let began = Instant::now();
        let ways = joining::join_all(&server, agents).await?;
        let seconds = began.elapsed().as_secs_f64();
        eprintln!(
            "they joined in {seconds:.1} s, {:.0} a second",
            f64::from(agents) / seconds
        );
        let began = Instant::now();
        let nodes = joining::register(ways, 0..agents).await?;
        eprintln!("and registered in {:.1} s", began.elapsed().as_secs_f64());
        Ok(Self::new("TLS", server, nodes, empty))
    }

    fn new(name: &'static str, server: Server, nodes: Vec<(Admitted, Way)>, empty: u64) -> Self {
        Self {
            name,
            server,
            nodes,
            empty,
            rounds: Vec::new(),
        }
    }

    async fn round(&mut self, watched: Duration) -> anyhow::Result<()> {
        // Without what the rounds before left.
        self.server.kill().await?;
        self.server.start_again().await?;
        let (_, way) = self.nodes.first().context("no node")?;
        let answer = Connection::open(way.clone())
            .await?
            .get("/api/nodes")
            .await?;
        let list: NodesAnswer<'_> = answer.json()?;
        ensure!(
            list.nodes.len() == self.nodes.len(),
            "{} nodes",
            list.nodes.len()
        );
        let without_agents = self.server.usage()?.resident;
        let agents = Agents::start(&self.nodes, &list, 1);
        all_wait(&agents, self.nodes.len()).await?;
        sleep(SETTLES).await;
        let (before, counts) = (self.server.usage()?, agents.counts());
        sleep(watched).await;
        let (after, later) = (self.server.usage()?, agents.counts());
        let mut round = Round {
            cores: after.cores_since(&before),
            without_agents,
            idle: after.resident,
            down: 0.0,
            back: 0.0,
            processor: 0.0,
            peak: 0,
            errors: later.1 - counts.1,
            attempts: 0,
        };
        self.come_back(&agents, &mut round).await?;
        eprintln!("{}: {round:?}", self.name);
        self.rounds.push(round);
        Ok(())
    }

    async fn come_back(&mut self, agents: &Agents, round: &mut Round) -> anyhow::Result<()> {
        let failures = agents.counts().1;
        let killed = Instant::now();
        self.server.kill().await?;
        agents.lost();
        self.server.start_again().await?;
        round.down = killed.elapsed().as_secs_f64();
        while agents.back() < self.nodes.len() {
            round.peak = self.server.usage()?.resident.max(round.peak);
            if killed.elapsed() > PATIENCE {
                bail!("only {} of {} are back", agents.back(), self.nodes.len());
            }
            sleep(LOOK_INTERVAL).await;
        }
        round.back = killed.elapsed().as_secs_f64();
        round.processor = self.server.usage()?.processor.as_secs_f64();
        round.attempts = agents.counts().1 - failures;
        Ok(())
    }

    /// Of a quantity the median of all rounds.
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Of a quantity the largest of all rounds.
    fn most(&self, of: impl Fn(&Round) -> f64) -> f64 {
        self.rounds.iter().map(of).fold(f64::NAN, f64::max)
    }

    fn agents(&self) -> f64 {
        count(self.nodes.len())
    }
}

async fn started() -> anyhow::Result<Server> {
    Server::start(None, &[LARGE.as_slice(), &TIMEOUT].concat()).await
}

/// Measures with so many agents, watched for so long in each round, and prints.
pub(crate) async fn run(agents: u32, watched: Duration) -> anyhow::Result<()> {
    eprintln!("{agents} agents register, plain");
    let mut plain = Cluster::plain(agents).await?;
    eprintln!("{agents} agents join, over TLS");
    let mut over_tls = Cluster::over_tls(agents).await?;
    for _ in 0..ROUNDS {
        plain.round(watched).await?;
        over_tls.round(watched).await?;
    }
    println!("{}", table::text(&plain, &over_tls));
    plain.server.stop().await?;
    over_tls.server.stop().await
}
