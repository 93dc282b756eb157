//! The same agents plain and over TLS: what idle ones cost, side by side, and how soon all are back when the control plane
//! was killed and starts again, in turns.

mod back;
pub(super) mod companion;
mod idle;
mod table;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use mesh_rest::{admitted::Admitted, node_list::NodesAnswer};

use super::{
    agents::{Agents, count},
    connection::{Answer, Connection, Way},
    joining,
    measure::{LARGE, TIMEOUT},
    server::Server,
};
use back::Back;
use idle::Idle;

/// How often each way is measured.
const ROUNDS: usize = 5;

/// A control plane with nodes that reach it in one way.
struct Cluster {
    name: &'static str,
    server: Server,
    nodes: Vec<(Admitted, Way)>,
    /// Resident bytes before the first node.
    empty: u64,
    /// And with all nodes, and no connection.
    without_agents: u64,
    /// With nothing beside it.
    alone: Option<Idle>,
    idle: Vec<Idle>,
    back: Vec<Back>,
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
            without_agents: 0,
            alone: None,
            idle: Vec::new(),
            back: Vec::new(),
        }
    }

    /// Starts the control plane again, without what was before.
    async fn anew(&mut self) -> anyhow::Result<()> {
        self.server.kill().await?;
        self.server.start_again().await
    }

    fn agents(&self) -> f64 {
        count(self.nodes.len())
    }
}

/// The list of all nodes, which the control plane makes anew after a start.
async fn list_of(nodes: &[(Admitted, Way)]) -> anyhow::Result<Answer> {
    let (_, way) = nodes.first().context("no node")?;
    let mut connection = Connection::open(way.clone()).await?;
    connection.get("/api/nodes").await
}

/// Starts these agents, which begin with the list as it is.
async fn agents_of(nodes: &[(Admitted, Way)]) -> anyhow::Result<Agents> {
    let answer = list_of(nodes).await?;
    let list: NodesAnswer<'_> = answer.json()?;
    let (listed, expected) = (list.nodes.len(), nodes.len());
    ensure!(listed == expected, "{listed} nodes instead of {expected}");
    Ok(Agents::start(nodes, &list, 1))
}

async fn started() -> anyhow::Result<Server> {
    Server::start(None, &[LARGE.as_slice(), &TIMEOUT].concat()).await
}

/// Of some values the one in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures with so many agents, watched for so long in each round, and prints.
pub(crate) async fn run(agents: u32, watched: Duration) -> anyhow::Result<()> {
    eprintln!("{agents} agents register, plain");
    let mut plain = Cluster::plain(agents).await?;
    eprintln!("{agents} agents join, over TLS");
    let mut over_tls = Cluster::over_tls(agents).await?;
    idle::side_by_side(&mut plain, &mut over_tls, watched).await?;
    for _ in 0..ROUNDS {
        plain.come_back().await?;
        over_tls.come_back().await?;
    }
    println!("{}", table::text(&plain, &over_tls));
    plain.server.stop().await?;
    over_tls.server.stop().await
}
