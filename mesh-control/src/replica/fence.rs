//! Fences: messages that a replica sends, and gets back through the database.
//!
//! PostgreSQL delivers messages in the order of their commits. So whoever got a fence back has heard every heartbeat that
//! any replica told of before; and whoever does not, does not hear: its connection died without a word, or a pooler
//! stands between that delivers no messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{GRACE, Replica};
use crate::registry::Registry;
use crate::store::StoreError;
use crate::write::batch::{BATCH_DEADLINE, within};

/// How long a fence may take before somebody is turned down.
const FENCE_DEADLINE: Duration = Duration::from_secs(2);

/// How often a replica makes sure that it hears, whether anybody is silent or not.
const HEARING_INTERVAL: Duration = Duration::from_secs(5);

/// How long a fence may take that is sent for that.
const HEARING_DEADLINE: Duration = Duration::from_secs(5);

impl Registry {
    /// Turns down who is silent although every heartbeat that was told of is heard.
    pub(crate) async fn turn_down_together(&self, replica: &Replica) {
        if self
            .copy
            .memory()
            .liveness
            .silent(Instant::now(), GRACE)
            .is_empty()
        {
            return;
        }
        let turned = async {
            self.fence(replica, FENCE_DEADLINE).await?;
            let silent = self.copy.memory().liveness.silent(Instant::now(), GRACE);
            if silent.is_empty() {
                return Ok(silent);
            }
            let _turn = self.turn.lock().await;
            within(BATCH_DEADLINE, async {
                let mut change = self.begin_change().await?;
                change.turn_down(&silent).await?;
                self.finish(change).await
            })
            .await?;
            self.try_catch_up().await?;
            Ok::<_, Arc<StoreError>>(silent)
        };
        match turned.await {
            Ok(silent) => {
                replica.cannot_turn_down.store(false, Ordering::Relaxed);
                for node_id in silent {
                    let hostname = self.hostname(&node_id);
                    warn!(name: "node-down", %node_id, hostname, "node is down: no heartbeat within the node timeout");
                }
            }
            // That the connection for messages is dead is said once, when it is made anew.
            Err(error) if matches!(*error, StoreError::NoMessages(_)) => {}
            // They stay up, and it is tried again.
            Err(error) => {
                if !replica.cannot_turn_down.swap(true, Ordering::Relaxed) {
                    warn!(name: "silent-nodes-cannot-turned-down", %error, "silent nodes cannot be turned down now");
                }
            }
        }
    }

    /// Sends a message to all replicas, and waits until it is back.
    async fn fence(&self, replica: &Replica, deadline: Duration) -> Result<(), StoreError> {
        let number = 1 + replica.fences.fetch_add(1, Ordering::Relaxed);
        let mut fence = replica.fence.subscribe();
        let payload = format!("{} fence {number}", replica.name);
        within(deadline, self.store.tell_beats(&payload)).await?;
        // Fails only without a sender, which the replica has.
        let back = fence.wait_for(|seen| *seen >= number);
        match tokio::time::timeout(deadline, back).await {
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::NoMessages(deadline)),
        }
    }

    /// Ends when this replica does not hear what it tells itself.
    pub(super) async fn hear_itself(&self, replica: &Replica) -> StoreError {
        loop {
            tokio::time::sleep(HEARING_INTERVAL).await;
            if let Err(error) = self.fence(replica, HEARING_DEADLINE).await {
                return error;
            }
        }
    }
}
