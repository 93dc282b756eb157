//! A node that beats much more often than agents do, to see how long it waits for its answers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::time::sleep;

use super::connection::{Connection, Way};
use crate::figure::milliseconds;

/// Between two heartbeats.
const INTERVAL: Duration = Duration::from_millis(20);

/// The node's heartbeats until `stop`, over one connection: how long each took, in milliseconds, in ascending order. All
/// have to be taken.
pub(super) async fn beat(
    way: Way,
    path: String,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Vec<f64>> {
    let mut connection = Connection::open(way).await?;
    let mut waits = Vec::new();
    while !stop.load(Relaxed) {
        let asked = Instant::now();
        let answer = connection.post(&path, "{}").await?;
        waits.push(milliseconds(asked.elapsed()));
        ensure!(answer.status == 200, "a heartbeat: {}", answer.status);
        sleep(INTERVAL).await;
    }
    waits.sort_by(f64::total_cmp);
    Ok(waits)
}
