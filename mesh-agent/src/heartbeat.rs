//! The heartbeat task.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    control_plane::{ControlPlane, ControlPlaneError},
    node::Registration,
    reasons::Reasons,
    register::Revocation,
};

/// Beats every `interval` while the node is registered, until `stop`. The registration
/// itself counts as a beat.
pub async fn run(
    control_plane: ControlPlane,
    interval: Duration,
    mut registration: watch::Receiver<Option<Registration>>,
    revocation: Revocation,
    stop: CancellationToken,
) {
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failure = Reasons::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = registration.changed() => {
                if changed.is_err() {
                    return;
                }
                ticks.reset();
                continue;
            }
            _ = ticks.tick() => {}
        }
        let Some(current) = registration.borrow().clone() else {
            continue;
        };
        let beat = tokio::select! {
            () = stop.cancelled() => return,
            beat = control_plane.heartbeat(&current.node_id) => beat,
        };
        match beat {
            Ok(()) => {
                debug!("heartbeat");
                if failure.resolve(&()) {
                    info!("heartbeats arrive again");
                }
            }
            Err(ControlPlaneError::UnknownNode { .. }) => {
                warn!(
                    node_id = current.node_id,
                    "the control plane does not know this node any more"
                );
                revocation.revoke(current.epoch);
            }
            Err(error) => {
                let error = error.to_string();
                if failure.note((), &error) {
                    warn!(error, "heartbeat failed; the next one follows");
                }
            }
        }
    }
}
