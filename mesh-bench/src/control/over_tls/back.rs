//! How soon all agents are back when the control plane was killed and starts again.

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::time::sleep;

use super::{Cluster, agents_of};
use crate::control::measure::{PATIENCE, all_wait};

/// Between two looks at those that come back.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What one round showed of one way.
#[derive(Debug, Clone, Default)]
pub(super) struct Back {
    /// From the kill until the control plane listens again, in seconds.
    pub(super) down: f64,
    /// And until the last agent had an answer.
    pub(super) back: f64,
    /// Processor time from its start until then, in seconds.
    pub(super) processor: f64,
    /// The most resident meanwhile, in bytes.
    pub(super) peak: u64,
    /// Connections and requests that failed until all were back.
    pub(super) attempts: u64,
}

impl Cluster {
    /// All agents wait, the control plane is killed and starts again, and all come back.
    pub(super) async fn come_back(&mut self) -> anyhow::Result<()> {
        self.anew().await?;
        let agents = agents_of(&self.nodes).await?;
        all_wait(&agents, self.nodes.len()).await?;
        let mut round = Back::default();
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
        eprintln!("{}: {round:?}", self.name);
        self.back.push(round);
        Ok(())
    }
}
