//! Plain agents in a process of their own, beside those of this one.

use std::{env, io::Read as _, net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context as _, bail, ensure};
use mesh_rest::admitted::Admitted;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::agents_of;
use crate::control::{
    connection::Way,
    measure::{PATIENCE, all_wait},
};

/// What it says when all its agents wait.
const WAITING: &str = "waiting";

/// How long it may take to count and end.
const ENDS: Duration = Duration::from_secs(10);

/// What the process is told, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    address: SocketAddr,
    nodes: Vec<Admitted>,
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
        let mut child = Command::new(env::current_exe()?)
            .args(["control", "--companion"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the plain agents")?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let nodes = nodes.iter().map(|(node, _)| node.clone()).collect();
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

    /// Ends it.
    ///
    /// # Errors
    ///
    /// Requests have failed.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let Self {
            mut child,
            stdin,
            mut stdout,
        } = self;
        drop(stdin);
        let failed = timeout(ENDS, stdout.next_line())
            .await
            .context("the plain agents do not end")??;
        match failed.as_deref() {
            Some("0") => {}
            Some(failed) => bail!("{failed} plain requests failed"),
            None => bail!("the plain agents ended before they were told to"),
        }
        child.wait().await?;
        Ok(())
    }
}

/// That process.
pub(crate) async fn run() -> anyhow::Result<()> {
    let mut told = String::new();
    std::io::stdin().read_line(&mut told)?;
    let told: Told = serde_json::from_str(&told).context("this is started by --tls alone")?;
    let ways = (0..).map(|number| Way::from(told.address).of_host(number));
    let nodes: Vec<_> = told.nodes.into_iter().zip(ways).collect();
    let agents = agents_of(&nodes).await?;
    all_wait(&agents, nodes.len()).await?;
    println!("{WAITING}");
    let failed = agents.counts().1;
    // Until it is closed.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    println!("{}", agents.counts().1 - failed);
    Ok(())
}
