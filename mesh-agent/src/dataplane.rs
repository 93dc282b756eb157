//! The data plane task: keeps the runtime equal to the known peers.
//!
//! One pass over the runtime goes through four steps, whose order keeps a route from ever
//! pointing at nothing:
//!
//! 1. `ConfigureNodeSubnet`, on a new connection or with another subnet;
//! 2. `RemoveRoute` for who left, while the peer behind the route is still in place;
//! 3. `SyncPeers` with the whole set: who left goes, who joined gets forwarding entry,
//!    neighbour and map entry;
//! 4. `InjectRoute` for who joined, now that there is a peer behind the route.
//!
//! A pass that loses its connection starts again on a new one, as after a restart of the
//! runtime: everything is doubtful then, and everything is sent.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use backon::BackoffBuilder as _;
use ipnet::Ipv4Net;
use mesh_proto::mesh;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    excerpt::Excerpt,
    generation::Generation,
    node::Registration,
    peers::{KnownPeers, PeerSet, peer_set},
    reasons::Reasons,
    retry,
    routes::Routes,
    runtime_client::{CallError, RuntimeAddress, RuntimeConnection, RuntimeLost},
};

/// How long a runtime without `SyncPeers` is taken to stay so on one connection.
const ASK_AGAIN: Duration = Duration::from_secs(180);

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
    /// This node's address on the underlay.
    pub host_address: Ipv4Addr,
}

/// Passes over the runtime every interval, and at once when the peers or the registration
/// change, until `stop`. Leaves everything in place at the end: the data plane outlives
/// the daemons.
pub async fn run(
    settings: DataplaneSettings,
    mut registration: watch::Receiver<Option<Registration>>,
    mut peers: watch::Receiver<Option<Arc<KnownPeers>>>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut dataplane = Dataplane::new(settings);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = registration.changed() => if changed.is_err() { return },
            changed = peers.changed() => if changed.is_err() { return },
            _ = ticks.tick() => {}
        }
        let Some(subnet) = registration.borrow_and_update().as_ref().map(|r| r.subnet) else {
            continue;
        };
        let peers = peers.borrow_and_update().clone();
        let peers = peers.map(|known| peer_set(&known, subnet));
        tokio::select! {
            () = stop.cancelled() => return,
            () = dataplane.round(subnet, peers.as_ref()) => {}
        }
    }
}

/// What a log line is about.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Runtime,
    OwnSubnet,
    PeerSet,
    Peer(Ipv4Net),
    Route(Ipv4Net),
}

/// Whether the runtime serves `mesh.MeshDataplane`.
#[derive(Debug, Clone, Copy)]
enum FastPath {
    Untried,
    Served,
    Missing {
        ask_again: Instant,
        reinject: Instant,
    },
}

/// The peers that are in place after `SyncPeers`, and may be routed to.
enum Placed {
    All,
    AllBut(BTreeSet<Ipv4Net>),
    None,
}

impl Placed {
    fn has(&self, subnet: Ipv4Net) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(rejected) => !rejected.contains(&subnet),
            Self::None => false,
        }
    }
}

struct Dataplane {
    settings: DataplaneSettings,
    connection: Option<RuntimeConnection>,
    configured: Option<Ipv4Net>,
    fast_path: FastPath,
    said_no_fast_path: bool,
    generation: Generation,
    routes: Routes,
    reasons: Reasons<Subject>,
}

impl Dataplane {
    fn new(settings: DataplaneSettings) -> Self {
        Self {
            settings,
            connection: None,
            configured: None,
            fast_path: FastPath::Untried,
            said_no_fast_path: false,
            generation: Generation::from_clock(),
            routes: Routes::default(),
            reasons: Reasons::default(),
        }
    }

    /// One pass, started again on a new connection a few times if the runtime is lost.
    async fn round(&mut self, own: Ipv4Net, peers: Option<&PeerSet>) {
        let mut pauses = retry::within_a_round().build();
        while let Err(lost) = self.pass(own, peers).await {
            self.connection = None;
            if self.reasons.note(Subject::Runtime, &lost.to_string()) {
                warn!(reason = %lost, "runtime lost; when it is back it is sent everything again");
            }
            match pauses.next() {
                Some(pause) => sleep(pause).await,
                None => return,
            }
        }
        if self.reasons.resolve(&Subject::Runtime) {
            info!(routes = self.routes.acknowledged_count(), "runtime is back");
        }
    }

    async fn pass(&mut self, own: Ipv4Net, peers: Option<&PeerSet>) -> Result<(), RuntimeLost> {
        let mut runtime = self.connected().await?;
        self.configure(&mut runtime, own).await?;
        // Without a list yet, an empty set would remove what an earlier life put in place.
        let Some(peers) = peers else {
            return Ok(());
        };
        let wanted: BTreeSet<Ipv4Net> = peers.keys().copied().collect();
        self.reasons.retain(|subject| match subject {
            Subject::Peer(subnet) => wanted.contains(subnet),
            _ => true,
        });

        let end = Instant::now() + self.settings.runtime.deadline * PASS_DEADLINES;
        for destination in self.routes.leaving(&wanted) {
            if Instant::now() >= end {
                break;
            }
            self.remove(&mut runtime, destination).await?;
        }
        let placed = self.sync_peers(&mut runtime, peers).await?;
        for destination in self.routes.joining(&wanted) {
            if Instant::now() >= end {
                debug!("the runtime is slow; the other routes follow at the next sync");
                break;
            }
            if placed.has(destination) {
                self.inject(&mut runtime, destination).await?;
            }
        }
        Ok(())
    }

    /// The connection; a new one means a runtime that may know nothing.
    async fn connected(&mut self) -> Result<RuntimeConnection, RuntimeLost> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        self.configured = None;
        self.fast_path = FastPath::Untried;
        self.routes.doubt_all();
        let connection = self.settings.runtime.connect().await?;
        Ok(self.connection.insert(connection).clone())
    }

    async fn configure(
        &mut self,
        runtime: &mut RuntimeConnection,
        own: Ipv4Net,
    ) -> Result<(), RuntimeLost> {
        if self.configured == Some(own) {
            return Ok(());
        }
        match unless_lost(runtime.configure_node_subnet(own).await)? {
            Ok(()) => {
                self.configured = Some(own);
                self.reasons.resolve(&Subject::OwnSubnet);
                info!(subnet = %own, "runtime configured with the node's subnet");
            }
            Err(refusal) => {
                let reason = refusal.to_string();
                if self
                    .reasons
                    .note(Subject::OwnSubnet, &format!("{own}: {reason}"))
                {
                    error!(
                        subnet = %own, reason,
                        "the runtime does not take the node's subnet: containers here are not \
                         reachable from other nodes until it does; trying again at every sync"
                    );
                }
            }
        }
        Ok(())
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
                self.reasons.resolve(&Subject::Route(destination));
                debug!(%destination, "route removed");
            }
            Err(failure) => {
                if self
                    .reasons
                    .note(Subject::Route(destination), &failure.to_string())
                {
                    warn!(%destination, reason = %failure, "route not removed; trying again at every sync");
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
                    info!(%destination, "route is in place after all");
                } else {
                    debug!(%destination, via_interface, "route in place");
                }
            }
            Err(failure) => {
                match failure {
                    CallError::Refused(_) => self.routes.refused(destination),
                    _ => self.routes.doubt(destination),
                }
                if self
                    .reasons
                    .note(Subject::Route(destination), &failure.to_string())
                {
                    warn!(%destination, via_interface, reason = %failure, "no route; trying again at every sync");
                }
            }
        }
        Ok(())
    }

    /// Sends the whole set, or finds that the runtime has no call for it.
    async fn sync_peers(
        &mut self,
        runtime: &mut RuntimeConnection,
        peers: &PeerSet,
    ) -> Result<Placed, RuntimeLost> {
        if let FastPath::Missing {
            ask_again,
            reinject,
        } = self.fast_path
        {
            let now = Instant::now();
            if now >= reinject {
                self.routes.doubt_all();
                self.fast_path = FastPath::Missing {
                    ask_again,
                    reinject: now + self.settings.reinject_interval,
                };
            }
            if now < ask_again {
                return Ok(Placed::All);
            }
        }
        // Twice, for the one refusal that can be answered: a generation that is too low.
        for _ in 0..2 {
            let request = self.request(peers);
            let sent = request.generation;
            match unless_lost(runtime.sync_peers(request).await)? {
                Ok(answer) => {
                    self.serves_fast_path();
                    let behind = self.generation.continue_above(answer.generation);
                    if answer.success {
                        return Ok(self.placed(peers, &answer));
                    }
                    if behind {
                        warn!(
                            sent,
                            applied = answer.generation,
                            "the runtime shows a later generation than this agent's; continuing above it"
                        );
                        continue;
                    }
                    self.peer_set_failed(&CallError::Refused(answer.error));
                }
                Err(CallError::Unimplemented { .. }) => {
                    self.lacks_fast_path();
                    return Ok(Placed::All);
                }
                Err(failure) => self.peer_set_failed(&failure),
            }
            break;
        }
        Ok(Placed::None)
    }

    fn request(&mut self, peers: &PeerSet) -> mesh::SyncPeersRequest {
        mesh::SyncPeersRequest {
            generation: self.generation.advance(),
            host_address: self.settings.host_address.to_string(),
            peers: peers
                .iter()
                .map(|(subnet, peer)| mesh::Peer {
                    subnet: subnet.to_string(),
                    host_address: peer.host_address.to_string(),
                    hostname: peer.hostname.clone(),
                })
                .collect(),
        }
    }

    /// Reads which peers a successful `SyncPeers` put in place.
    fn placed(&mut self, peers: &PeerSet, answer: &mesh::SyncPeersResponse) -> Placed {
        if self.reasons.resolve(&Subject::PeerSet) {
            info!("the runtime takes the peer set again");
        }
        let (added, changed, removed) = (answer.added, answer.changed, answer.removed);
        if added > 0 || changed > 0 || removed > 0 {
            info!(
                generation = answer.generation,
                peers = peers.len(),
                added,
                changed,
                removed,
                "peers synchronised"
            );
        } else {
            debug!(
                generation = answer.generation,
                peers = peers.len(),
                "peers synchronised"
            );
        }
        let mut rejected = BTreeSet::new();
        for rejection in &answer.rejected {
            let subnet = rejection.peer.as_ref().map(|p| p.subnet.parse());
            let Some(Ok(subnet)) = subnet else { continue };
            rejected.insert(subnet);
            if self.reasons.note(Subject::Peer(subnet), &rejection.reason) {
                warn!(%subnet, reason = %Excerpt(&rejection.reason), "the runtime rejected a peer; trying again at every sync");
            }
        }
        self.reasons.retain(|subject| match subject {
            Subject::Peer(subnet) => rejected.contains(subnet),
            _ => true,
        });
        if rejected.is_empty() {
            Placed::All
        } else {
            Placed::AllBut(rejected)
        }
    }

    fn peer_set_failed(&mut self, failure: &CallError) {
        if self.reasons.note(Subject::PeerSet, &failure.to_string()) {
            warn!(
                reason = %failure,
                "the runtime did not take the peer set; new peers get no route until it does; \
                 trying again at every sync"
            );
        }
    }

    fn serves_fast_path(&mut self) {
        if !matches!(self.fast_path, FastPath::Served) {
            debug!("the runtime serves mesh.MeshDataplane");
            if self.said_no_fast_path {
                info!("the runtime serves mesh.MeshDataplane now");
            }
            self.said_no_fast_path = false;
            self.fast_path = FastPath::Served;
        }
    }

    fn lacks_fast_path(&mut self) {
        let now = Instant::now();
        let reinject = match self.fast_path {
            FastPath::Missing { reinject, .. } => reinject,
            _ => now + self.settings.reinject_interval,
        };
        self.fast_path = FastPath::Missing {
            ask_again: now + ASK_AGAIN,
            reinject,
        };
        if !self.said_no_fast_path {
            self.said_no_fast_path = true;
            warn!(
                "no fast path: this runtime serves only the three calls of quilt.QuiltRuntime; \
                 routes are injected one by one, and routes of an earlier life of this agent \
                 whose nodes are gone stay until they are removed by hand"
            );
        }
    }
}

/// Takes the loss of the runtime, which ends a pass, out of the errors that only end a call.
fn unless_lost<T>(result: Result<T, CallError>) -> Result<Result<T, CallError>, RuntimeLost> {
    match result {
        Err(CallError::Lost(lost)) => Err(lost),
        other => Ok(other),
    }
}
