//! What a pass says about peers and routes: a line for each kind of thing, however many it happened to.

use std::time::Instant;

use mesh_problems::catalog::agent::{PEERS_REJECTED, ROUTES_MISSING, ROUTES_NOT_REMOVED};
use tracing::{info, warn};

use crate::tally::{Line, Tally};

/// What happened to peers and routes and was not said yet.
#[derive(Debug, Default)]
pub(super) struct PassLog {
    /// Peers that the runtime does not take.
    pub(super) rejected: Tally,
    /// Routes that are wanted and were not made.
    pub(super) routes_missing: Tally,
    /// Routes that are not wanted and were not removed.
    pub(super) routes_kept: Tally,
    /// Routes that were made after they could not be.
    pub(super) routes_made_after_all: Tally,
}

impl PassLog {
    pub(super) fn say(&mut self, now: Instant) {
        if let Some(Line { count, examples }) = self.rejected.line(now) {
            warn!(name: "runtime-rejected-peers",
                code = PEERS_REJECTED.code,
                count,
                %examples, "the runtime rejected peers; trying again at every sync"
            );
        }
        if let Some(Line { count, examples }) = self.routes_missing.line(now) {
            warn!(name: "no-route",
                code = ROUTES_MISSING.code,
                count,
                %examples, "no route; trying again at every sync"
            );
        }
        if let Some(Line { count, examples }) = self.routes_kept.line(now) {
            warn!(name: "route-not-removed",
                code = ROUTES_NOT_REMOVED.code,
                count,
                %examples, "route not removed; trying again at every sync"
            );
        }
        if let Some(Line { count, examples }) = self.routes_made_after_all.line(now) {
            info!(name: "route-place-after-all", count, %examples, "route is in place after all");
        }
    }
}
