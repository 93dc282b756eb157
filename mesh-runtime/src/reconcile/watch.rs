//! Watches the fast path's maps and links, of whose changes nobody tells.

use std::time::Duration;

use tokio::time::Instant;

use super::{Reconciler, fast_path::FastPathSlot};
use crate::{ebpf::WatchTurn, observed::events::Dirty};

/// How often a share of the maps and links is looked at: damage is to be repaired within 100 ms.
const LOOK: Duration = Duration::from_millis(50);

/// How often while rounds do not cure what looks find.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks in a row that find damage before it is taken for the work of somebody who will not
/// stop.
const ATTEMPTS: u32 = 10;

/// When maps and links are looked at next, and where.
#[derive(Debug)]
pub(super) struct Watch {
    at: Instant,
    turn: WatchTurn,
    /// How many looks in a row have found damage.
    damaged: u32,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            turn: WatchTurn::default(),
            damaged: 0,
        }
    }
}

impl Reconciler {
    /// When the next look is due; `None` while the fast path shows nothing.
    pub(super) fn look_at_maps(&self) -> Option<Instant> {
        match &self.fast_path {
            FastPathSlot::Open(open) if open.shown.is_some() => Some(self.watch.at),
            _ => None,
        }
    }

    /// Takes a look, and repairs what it finds.
    pub(super) async fn watch_maps(&mut self) {
        let damaged = self.find_damage();
        self.watch.damaged = if damaged { self.watch.damaged + 1 } else { 0 };
        if damaged {
            self.round(Dirty::default()).await;
        }
        let hopeless = self.watch.damaged >= ATTEMPTS;
        self.watch.at = Instant::now() + if hopeless { PATIENCE } else { LOOK };
    }

    fn find_damage(&mut self) -> bool {
        let FastPathSlot::Open(open) = &mut self.fast_path else {
            return false;
        };
        match open.fast_path.restore_pins(&mut self.watch.turn) {
            Ok(0) => {}
            Ok(pins) => {
                tracing::info!(pins, "somebody removed pins of maps or links: made again");
                return true;
            }
            Err(error) if self.watch.damaged == 0 => {
                tracing::warn!(%error, "cannot make the pins of maps and links again");
            }
            Err(_) => {}
        }
        if !open.fast_path.links_hold(&mut self.watch.turn) {
            tracing::info!("somebody detached programs: attaching them anew");
            self.look_at_programs = true;
            return true;
        }
        // What was refused is tried again at its own pace.
        let Some(shown) = open.shown.as_ref().filter(|_| open.unwritten.is_none()) else {
            return false;
        };
        match open.fast_path.maps_show(shown, &mut self.watch.turn) {
            Ok(true) => false,
            Ok(false) => {
                tracing::info!("somebody changed the fast path's maps: writing them anew");
                true
            }
            // The round says what is wrong.
            Err(_) => true,
        }
    }
}
