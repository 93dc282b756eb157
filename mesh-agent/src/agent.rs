//! The supervisor: owns the tasks of an agent and ends them.

use std::{collections::BTreeSet, io, net::Ipv4Addr, sync::Arc, time::Duration};

use mesh_rest::overlay::Overlay;
use mesh_ticker::Ticker;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    check,
    control_plane::{ControlPlane, ControlPlaneError},
    credentials::own::OwnIdentity,
    dataplane::{self, DataplaneSettings},
    departure::{self, Departure, Refusal, Wish},
    feed::{self, FeedSettings, Listed},
    heartbeat,
    host_address::{self, HostAddress},
    measured::Measured,
    membership::{self, Membership, MembershipError, Surroundings},
    node::{NodeDescription, Registered},
    peers::PeerSet,
    probe::{self, ProbeSettings},
    problems::Problems,
    register::{self, Revocation},
    report::Reporter,
    socket::{self, AgentSocket},
    status::{MeshCertificate, StatusSources},
    sync,
};

mod leaving;

/// How long the control plane may take to hear that the agent ends.
const LAST_CALL_DEADLINE: Duration = Duration::from_secs(2);

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
    /// How this node is a member of a mesh; none: it shows no certificate of one.
    pub membership: Option<Membership>,
    /// A certificate that the operator keeps for it.
    pub own_certificate: Option<Arc<OwnIdentity>>,
    /// What is wrong, as far as that is known already.
    pub problems: Problems,
    /// Where it says how it fares.
    pub socket: AgentSocket,
    /// This node.
    pub node: NodeDescription,
    /// Where its address comes from.
    pub host_address: HostAddress,
    /// How the node list is followed.
    pub feed: FeedSettings,
    /// How long a peer stays that is heard of neither in lists nor in the data plane.
    pub absent_peer_grace: Duration,
    /// How the runtime is asked about peers in doubt.
    pub probe: ProbeSettings,
    /// How the runtime is kept equal to the peers.
    pub dataplane: DataplaneSettings,
    /// By what is known that this host has left.
    pub departure: Departure,
    /// What is said when the agent ends.
    pub at_end: AtEnd,
    /// Where its tasks note what is measured.
    pub measured: Measured,
}

/// What the control plane is told when the agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// The agent stops: the node is down, and may come back.
    Stop,
    /// The node leaves for good.
    Leave,
    /// Nothing.
    Stay,
}

/// How an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// It is to be started anew: what its host is has changed.
    Anew,
}

/// Why an agent ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A task ended that should not have.
    #[error("a task of the agent ended unexpectedly: {0}")]
    TaskEnded(String),
    /// It cannot be the node that it is told to be.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// It cannot be told whether this host has left its mesh.
    #[error("cannot tell whether this host has left its mesh: {0}; see the agent's --state-dir")]
    Departure(#[source] io::Error),
    /// The kernel gives it no clock.
    #[error("cannot make a timer: {0}")]
    Timer(#[from] io::Error),
}

/// Runs an agent until `stop`, then tells the control plane that it ends, as the settings say.
/// Routes and peers stay with the runtime.
///
/// # Errors
/// If a task ends before `stop`, which is a bug, or this host is told to be a member of another mesh; the (other) tasks are
/// stopped, and the node is left registered, because its data plane still works. If there is no timer to begin with.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<Ended, AgentError> {
    let has_left = settings.departure.is_marked();
    if has_left.map_err(AgentError::Departure)? {
        return Ok(leaving::stay_away(settings, stop).await);
    }
    let (wishes, mut wished) = departure::wishes();
    let departure = settings.departure.clone();
    let beats = Ticker::every(heartbeat::own_or_told(
        settings.node.heartbeat_interval,
        None,
    ))?;
    let passes = Ticker::every(settings.dataplane.interval)?;
    let looks = Ticker::every(settings.feed.interval.min(host_address::LONGEST_INTERVAL))?;
    let registration = watch::Sender::<Option<Registered>>::new(None);
    let host_address = watch::Sender::<Option<Ipv4Addr>>::new(None);
    let listed = watch::Sender::<Option<Listed>>::new(None);
    let peers = watch::Sender::<Option<Arc<PeerSet>>>::new(None);
    let overlay = watch::Sender::new(Overlay::default());
    let doubtful = watch::Sender::new(BTreeSet::new());
    let (reports, reported) = mpsc::channel(WAITING_REPORTS);
    let revocation = Revocation::new();
    let measured = settings.measured;
    measured.follow(registration.subscribe());
    measured.count(settings.problems.clone());
    let tasks_stop = stop.child_token();
    let current = registration.subscribe();
    let control_plane = &settings.control_plane;
    let node_key = settings.node.node_key.clone();

    let beat_due = watch::Sender::new(Instant::now());
    let beats_due = beat_due.subscribe();

    let answers = watch::Sender::<check::Answer>::new(None);

    let certificate = watch::Sender::<Option<MeshCertificate>>::new(None);
    let problems = settings.problems;
    let (end, mut cannot_go_on) = oneshot::channel();
    let mut tasks = JoinSet::new();
    // It outlives the others, for who is to be answered last.
    let socket_stop = CancellationToken::new();
    let _ends_with_this = socket_stop.clone().drop_guard();
    let mut told = JoinSet::new();
    told.spawn(socket::run(
        settings.socket,
        wishes,
        StatusSources {
            hostname: settings.node.hostname.clone(),
            control_plane: control_plane.clone(),
            own_certificate: settings.own_certificate.clone(),
            certificate: certificate.subscribe(),
            registration: registration.subscribe(),
            host_address: host_address.subscribe(),
            listed: listed.subscribe(),
            peers: peers.subscribe(),
            doubtful: doubtful.subscribe(),
            runtime: settings.dataplane.runtime.place.clone(),
            problems: problems.clone(),
        },
        socket_stop.clone(),
    ));
    tasks.spawn(heartbeat::run(
        control_plane.clone(),
        settings.node.heartbeat_interval,
        beats,
        Reporter::new(settings.dataplane.runtime.clone(), settings.own_certificate),
        heartbeat::Sources {
            registration: registration.subscribe(),
            answers: answers.subscribe(),
        },
        heartbeat::Results {
            revocation: revocation.clone(),
            due: beat_due,
            problems: problems.clone(),
            measured: measured.clone(),
        },
        tasks_stop.clone(),
    ));
    if let Some(membership) = settings.membership {
        let surroundings = Surroundings {
            registration: registration.subscribe(),
            revocation: revocation.clone(),
            end,
            certificate,
            problems: problems.clone(),
            measured: measured.clone(),
        };
        tasks.spawn(membership::run(
            control_plane.clone(),
            membership,
            surroundings,
            tasks_stop.clone(),
        ));
    }
    let runtime = settings.dataplane.runtime.clone();
    let placed = peers.subscribe();
    tasks.spawn(check::run(
        control_plane.clone(),
        runtime.clone(),
        move || placed.borrow().as_ref().map_or(0, |peers| peers.len()),
        answers,
        tasks_stop.clone(),
    ));
    tasks.spawn(dataplane::run(
        settings.dataplane,
        passes,
        dataplane::Sources {
            registration: registration.subscribe(),
            host_address: host_address.subscribe(),
            overlay: overlay.subscribe(),
            peers: peers.subscribe(),
        },
        problems.clone(),
        measured.clone(),
        tasks_stop.clone(),
    ));
    tasks.spawn(probe::run(
        settings.probe,
        doubtful.subscribe(),
        reports,
        problems.clone(),
        tasks_stop.clone(),
    ));
    tasks.spawn(sync::run(
        settings.absent_peer_grace,
        sync::Sources {
            registration: registration.subscribe(),
            host_address: host_address.subscribe(),
            listed: listed.subscribe(),
            reports: reported,
        },
        sync::Results {
            peers,
            doubtful,
            revocation: revocation.clone(),
            problems: problems.clone(),
            measured: measured.clone(),
        },
        tasks_stop.clone(),
    ));
    tasks.spawn(feed::run(
        control_plane.clone(),
        settings.feed,
        feed::Sources {
            registration: registration.subscribe(),
            beats_due,
        },
        feed::Results {
            revocation: revocation.clone(),
            overlay: overlay.clone(),
            listed,
            problems: problems.clone(),
            measured,
        },
        tasks_stop.clone(),
    ));
    tasks.spawn(register::run(
        control_plane.clone(),
        runtime,
        settings.node,
        host_address.subscribe(),
        revocation,
        register::Results {
            registration,
            overlay,
            problems: problems.clone(),
        },
        tasks_stop.clone(),
    ));
    tasks.spawn(host_address::run(
        control_plane.clone(),
        settings.host_address,
        looks,
        host_address,
        problems,
        tasks_stop.clone(),
    ));

    let why = |ended: Option<Result<(), JoinError>>| {
        AgentError::TaskEnded(match ended {
            Some(Err(error)) => error.to_string(),
            _ => "it returned".to_owned(),
        })
    };
    let mut leaving = None;
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break None,
            // Where there is no membership, nobody says it.
            Ok(error) = &mut cannot_go_on => break Some(error.into()),
            ended = tasks.join_next() => break Some(why(ended)),
            ended = told.join_next() => break Some(why(ended)),
            Some(wish) = wished.recv() => match wish {
                // It never left. Who has gone is not answered.
                Wish::JoinAgain(answer) => drop(answer.send(Ok(()))),
                Wish::Leave(answer) => match (&*current.borrow(), &node_key) {
                    (None, _) => drop(answer.send(Err(Refusal::NotRegistered))),
                    (Some(_), None) => drop(answer.send(Err(Refusal::NoKey))),
                    (Some(registered), Some(key)) => {
                        leaving = Some((answer, registered.clone(), key.clone()));
                        break None;
                    }
                },
            },
        }
    };
    tasks_stop.cancel();
    end_all(&mut tasks).await;
    if let Some((answer, registered, key)) = leaving {
        let left = leaving::leave(control_plane, &departure, &registered, &key).await;
        // It is started anew either way: as one that has left, or as the node that it is.
        drop(answer.send(left));
        socket_stop.cancel();
        end_all(&mut told).await;
        return Ok(Ended::Anew);
    }
    socket_stop.cancel();
    end_all(&mut told).await;
    if let Some(error) = ended {
        return Err(error);
    }

    let registered = current.borrow().clone();
    if let Some(registered) = registered {
        settings
            .at_end
            .tell(&settings.control_plane, &registered.node_id, node_key)
            .await;
    }
    Ok(Ended::Stopped)
}

/// Waits for the end of tasks that have been told to end.
async fn end_all(tasks: &mut JoinSet<()>) {
    let all_ended = timeout(STOP_DEADLINE, async {
        while tasks.join_next().await.is_some() {}
    });
    if all_ended.await.is_err() {
        tasks.shutdown().await;
    }
}

impl AtEnd {
    async fn tell(self, control_plane: &ControlPlane, node_id: &str, node_key: Option<String>) {
        let told = timeout(LAST_CALL_DEADLINE, async {
            match (self, node_key) {
                (Self::Stay, _) => {
                    info!(name: "control-plane-not-told", "the control plane is not told")
                }
                (Self::Leave, Some(node_key)) => {
                    control_plane.leave(node_id, &node_key).await?;
                    info!(name: "left-mesh", node_id, "left the mesh");
                }
                (Self::Leave, None) => {
                    control_plane.deregister(node_id).await?;
                    warn!(name: "node-no-key-without-cannot",
                        node_id,
                        "the node has no key, without which it cannot leave for good; it is down \
                         and keeps its subnet until an operator releases that"
                    );
                }
                (Self::Stop, _) => {
                    control_plane.deregister(node_id).await?;
                    info!(name: "deregistered", node_id, "deregistered");
                }
            }
            Ok::<_, ControlPlaneError>(())
        });
        let error = match told.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {LAST_CALL_DEADLINE:?}"),
        };
        match self {
            Self::Leave => warn!(name: "node-not-left",
                node_id,
                error,
                "the node has not left: it will be down by its missing heartbeats, and keeps its subnet; start the agent and \
                 stop it again when the control plane answers, or have an operator release the subnet"
            ),
            Self::Stop | Self::Stay => warn!(name: "control-plane-not-told-agent",
                node_id,
                error,
                "the control plane was not told that this agent ends; it finds out by the missing heartbeats"
            ),
        }
    }
}
