//! The supervisor: owns the tasks of an agent and ends them.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use mesh_rest::overlay::Overlay;
use mesh_ticker::Ticker;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    control_plane::ControlPlane,
    dataplane::{self, DataplaneSettings},
    feed::{self, FeedSettings, Listed},
    heartbeat,
    host_address::{self, HostAddress},
    node::{RegisterRequest, Registration},
    peers::PeerSet,
    probe::{self, ProbeSettings},
    register::{self, Revocation, Told},
    report::Reporter,
    sync::{self, Graces},
};

/// How long the control plane may take to hear that the node leaves.
const DEREGISTER_DEADLINE: Duration = Duration::from_secs(2);

/// How long a task may take to notice that it shall stop. Each waits for that beside
/// everything else it waits for, so this only bounds what must not happen.
const STOP_DEADLINE: Duration = Duration::from_secs(1);

/// So many reports of the runtime may wait for the sync task.
const WAITING_REPORTS: usize = 1;

/// Everything an agent needs to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The control plane.
    pub control_plane: ControlPlane,
    /// This node.
    pub node: RegisterRequest,
    /// Where its address comes from.
    pub host_address: HostAddress,
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// How the node list is followed.
    pub feed: FeedSettings,
    /// How long peers stay that are not listed as up.
    pub graces: Graces,
    /// How the runtime is asked about peers in doubt.
    pub probe: ProbeSettings,
    /// How the runtime is kept equal to the peers.
    pub dataplane: DataplaneSettings,
    /// Whether the node stays registered when the agent ends.
    pub stay_registered: bool,
}

/// Why an agent ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A task ended that should not have.
    #[error("a task of the agent ended unexpectedly: {0}")]
    TaskEnded(String),
    /// The kernel gives it no clock.
    #[error("cannot make a timer: {0}")]
    Timer(#[from] io::Error),
}

/// Runs an agent until `stop`, then deregisters the node unless told otherwise. Routes and
/// peers stay with the runtime.
///
/// # Errors
/// If a task ends before `stop`, which is a bug; the others are stopped, and the node is
/// left registered, because its data plane still works. If there is no timer to begin with.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), AgentError> {
    let beats = Ticker::every(settings.heartbeat_interval)?;
    let passes = Ticker::every(settings.dataplane.interval)?;
    let looks = Ticker::every(settings.feed.interval.min(host_address::LONGEST_INTERVAL))?;
    let registration = watch::Sender::<Option<Registration>>::new(None);
    let host_address = watch::Sender::new(settings.host_address.at_start());
    let listed = watch::Sender::<Option<Listed>>::new(None);
    let peers = watch::Sender::<Option<Arc<PeerSet>>>::new(None);
    let overlay = watch::Sender::new(Overlay::default());
    let doubtful = watch::Sender::new(BTreeSet::new());
    let lookup = watch::Sender::new(());
    let (reports, reported) = mpsc::channel(WAITING_REPORTS);
    let revocation = Revocation::new();
    let tasks_stop = stop.child_token();
    let current = registration.subscribe();
    let control_plane = &settings.control_plane;

    let mut tasks = JoinSet::new();
    tasks.spawn(heartbeat::run(
        control_plane.clone(),
        settings.heartbeat_interval,
        beats,
        Reporter::new(settings.dataplane.runtime.clone()),
        registration.subscribe(),
        revocation.clone(),
        tasks_stop.clone(),
    ));
    let runtime = settings.dataplane.runtime.clone();
    tasks.spawn(dataplane::run(
        settings.dataplane,
        passes,
        registration.subscribe(),
        host_address.subscribe(),
        overlay.subscribe(),
        peers.subscribe(),
        tasks_stop.clone(),
    ));
    tasks.spawn(probe::run(
        settings.probe,
        doubtful.subscribe(),
        reports,
        tasks_stop.clone(),
    ));
    tasks.spawn(sync::run(
        settings.graces,
        sync::Sources {
            registration: registration.subscribe(),
            host_address: host_address.subscribe(),
            listed: listed.subscribe(),
            reports: reported,
        },
        sync::Results {
            peers,
            doubtful,
            lookup: lookup.clone(),
            revocation: revocation.clone(),
        },
        tasks_stop.clone(),
    ));
    tasks.spawn(feed::run(
        control_plane.clone(),
        settings.feed,
        registration.subscribe(),
        lookup.subscribe(),
        overlay.clone(),
        listed,
        tasks_stop.clone(),
    ));
    tasks.spawn(register::run(
        control_plane.clone(),
        runtime,
        settings.node,
        host_address.subscribe(),
        revocation,
        Told {
            registration,
            overlay,
        },
        tasks_stop.clone(),
    ));
    tasks.spawn(host_address::run(
        control_plane.clone(),
        settings.host_address,
        looks,
        host_address,
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
        return Err(AgentError::TaskEnded(reason));
    }

    let registered = current.borrow().clone();
    if settings.stay_registered {
        info!("the node stays registered");
    } else if let Some(registered) = registered {
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
