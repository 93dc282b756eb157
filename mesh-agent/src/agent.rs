//! The supervisor: owns the tasks of an agent and ends them.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    control_plane::ControlPlane,
    dataplane::{self, DataplaneSettings},
    heartbeat,
    node::{RegisterRequest, Registration},
    peers::KnownPeers,
    register::{self, Revocation},
    sync::{self, SyncSettings},
};

/// How long the control plane may take to hear that the node leaves.
const DEREGISTER_DEADLINE: Duration = Duration::from_secs(2);

/// How long a task may take to notice that it shall stop. Each waits for that beside
/// everything else it waits for, so this only bounds what must not happen.
const STOP_DEADLINE: Duration = Duration::from_secs(1);

/// Everything an agent needs to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The control plane.
    pub control_plane: ControlPlane,
    /// This node.
    pub node: RegisterRequest,
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// How peers are learnt.
    pub sync: SyncSettings,
    /// How the runtime is kept equal to them.
    pub dataplane: DataplaneSettings,
}

/// A task ended that should not have.
#[derive(Debug, thiserror::Error)]
#[error("a task of the agent ended unexpectedly: {0}")]
pub struct TaskEnded(String);

/// Runs an agent until `stop`, then deregisters the node. Routes and peers stay with the
/// runtime.
///
/// # Errors
/// If a task ends before `stop`, which is a bug; the others are stopped, and the node is
/// left registered, because its data plane still works.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), TaskEnded> {
    let registration = watch::Sender::<Option<Registration>>::new(None);
    let peers = watch::Sender::<Option<Arc<KnownPeers>>>::new(None);
    let revocation = Revocation::new();
    let tasks_stop = stop.child_token();
    let current = registration.subscribe();

    let mut tasks = JoinSet::new();
    tasks.spawn(heartbeat::run(
        settings.control_plane.clone(),
        settings.heartbeat_interval,
        registration.subscribe(),
        revocation.clone(),
        tasks_stop.clone(),
    ));
    tasks.spawn(dataplane::run(
        settings.dataplane,
        registration.subscribe(),
        peers.subscribe(),
        tasks_stop.clone(),
    ));
    tasks.spawn(sync::run(
        settings.control_plane.clone(),
        settings.sync,
        registration.subscribe(),
        revocation.clone(),
        peers,
        tasks_stop.clone(),
    ));
    tasks.spawn(register::run(
        settings.control_plane.clone(),
        settings.node,
        revocation,
        registration,
        tasks_stop.clone(),
    ));

    let ended = tokio::select! {
        () = stop.cancelled() => None,
        ended = tasks.join_next() => Some(match ended {
            Some(Err(error)) => error.to_string(),
            _ => "it returned".to_owned(),
        }),
    };
    tasks_stop.cancel();
    let all_ended = timeout(STOP_DEADLINE, async {
        while tasks.join_next().await.is_some() {}
    });
    if all_ended.await.is_err() {
        tasks.shutdown().await;
    }
    if let Some(reason) = ended {
        return Err(TaskEnded(reason));
    }

    let registered = current.borrow().clone();
    if let Some(registered) = registered {
        deregister(&settings.control_plane, &registered.node_id).await;
    }
    Ok(())
}

async fn deregister(control_plane: &ControlPlane, node_id: &str) {
    match timeout(DEREGISTER_DEADLINE, control_plane.deregister(node_id)).await {
        Ok(Ok(())) => info!(node_id, "deregistered"),
        Ok(Err(error)) => warn!(
            node_id, error = %error,
            "not deregistered; the control plane finds out by the missing heartbeats"
        ),
        Err(_) => warn!(
            node_id,
            "not deregistered within {DEREGISTER_DEADLINE:?}; the control plane finds out by \
             the missing heartbeats"
        ),
    }
}
