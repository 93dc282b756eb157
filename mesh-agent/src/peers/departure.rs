//! Peers that deregistered: for good, or for the moment that a restart takes.

use std::time::{Duration, Instant};

use super::{Doubt, KnownPeers};

/// The peers but those that left `departure_grace` ago or longer. To be asked of a list that
/// just arrived: only a control plane that still says so after the grace takes a peer away
/// whose packets arrive.
#[must_use]
pub fn without_departed(
    mut known: KnownPeers,
    now: Instant,
    departure_grace: Duration,
) -> KnownPeers {
    let departs_at = |doubt: &Doubt| doubt.departs_at(departure_grace);
    known.retain(|_, peer| {
        let departs_at = peer.doubt.as_ref().and_then(departs_at);
        departs_at.is_none_or(|departs_at| now < departs_at)
    });
    known
}

/// When the grace of the first of those that left is over.
#[must_use]
pub fn next_departure(known: &KnownPeers, departure_grace: Duration) -> Option<Instant> {
    let doubts = known.values().filter_map(|peer| peer.doubt.as_ref());
    doubts
        .filter_map(|doubt| doubt.departs_at(departure_grace))
        .min()
}
