//! The two loops of the registry: who turns down the silent, and who writes to the store what changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::batch::{BATCH_DEADLINE, within};
use super::process_pause::Presence;
use crate::registry::Registry;
use crate::replica::GRACE;
use crate::store::StoreError;

/// How often heartbeats are written. What a crash loses is at most this much of `last_heartbeat`.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// How many nodes are written at a time. Lists and registrations get their turn in between, also when
/// thousands of nodes change at once.
pub(super) const WRITE_BATCH: usize = 256;

/// Nodes that are due within this much of each other are turned down together, so that many of them
/// do not mean as many walks through the table.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How often it is looked whether this process runs at all, and nodes are silent.
const PATROL_INTERVAL: Duration = Duration::from_secs(1);

/// After a failed write. Nobody waits for it, so it may be slow; it goes on for as long as the process.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

impl Registry {
    /// Turns nodes down when their deadline comes, until `stop`.
    pub async fn turn_down_silent_nodes(self: Arc<Self>, stop: CancellationToken) {
        let mut presence = Presence::default();
        loop {
            let pause = {
                let (memory, now) = (self.copy.memory(), Instant::now());
                // Nobody is up: whoever comes up now is due a full timeout from now.
                let grace = self.replica.as_ref().map_or(Duration::ZERO, |_| GRACE);
                let due = memory.liveness.next_deadline().map(|due| due + grace);
                let pause = due.map_or(PATROL_INTERVAL, |due| due.saturating_duration_since(now));
                pause.clamp(WATCH_INTERVAL, PATROL_INTERVAL)
            };
            presence.leaves_for(pause);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            {
                let liveness = &mut self.copy.memory().liveness;
                let now = Instant::now();
                if let Some(absent) = presence.was_absent_for(liveness.timeout()) {
                    liveness.give_full_timeout(now);
                    warn!(name: "control-plane-not-run-while",
                        seconds = absent.as_secs(),
                        "this control plane did not run for a while; every node has a full timeout from now"
                    );
                }
                let held = liveness.hold_many(now);
                if held > 0 {
                    warn!(name: "many-nodes-fell-silent-once",
                        nodes = held,
                        "so many nodes fell silent at once that it is likelier the network than they: they are \
                         called down if they stay silent for another node timeout"
                    );
                }
            }
            if let Some(replica) = &self.replica {
                self.turn_down_together(replica).await;
                continue;
            }
            let silent = self.copy.memory().liveness.expire(Instant::now());
            for node_id in &silent {
                let hostname = self.hostname(node_id);
                warn!(name: "node-down", %node_id, hostname, "node is down: no heartbeat within the node timeout");
            }
            if !silent.is_empty() {
                self.status_changed.notify_one();
            }
        }
    }

    /// Writes changes of status at once and heartbeats in batches, until `stop`.
    pub async fn write_what_changed(self: Arc<Self>, stop: CancellationToken) {
        let mut failing = false;
        loop {
            let pause = if failing {
                RETRY_INTERVAL
            } else {
                WRITE_INTERVAL
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.status_changed.notified(), if !failing => {}
                () = tokio::time::sleep(pause) => {}
            }
            match self.write_now().await {
                Ok(()) if failing => {
                    failing = false;
                    info!(name: "database-takes-heartbeats-again", "the database takes heartbeats again");
                }
                Ok(()) => {}
                Err(error) if !failing => {
                    failing = true;
                    warn!(name: "heartbeats-cannot-written", %error, "heartbeats cannot be written; nodes are watched all the same");
                }
                Err(_) => {}
            }
        }
    }

    async fn write_now(&self) -> Result<(), StoreError> {
        loop {
            let _turn = self.turn.lock().await;
            if self.write_batch().await? < WRITE_BATCH {
                // Nothing to take in, unless that failed after an earlier change.
                self.catch_up().await;
                return Ok(());
            }
        }
    }

    /// Writes some of what the table has and the store has not; returns how many nodes that were.
    /// Whoever calls it has the turn.
    pub(super) async fn write_batch(&self) -> Result<usize, StoreError> {
        let unwritten = self.copy.memory().liveness.take_unwritten(WRITE_BATCH);
        if unwritten.is_empty() {
            return Ok(0);
        }
        let with_news = unwritten
            .iter()
            .any(|entry| entry.status.is_some() || entry.overlay_mtu.is_some());
        let written = within(BATCH_DEADLINE, async {
            let mut change = if with_news {
                self.begin_change().await?
            } else {
                self.begin_heartbeats().await?
            };
            change.write_liveness(&unwritten).await?;
            self.finish(change).await
        });
        match written.await {
            Ok(_) => {
                if with_news {
                    self.catch_up().await;
                }
                Ok(unwritten.len())
            }
            Err(error) => {
                self.copy.memory().liveness.put_back(&unwritten);
                Err(error)
            }
        }
    }

    /// Finishes the changes that are asked for, writes the last heartbeats and reports, and closes the database.
    ///
    /// # Errors
    ///
    /// [`StoreError`], when the last heartbeats could not be written; nothing else is lost then.
    pub async fn close(self: Arc<Self>) -> Result<(), StoreError> {
        self.last_changes.cancel();
        self.changes.close();
        self.changes.wait().await;
        let written = self.write_now().await;
        let written = written.and(self.write_some_reports().await);
        // Connections that outlived their grace may hold the registry; without the store they can
        // do nothing, and closing the pool from here closes it for them as well.
        self.store.close().await;
        written
    }
}
