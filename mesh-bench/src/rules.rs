//! How long the packet filter's rules of a large cluster take to load.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use mesh_proto::mesh::Peer;
use mesh_testbed::{Daemon, DaemonOptions, wait_until};

use crate::{
    figure::{Figure, quantile},
    node::Node,
};

/// A cluster of this size.
const PEERS: u32 = 5_000;
const SOON: Duration = Duration::from_secs(60);

/// Flushes the rules `runs` times, and takes the runtime's own word for how long writing them
/// took: from starting nft to its end.
pub(crate) async fn measure(runs: u16) -> anyhow::Result<Figure> {
    let options = DaemonOptions::new().args(["--cluster-cidr", "10.0.0.0/8"]);
    let node = Node::start_with(&options).await?;
    node.sync(1, peers()).await?;
    let mut took = Vec::new();
    for _ in 0..runs {
        let before = written(&node)?.len();
        let flush = node
            .host()
            .netns()
            .command("nft")
            .args(["flush", "ruleset"])
            .status();
        ensure!(
            flush.context("cannot run nft")?.success(),
            "nft cannot flush the rules"
        );
        let now = wait_until("the rules", SOON, || async {
            let written = written(&node).map_err(|error| error.to_string())?;
            let last = written.get(before..).and_then(<[f64]>::last);
            last.copied().ok_or("they are not written yet".to_owned())
        });
        took.push(now.await?);
    }
    let name = format!("nftables rules of {PEERS} peers, loaded, median");
    quantile(name, "ms", Some(200.0), &took, 50)
}

/// Milliseconds of each time that the runtime wrote rules for all peers, as it logged them.
fn written(node: &Node) -> anyhow::Result<Vec<f64>> {
    let log = std::fs::read_to_string(node.host().log(Daemon::Runtime))?;
    let wanted = format!("peers={PEERS} took_ms=");
    let mut times = Vec::new();
    for (_, rest) in log.lines().filter_map(|line| line.split_once(&wanted)) {
        let Some(number) = rest.split_whitespace().next() else {
            bail!("a line of the log ends after {wanted}");
        };
        times.push(number.parse().context("not a number of milliseconds")?);
    }
    Ok(times)
}

/// 10.100.1.0/24 to 10.119.136.0/24, on addresses of the range for benchmarks of RFC 2544.
fn peers() -> Vec<Peer> {
    let peer = |number: u32| {
        let [_, _, high, low] = number.to_be_bytes();
        Peer {
            subnet: format!("10.{}.{low}.0/24", 100 + high),
            host_address: Ipv4Addr::new(198, 18, high, low).to_string(),
            hostname: format!("paper{number}"),
            ..Peer::default()
        }
    };
    (1..=PEERS).map(peer).collect()
}
