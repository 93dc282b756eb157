//! `SyncPeers`: the whole set in one call, for runtimes that serve it.

use std::{collections::BTreeSet, time::Duration};

use ipnet::Ipv4Net;
use mesh_problems::catalog::agent::{PEERS_REFUSED, THREE_CALL_RUNTIME};
use mesh_proto::mesh;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Dataplane, Own, Subject, capabilities::NodeSettings};
use crate::{
    excerpt::Excerpt,
    peers::PeerSet,
    runtime_client::{CallError, RuntimeConnection, RuntimeLost, unless_lost},
};

/// How long a runtime without `SyncPeers` is taken to stay so on one connection.
const ASK_AGAIN: Duration = Duration::from_secs(180);

/// Whether the runtime serves `mesh.MeshDataplane`.
#[derive(Debug, Clone, Copy)]
pub(super) enum FastPath {
    Untried,
    Served,
    Missing {
        ask_again: Instant,
        reinject: Instant,
    },
}

/// What `SyncPeers` put in place.
pub(super) enum Placed {
    /// The peers, and the routes to them.
    WithRoutes {
        /// Those that the runtime did not take.
        rejected: BTreeSet<Ipv4Net>,
    },
    /// The runtime does not serve it: routes are made one by one.
    RoutesMissing,
    /// It was refused, or failed.
    Nothing,
}

impl Dataplane {
    /// Sends the whole set, or finds that the runtime has no call for it.
    pub(super) async fn sync_peers(
        &mut self,
        runtime: &mut RuntimeConnection,
        own: Own,
        peers: &PeerSet,
        node_settings: NodeSettings,
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
                return Ok(Placed::RoutesMissing);
            }
        }
        // What is asked for may be there even if the answer never comes.
        for destination in self.routes.joining(&peers.keys().copied().collect()) {
            self.routes.asking(destination);
        }
        // Twice, for the one refusal that can be answered: a generation that is too low.
        for _ in 0..2 {
            let request = self.request(own, peers, node_settings);
            let sent = request.generation;
            match unless_lost(runtime.sync_peers(request).await)? {
                Ok(answer) => {
                    self.serves_fast_path();
                    let behind = self.generation.continue_above(answer.generation);
                    if answer.success {
                        let rejected = self.placed(peers, &answer);
                        return Ok(Placed::WithRoutes { rejected });
                    }
                    if behind {
                        warn!(name: "runtime-shows-later-generation-than",
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
                    return Ok(Placed::RoutesMissing);
                }
                Err(failure) => self.peer_set_failed(&failure),
            }
            break;
        }
        Ok(Placed::Nothing)
    }

    fn request(
        &mut self,
        own: Own,
        peers: &PeerSet,
        settings: NodeSettings,
    ) -> mesh::SyncPeersRequest {
        mesh::SyncPeersRequest {
            generation: self.generation.advance(),
            host_address: own.host_address.to_string(),
            peers: peers
                .iter()
                .map(|(subnet, wanted)| mesh::Peer {
                    subnet: subnet.to_string(),
                    host_address: wanted.peer.host_address.to_string(),
                    hostname: wanted.peer.hostname.clone(),
                    suspect: wanted.suspect,
                    mtu: wanted.peer.mtu.unwrap_or_default(),
                    ..mesh::Peer::default()
                })
                .collect(),
            node_settings: settings,
        }
    }

    /// Reads which peers a successful `SyncPeers` did not put in place.
    fn placed(&mut self, peers: &PeerSet, answer: &mesh::SyncPeersResponse) -> BTreeSet<Ipv4Net> {
        if self.reasons.resolve(&Subject::PeerSet) {
            info!(name: "runtime-takes-peer-set-again", "the runtime takes the peer set again");
        }
        let (added, changed, removed) = (answer.added, answer.changed, answer.removed);
        if added > 0 || changed > 0 || removed > 0 {
            info!(name: "peers-synchronised",
                generation = answer.generation,
                peers = peers.len(),
                added,
                changed,
                removed,
                "peers synchronised"
            );
        } else {
            debug!(name: "peers-synchronised",
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
                let rejected = &mut self.log.rejected;
                rejected.add(|| format!("{subnet}: {}", Excerpt(&rejection.reason)));
            }
        }
        self.reasons.retain(|subject| match subject {
            Subject::Peer(subnet) => rejected.contains(subnet),
            _ => true,
        });
        rejected
    }

    fn peer_set_failed(&mut self, failure: &CallError) {
        if self.reasons.note(Subject::PeerSet, &failure.to_string()) {
            warn!(name: "runtime-not-take-peer-set",
                code = PEERS_REFUSED.code,
                reason = %failure,
                "the runtime did not take the peer set; new peers get no route until it does; \
                 trying again at every sync"
            );
        }
    }

    fn serves_fast_path(&mut self) {
        if !matches!(self.fast_path, FastPath::Served) {
            debug!(name: "runtime-serves-mesh-meshdataplane", "the runtime serves mesh.MeshDataplane");
            if self.said_no_fast_path {
                info!(name: "runtime-serves-mesh-meshdataplane-now", "the runtime serves mesh.MeshDataplane now");
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
        self.forget_peer_set();
        if !self.said_no_fast_path {
            self.said_no_fast_path = true;
            warn!(name: "no-fast-path",
                code = THREE_CALL_RUNTIME.code,
                "no fast path: this runtime serves only the three calls of quilt.QuiltRuntime; \
                 routes are injected one by one, and routes of an earlier life of this agent \
                 whose nodes are gone stay until they are removed by hand"
            );
        }
    }
}
