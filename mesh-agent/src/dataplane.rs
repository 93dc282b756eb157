//! The data plane task: keeps the runtime equal to the known peers.
//!
//! One pass over the runtime goes through four steps, whose order keeps a route from ever
//! pointing at nothing:
//!
//! 1. `ConfigureNodeSubnet`, on a new connection or with another subnet. A runtime that cannot follow
//!    the cluster's settings gets no further: it would be reached by nobody;
//! 2. `RemoveRoute` for who left, while the peer behind the route is still in place;
//! 3. `SyncPeers` with the whole set: who left goes, who joined gets forwarding entry,
//!    neighbour and map entry;
//! 4. `InjectRoute` for who joined, now that there is a peer behind the route: only where the runtime does not serve
//!    `SyncPeers`, which makes the routes as well.
//!
//! A pass that loses its connection starts again on a new one, as after a restart of the
//! runtime: everything is doubtful then, and everything is sent.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use backon::BackoffBuilder as _;
use ipnet::Ipv4Net;
use mesh_problems::catalog::agent::{RUNTIME_LOST, SUBNET_REFUSED};
use mesh_rest::overlay::Overlay;
use mesh_ticker::Ticker;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    generation::Generation,
    measured::Measured,
    node::Registered,
    peers::{PeerSet, without_own},
    problems::Problems,
    reasons::Reasons,
    retry,
    routes::Routes,
    runtime_client::{CallError, RuntimeAddress, RuntimeConnection, RuntimeLost, unless_lost},
};

mod capabilities;
mod findings;
mod log;
mod peer_set;

use capabilities::Capabilities;
use log::PassLog;
use peer_set::{FastPath, Placed};

/// A pass stops calling after this many deadlines' worth of time, and goes on at the next
/// interval with what the control plane says by then.
const PASS_DEADLINES: u32 = 10;

/// What the data plane task needs to know.
#[derive(Debug, Clone)]
pub struct DataplaneSettings {
    /// Where the runtime is.
    pub runtime: RuntimeAddress,
    /// Time between two passes.
    pub interval: Duration,
    /// Time between two injections of all routes into a runtime without `SyncPeers`.
    pub reinject_interval: Duration,
    /// The overlay interface that routes lead over.
    pub overlay_interface: String,
}

/// What the data plane task learns from others. Each change is followed at once.
#[derive(Debug)]
pub struct Sources {
    /// The node as registered.
    pub registration: watch::Receiver<Option<Registered>>,
    /// The node's address on the underlay, once it is known.
    pub host_address: watch::Receiver<Option<Ipv4Addr>>,
    /// What all nodes have in common.
    pub overlay: watch::Receiver<Overlay>,
    /// The peers, once they are known.
    pub peers: watch::Receiver<Option<Arc<PeerSet>>>,
}

impl Sources {
    /// Waits for a change. Cancel safe.
    async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        tokio::select! {
            changed = self.registration.changed() => changed,
            changed = self.host_address.changed() => changed,
            changed = self.overlay.changed() => changed,
            changed = self.peers.changed() => changed,
        }
    }

    /// What to show, and the epoch of the registration, once the node is registered.
    fn wanted(&mut self) -> Option<(Wanted, u64)> {
        let registration = self.registration.borrow_and_update();
        let (subnet, epoch) = registration.as_ref().map(|it| (it.subnet, it.epoch))?;
        let host_address = *self.host_address.borrow_and_update();
        let peers = self.peers.borrow_and_update().clone();
        let wanted = Wanted {
            own: Own {
                subnet,
                host_address: host_address?,
            },
            overlay: *self.overlay.borrow_and_update(),
            peers: peers.map(|peers| without_own(&peers, subnet)),
        };
        Some((wanted, epoch))
    }
}

/// What the runtime is to show.
#[derive(Debug)]
struct Wanted {
    own: Own,
    overlay: Overlay,
    peers: Option<Arc<PeerSet>>,
}

/// Passes over the runtime every interval, and at once when what it is to show changes, until `stop`. Leaves everything
/// in place at the end: the data plane outlives the daemons.
pub async fn run(
    settings: DataplaneSettings,
    mut passes: Ticker,
    mut sources: Sources,
    problems: Problems,
    measured: Measured,
    stop: CancellationToken,
) {
    let mut dataplane = Dataplane::new(settings, problems, measured);
    // Registrations count from 1.
    let mut last_epoch = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = sources.changed() => if changed.is_err() { return },
            () = passes.tick() => {}
        }
        let Some((wanted, epoch)) = sources.wanted() else {
            continue;
        };
        if std::mem::replace(&mut last_epoch, epoch) != epoch {
            // As the heartbeats do, so that both wake the process up once.
            if let Err(error) = passes.restart() {
                debug!(name: "clock-steady-again", %error, "the clock goes on as it did");
            }
        }
        dataplane.overlay = wanted.overlay;
        tokio::select! {
            () = stop.cancelled() => return,
            () = dataplane.round(wanted.own, wanted.peers.as_deref()) => {}
        }
    }
}

/// What a log line is about.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Runtime,
    Overlay,
    OwnSubnet,
    PeerSet,
    Peer(Ipv4Net),
    /// That is wanted.
    Route(Ipv4Net),
    /// That is not.
    KeptRoute(Ipv4Net),
}

/// This node, as the runtime is told.
#[derive(Debug, Clone, Copy)]
struct Own {
    subnet: Ipv4Net,
    host_address: Ipv4Addr,
}

struct Dataplane {
    settings: DataplaneSettings,
    /// What all nodes have in common, as the control plane told last.
    overlay: Overlay,
    /// Of the runtime behind the connection, once it said.
    capabilities: Option<Capabilities>,
    connection: Option<RuntimeConnection>,
    configured: Option<Ipv4Net>,
    fast_path: FastPath,
    said_no_fast_path: bool,
    generation: Generation,
    routes: Routes,
    reasons: Reasons<Subject>,
    log: PassLog,
    problems: Problems,
    measured: Measured,
}

impl Dataplane {
    fn new(settings: DataplaneSettings, problems: Problems, measured: Measured) -> Self {
        Self {
            settings,
            measured,
            overlay: Overlay::default(),
            capabilities: None,
            connection: None,
            configured: None,
            fast_path: FastPath::Untried,
            said_no_fast_path: false,
            generation: Generation::from_clock(),
            routes: Routes::default(),
            reasons: Reasons::default(),
            log: PassLog::default(),
            problems,
        }
    }

    /// One pass, started again on a new connection a few times if the runtime is lost.
    async fn round(&mut self, own: Own, peers: Option<&PeerSet>) {
        let mut pauses = retry::within_a_round().build();
        loop {
            let passed = self.pass(own, peers).await;
            self.log.say(std::time::Instant::now());
            let Err(lost) = passed else { break };
            self.connection = None;
            self.measured.not_synced();
            if self.reasons.note(Subject::Runtime, &lost.to_string()) {
                warn!(name: "runtime-lost",
                    code = RUNTIME_LOST.code, reason = %lost,
                    "runtime lost; when it is back it is sent everything again"
                );
            }
            self.show_findings();
            match pauses.next() {
                Some(pause) => sleep(pause).await,
                None => return,
            }
        }
        if self.reasons.resolve(&Subject::Runtime) {
            info!(name: "runtime-back", routes = self.routes.acknowledged_count(), "runtime is back");
        }
        self.show_findings();
    }

    async fn pass(&mut self, own: Own, peers: Option<&PeerSet>) -> Result<(), RuntimeLost> {
        let mut runtime = self.configured(own.subnet).await?;
        // Without a list yet, an empty set would remove what an earlier life put in place.
        let Some(peers) = peers else {
            return Ok(());
        };
        let Some(node_settings) = self.node_settings(&mut runtime).await? else {
            return Ok(());
        };
        let wanted: BTreeSet<Ipv4Net> = peers.keys().copied().collect();
        self.reasons.retain(|subject| match subject {
            Subject::Peer(subnet) | Subject::Route(subnet) => wanted.contains(subnet),
            Subject::KeptRoute(subnet) => !wanted.contains(subnet),
            _ => true,
        });

        let end = Instant::now() + self.settings.runtime.deadline * PASS_DEADLINES;
        for destination in self.routes.leaving(&wanted) {
            if Instant::now() >= end {
                break;
            }
            self.remove(&mut runtime, destination).await?;
        }
        match self
            .sync_peers(&mut runtime, own, peers, node_settings)
            .await?
        {
            Placed::WithRoutes { rejected } => {
                self.take_routes(&wanted, &rejected);
                self.measured.synced(self.generation.last());
            }
            Placed::Nothing => self.measured.not_synced(),
            Placed::RoutesMissing => {
                for destination in self.routes.joining(&wanted) {
                    if Instant::now() >= end {
                        debug!(name: "runtime-slow", "the runtime is slow; the other routes follow at the next sync");
                        break;
                    }
                    self.inject(&mut runtime, destination).await?;
                }
                self.measured.synced(self.generation.last());
            }
        }
        Ok(())
    }

    /// Notes the routes that came with the peers.
    fn take_routes(&mut self, wanted: &BTreeSet<Ipv4Net>, rejected: &BTreeSet<Ipv4Net>) {
        for &destination in wanted {
            if rejected.contains(&destination) {
                self.routes.refused(destination);
            } else {
                self.routes.acknowledged(destination);
                self.reasons.resolve(&Subject::Route(destination));
            }
        }
    }

    /// The connection; a new one means a runtime that may know nothing.
    async fn connected(&mut self) -> Result<RuntimeConnection, RuntimeLost> {
        if let Some(connection) = &self.connection
            && !self.settings.runtime.has_better_than(connection).await
        {
            return Ok(connection.clone());
        }
        self.connection = None;
        self.configured = None;
        self.fast_path = FastPath::Untried;
        self.capabilities = None;
        self.routes.doubt_all();
        let connection = self.settings.runtime.connect().await?;
        self.show_way();
        Ok(self.connection.insert(connection).clone())
    }

    /// The runtime, which was told the node's subnet.
    async fn configured(&mut self, own: Ipv4Net) -> Result<RuntimeConnection, RuntimeLost> {
        let mut runtime = self.connected().await?;
        if self.configured == Some(own) {
            return Ok(runtime);
        }
        let mut answer = unless_lost(runtime.configure_node_subnet(own).await)?;
        // Every runtime serves this call to agents.
        if let Err(failure) = &answer
            && self.settings.runtime.is_elsewhere(&runtime, failure)
        {
            self.connection = None;
            runtime = self.connected().await?;
            answer = unless_lost(runtime.configure_node_subnet(own).await)?;
        }
        match answer {
            Ok(()) => {
                self.configured = Some(own);
                self.reasons.resolve(&Subject::OwnSubnet);
                info!(name: "runtime-configured-node-subnet", subnet = %own, "runtime configured with the node's subnet");
            }
            Err(refusal) => {
                let reason = refusal.to_string();
                if self
                    .reasons
                    .note(Subject::OwnSubnet, &format!("{own}: {reason}"))
                {
                    error!(name: "runtime-not-take-node-subnet",
                        code = SUBNET_REFUSED.code, subnet = %own, reason,
                        "the runtime does not take the node's subnet: containers here are not \
                         reachable from other nodes until it does; trying again at every sync"
                    );
                }
            }
        }
        Ok(runtime)
    }

    async fn remove(
        &mut self,
        runtime: &mut RuntimeConnection,
        destination: Ipv4Net,
    ) -> Result<(), RuntimeLost> {
        self.routes.asking(destination);
        match unless_lost(runtime.remove_route(destination).await)? {
            Ok(()) => {
                self.routes.gone(destination);
                self.reasons.resolve(&Subject::KeptRoute(destination));
                debug!(name: "route-removed", %destination, "route removed");
            }
            Err(failure) => {
                let reason = failure.to_string();
                if self.reasons.note(Subject::KeptRoute(destination), &reason) {
                    let kept = &mut self.log.routes_kept;
                    kept.add(|| format!("{destination}: {reason}"));
                }
            }
        }
        Ok(())
    }

    async fn inject(
        &mut self,
        runtime: &mut RuntimeConnection,
        destination: Ipv4Net,
    ) -> Result<(), RuntimeLost> {
        let via_interface = &self.settings.overlay_interface;
        self.routes.asking(destination);
        match unless_lost(runtime.inject_route(destination, via_interface).await)? {
            Ok(()) => {
                self.routes.acknowledged(destination);
                if self.reasons.resolve(&Subject::Route(destination)) {
                    let made = &mut self.log.routes_made_after_all;
                    made.add(|| destination.to_string());
                } else {
                    debug!(name: "route-place", %destination, via_interface, "route in place");
                }
            }
            Err(failure) => {
                match failure {
                    CallError::Refused(_) => self.routes.refused(destination),
                    _ => self.routes.doubt(destination),
                }
                let reason = failure.to_string();
                if self.reasons.note(Subject::Route(destination), &reason) {
                    let missing = &mut self.log.routes_missing;
                    missing.add(|| format!("{destination} over {via_interface}: {reason}"));
                }
            }
        }
        Ok(())
    }
}
