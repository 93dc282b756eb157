//! Plain agents in a process of their own, beside those of this one.

use std::{
    env,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use mesh_rest::admitted::Admitted;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use super::{agents_of, idle::Activity};
use crate::control::{
    connection::Way,
    measure::{PATIENCE, all_wait},
    server::ends_with_us,
};

/// What it says when all its agents wait.
const WAITING: &str = "waiting";

/// How long it may take to count and end.
const ENDS: Duration = Duration::from_secs(10);

/// What the process is told, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    address: SocketAddr,
    /// Each with its host's address.
    nodes: Vec<(Ipv4Addr, Admitted)>,
}

/// The process. Dropping it ends it.
pub(super) struct Companion {
    child: Child,
    /// It ends when this is closed.
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Companion {
    /// Starts it with an agent for each of these nodes, and waits until all wait.
    pub(super) async fn start(
        address: SocketAddr,
        nodes: &[(Admitted, Way)],
    ) -> anyhow::Result<Self> {
        let mut command = std::process::Command::new(env::current_exe()?);
        command
            .args(["control", "--companion"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = ends_with_us(command)
            .spawn()
            .context("cannot start the plain agents")?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let nodes = nodes.iter().map(|(node, way)| {
            let from = way.from.context("a node without an address")?;
            Ok((from, node.clone()))
        });
        let nodes = nodes.collect::<anyhow::Result<_>>()?;
        let mut told = serde_json::to_vec(&Told { address, nodes })?;
        told.push(b'\n');
        stdin.write_all(&told).await?;
        let mut stdout = BufReader::new(stdout).lines();
        let said = timeout(PATIENCE, stdout.next_line())
            .await
            .context("the plain agents do not wait")??;
        ensure!(said.as_deref() == Some(WAITING), "the plain agents ended");
        Ok(Self {
            child,
            stdin,
            stdout,
        })
    }

    /// Ends it. What its agents did since they all waited.
    pub(super) async fn stop(self) -> anyhow::Result<Activity> {
        let Self {
            mut child,
            stdin,
            mut stdout,
        } = self;
        drop(stdin);
        let ended = async {
            let told = stdout.next_line().await?;
            let status = child.wait().await?;
            let told = told.with_context(|| format!("the plain agents ended: {status}"))?;
            anyhow::Ok(serde_json::from_str(&told)?)
        };
        timeout(ENDS, ended)
            .await
            .context("the plain agents do not end")?
    }
}

/// That process.
pub(crate) async fn run() -> anyhow::Result<()> {
    let mut told = String::new();
    std::io::stdin().read_line(&mut told)?;
    let told: Told = serde_json::from_str(&told).context("this is started by --tls alone")?;
    let way = Way::from(told.address);
    let nodes: Vec<_> = (told.nodes.into_iter())
        .map(|(from, node)| {
            let mut way = way.clone();
            way.from = Some(from);
            (node, way)
        })
        .collect();
    let agents = agents_of(&nodes).await?;
    all_wait(&agents, nodes.len()).await?;
    println!("{WAITING}");
    let (began, before) = (Instant::now(), agents.counts());
    // Until it is closed.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    let activity = Activity::since(began, before, agents.counts());
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&activity)?)?;
    Ok(())
}
