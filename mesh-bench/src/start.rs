//! How long it takes from the runtime's spawn until its health service answers SERVING.

use std::time::{Duration, Instant};

use anyhow::bail;
use mesh_testbed::{Daemon, DaemonOptions, Host};

use crate::{
    figure::{Figure, milliseconds, quantile},
    node::{Node, PEERS, fresh_testbed, peers},
};

/// Starts on a host that never had a runtime, and restarts of one with all its peers, whose
/// pinned maps and kernel state it takes over.
pub(crate) async fn measure(runs: u16) -> anyhow::Result<Vec<Figure>> {
    let mut fresh = Vec::new();
    for _ in 0..runs {
        let testbed = fresh_testbed().await?;
        fresh.push(timed_start(&testbed.hosts()[0]).await?);
    }
    let mut again = Vec::new();
    let node = Node::start().await?;
    node.sync(1, peers()).await?;
    for _ in 0..runs {
        node.host().kill_all();
        again.push(timed_start(node.host()).await?);
    }
    Ok(vec![
        quantile(
            "runtime start to serving, fresh host, median",
            "ms",
            Some(150.0),
            &fresh,
            50,
        )?,
        quantile(
            format!("runtime restart to serving, {PEERS} peers, median"),
            "ms",
            Some(150.0),
            &again,
            50,
        )?,
    ])
}

async fn timed_start(host: &Host) -> anyhow::Result<f64> {
    let started = Instant::now();
    host.spawn(Daemon::Runtime, &DaemonOptions::default())?;
    loop {
        let seen = match host.check_serving().await {
            Ok(()) => return Ok(milliseconds(started.elapsed())),
            Err(seen) => seen,
        };
        if started.elapsed() > Duration::from_secs(30) {
            bail!("the runtime does not serve: {seen}\n{}", host.describe());
        }
        // A millisecond is what this figure may be wrong by.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
