//! How long SyncPeers takes with the most peers there can be.

use std::time::Instant;

use anyhow::ensure;

use crate::{
    figure::{Figure, milliseconds, quantile},
    node::{Node, PEERS, peers},
};

const UNCHANGED_PER_RUN: u64 = 10;

/// Each run has a fresh node: all peers new once, then unchanged some times.
pub(crate) async fn measure(runs: u16) -> anyhow::Result<Vec<Figure>> {
    let (mut new, mut unchanged) = (Vec::new(), Vec::new());
    let all = u32::from(PEERS);
    for _ in 0..runs {
        let node = Node::start().await?;
        let set = peers();
        let started = Instant::now();
        let answer = node.sync(1, set.clone()).await?;
        new.push(milliseconds(started.elapsed()));
        ensure!(
            answer.added == all,
            "{} of {all} peers were added",
            answer.added
        );

        for generation in 2..2 + UNCHANGED_PER_RUN {
            let set = set.clone();
            let started = Instant::now();
            let answer = node.sync(generation, set).await?;
            unchanged.push(milliseconds(started.elapsed()));
            ensure!(
                answer.unchanged == all,
                "{} of {all} peers were found unchanged",
                answer.unchanged
            );
        }
        let routes = node.host().routes().await?;
        let ours = routes
            .iter()
            .filter(|route| route.interface == "vxlan100")
            .count();
        ensure!(
            ours >= PEERS.into(),
            "the kernel shows {ours} routes over vxlan100 for {all} peers"
        );
    }
    let name = |what| format!("SyncPeers, {PEERS} {what} peers, median");
    Ok(vec![
        quantile(name("new"), "ms", Some(100.0), &new, 50)?,
        quantile(name("unchanged"), "ms", Some(5.0), &unchanged, 50)?,
    ])
}
