//! What this node's data plane measures, for Prometheus.

mod page;

use std::time::SystemTime;

use mesh_ipam::Usage;
use tokio::sync::watch;

use mesh_metrics::{Scrape, Source, Unavailable, catalog::common::ProblemCount};

use crate::{
    api::{
        ask::ask,
        command::{Command, Commands, FastPathView, PeerList},
    },
    reconcile::Tally,
};

/// What the loop tells for one scrape.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) list: PeerList,
    pub(crate) fast_path: FastPathView,
    pub(crate) endpoints: usize,
    /// `None`: no addresses are leased.
    pub(crate) addresses: Option<Usage>,
    /// In bytes; 0 without an overlay device.
    pub(crate) overlay_mtu: u32,
    pub(crate) last_sync: Option<SystemTime>,
    pub(crate) problems: Vec<ProblemCount>,
    pub(crate) tally: Tally,
}

/// The metrics of a runtime: whoever embeds it serves them with [`mesh_metrics::serve`], or along with its own.
#[derive(Clone, Debug)]
pub struct RuntimeMetrics {
    commands: Commands,
}

impl RuntimeMetrics {
    pub(crate) fn new(commands: Commands) -> Self {
        Self { commands }
    }

    /// Whether the runtime does its work: its loop answers, and knows what the kernel has.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub async fn health(&self) -> Result<(), String> {
        let answer = ask(&self.commands, |reply| Command::Health { reply }).await;
        answer.map_err(|status| status.message().to_owned())?
    }

    /// News of whether the loop knows what the kernel has. A loop that does not answer at all tells none: ask for
    /// [`health`](Self::health).
    ///
    /// # Errors
    ///
    /// Why the loop does not answer now, in words.
    pub async fn watch_health(&self) -> Result<watch::Receiver<bool>, String> {
        let answer = ask(&self.commands, |reply| Command::WatchHealth { reply }).await;
        answer.map_err(|status| status.message().to_owned())
    }
}

impl Source for RuntimeMetrics {
    async fn collect(&self) -> Result<Scrape, Unavailable> {
        let asked = ask(&self.commands, |reply| Command::Measure { reply }).await;
        let measured = asked.map_err(|status| Unavailable(status.message().to_owned()))?;
        Ok(page::page(&measured, SystemTime::now()))
    }

    async fn ready(&self) -> Result<(), Unavailable> {
        self.health().await.map_err(Unavailable)
    }
}
