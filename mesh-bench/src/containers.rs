//! What a container that comes and goes costs the runtime of a node with many peers.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, bail};
use mesh_proto::mesh::Peer;
use mesh_testbed::{Daemon, DaemonOptions, Host};

use crate::{
    figure::{Figure, milliseconds, quantile},
    node::Node,
    usage::Usage,
};

/// Peers of the node.
const PEERS: u16 = 5000;
/// Containers that come and go in each run.
const CONTAINERS: u32 = 20;
/// How long nothing happens, to know what the comparisons cost meanwhile.
const WATCHED: Duration = Duration::from_secs(10);
/// How long a container may take to become an endpoint, and to be none again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs on one node. What it costs to do nothing is taken off.
pub(crate) async fn measure(runs: u16) -> anyhow::Result<Vec<Figure>> {
    let options = DaemonOptions::new().args(["--cluster-cidr", "10.0.0.0/8"]);
    let node = Node::start_with(&options).await?;
    node.sync(1, (0..PEERS).map(peer).collect()).await?;
    let host = node.host();
    let mut costs = Vec::new();
    for _ in 0..runs {
        let before = usage(host)?;
        tokio::time::sleep(WATCHED).await;
        let idle = usage(host)?.cores_since(&before);

        let before = usage(host)?;
        for _ in 0..CONTAINERS {
            let container = host.add_container().await?;
            endpoints(host, 1).await?;
            drop(container);
            endpoints(host, 0).await?;
        }
        let after = usage(host)?;
        let used = after.processor.saturating_sub(before.processor);
        let spent = used.saturating_sub((after.at - before.at).mul_f64(idle));
        costs.push(milliseconds(spent / CONTAINERS));
    }
    Ok(vec![quantile(
        format!("processor time of the runtime for a container that comes and goes, {PEERS} peers"),
        "ms",
        Some(10.0),
        &costs,
        50,
    )?])
}

fn usage(host: &Host) -> anyhow::Result<Usage> {
    Usage::of(host.pid(Daemon::Runtime).context("it is not running")?)
}

/// Waits until the runtime knows so many containers, by a map that it fills: asking it would cost it time.
async fn endpoints(host: &Host, count: usize) -> anyhow::Result<()> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let dump: serde_json::Value = serde_json::from_str(&host.bpftool_dump("endpoints")?)?;
        let seen = dump.as_array().map_or(0, Vec::len);
        if seen == count {
            return Ok(());
        }
        if tokio::time::Instant::now() > end {
            bail!("{seen} containers are endpoints, not {count}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A peer on paper.
fn peer(number: u16) -> Peer {
    let [high, low] = number.to_be_bytes();
    let subnet = Ipv4Addr::new(10, 100 + high, low, 0);
    Peer {
        subnet: format!("{subnet}/24"),
        host_address: Ipv4Addr::new(198, 18, high, low).to_string(),
        hostname: format!("paper{number}"),
        ..Peer::default()
    }
}
