//! The watch over the port of VXLAN, in the loop: beside it, peers are asked now and then whether VXLAN gets there
//! and back.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};

use super::{Reconciler, schedule::COMPARISON_WITH_PEERS};
use crate::{
    desired::firewall::Passage,
    probe::{
        look::LookSockets,
        swallowed::{OFTEN, PeerHost, Sign, Swallowed},
    },
    problem::Problem,
    wanted::subnet::gateway,
};

/// The first look after the start: by then the others have heard of a node that has just joined.
const FIRST: Duration = Duration::from_secs(15);

/// What one look has found.
type Findings = BTreeMap<PeerHost, Sign>;

/// The watch.
pub(super) struct PortWatch {
    swallowed: Swallowed,
    /// The port that was asked about.
    port: u16,
    next: Instant,
    /// The look that is under way, and since when.
    look: Option<(JoinHandle<Findings>, Instant)>,
}

impl Default for PortWatch {
    fn default() -> Self {
        Self {
            swallowed: Swallowed::default(),
            port: 0,
            // Which comes no earlier, although the clock goes by halves of its period.
            next: Instant::now() + FIRST + COMPARISON_WITH_PEERS,
            look: None,
        }
    }
}

impl Drop for PortWatch {
    fn drop(&mut self) {
        if let Some((look, _)) = &self.look {
            look.abort();
        }
    }
}

impl PortWatch {
    /// Whether the next look is due, as far as the clock goes by which it is asked for: the comparison's.
    pub(super) fn is_due(&self) -> bool {
        self.look.is_none() && self.next <= Instant::now() + COMPARISON_WITH_PEERS
    }

    /// Waits for what the look that is under way has found, and tells when it began; for ever if none is. Cancel
    /// safe.
    pub(super) async fn done(&mut self) -> (Findings, Instant) {
        let Some((look, begun)) = &mut self.look else {
            return std::future::pending().await;
        };
        let begun = *begun;
        let ended = look.await;
        self.look = None;
        // One that panicked has found nothing, and has been told of.
        (ended.unwrap_or_default(), begun)
    }
}

impl Reconciler {
    /// Begins a look at some peers.
    pub(super) fn look_at_port(&mut self) {
        let port = self.wanted.node_settings.vxlan_port;
        if std::mem::replace(&mut self.port_watch.port, port) != port {
            self.port_watch.swallowed = Swallowed::default();
        }
        let peers = self.peers_to_watch();
        let chosen = self.port_watch.swallowed.choose(&peers);
        let begun = Instant::now();
        self.port_watch.next = begun + self.port_watch.swallowed.wait();
        let (Some(own), Some(underlay)) = (self.wanted.subnet, &self.desired.underlay) else {
            return;
        };
        if chosen.is_empty() {
            return;
        }
        let overlay = &self.settings.overlay;
        // Opened here because here is the right network namespace.
        match LookSockets::open(gateway(own), overlay, underlay.address, port) {
            Ok(sockets) => {
                let look = tokio::spawn(sockets.look(chosen));
                self.port_watch.look = Some((look, begun));
            }
            Err(error) => {
                tracing::debug!(name: "cannot-ask-peers-whether-vxlan", %error, "cannot ask peers whether VXLAN gets through")
            }
        }
    }

    /// Those of whose silence nothing on this host is to blame.
    fn peers_to_watch(&self) -> BTreeSet<PeerHost> {
        if self.closes_port() || self.problems.iter().any(Problem::of_device) {
            return BTreeSet::new();
        }
        let Some(unready) = self.unready() else {
            return BTreeSet::new();
        };
        let paths = &self.desired.entries.paths;
        let transformed = |subnet| paths.get(subnet).is_some_and(|path| path.kernel);
        let peers = self.wanted.peers.iter();
        peers
            .filter(|(subnet, _)| !unready.contains(*subnet) && !transformed(*subnet))
            .map(|(&subnet, peer)| (subnet, peer.address))
            .collect()
    }

    /// Whether this host itself drops VXLAN from other nodes, which is a problem of its own.
    fn closes_port(&self) -> bool {
        let closed = |problem: &Problem| {
            matches!(
                problem,
                Problem::Blocked {
                    passage: Passage::Underlay,
                    ..
                }
            )
        };
        self.problems.iter().any(closed)
    }

    /// Takes what a look has found.
    pub(super) fn note_port_look(&mut self, (mut findings, begun): (Findings, Instant)) {
        let alone = |(_, sign): &(&PeerHost, &Sign)| **sign == Sign::HostAlone;
        let silent: Vec<PeerHost> = findings.iter().filter(alone).map(|(&it, _)| it).collect();
        if !silent.is_empty() {
            let subnets: Vec<_> = silent.iter().map(|(subnet, _)| *subnet).collect();
            let seen = self.last_seen(&subnets);
            // Whose containers' packets arrive is not cut off, whatever its host answers.
            let lately = begun.checked_sub(OFTEN).unwrap_or(begun).into_std();
            for peer in silent {
                if seen.get(&peer.0).is_some_and(|at| *at >= lately) {
                    findings.insert(peer, Sign::Overlay);
                }
            }
        }
        let watch = &mut self.port_watch;
        watch.swallowed.note(&findings);
        watch.next = watch.next.min(Instant::now() + watch.swallowed.wait());
        let mut problems = self.problems.clone();
        problems.retain(|problem| !matches!(problem, Problem::Swallowed { .. }));
        problems.extend(self.swallowed_problem());
        if problems != self.problems {
            self.note_problems(problems);
        }
    }

    /// That somebody on the way swallows VXLAN.
    pub(super) fn swallowed_problem(&self) -> Option<Problem> {
        if self.closes_port() {
            return None;
        }
        let is_peer = |(subnet, address): &PeerHost| {
            let peer = self.wanted.peers.get(subnet);
            peer.is_some_and(|peer| peer.address == *address)
        };
        let swallowed = self.port_watch.swallowed.peers().filter(is_peer);
        let peers: Vec<Ipv4Addr> = swallowed.map(|(_, address)| address).collect();
        let port = self.wanted.node_settings.vxlan_port;
        (!peers.is_empty() && port == self.port_watch.port)
            .then_some(Problem::Swallowed { peers, port })
    }
}
