//! How often something may happen: some of it at once, and then one in a while.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// At once; at least one.
    pub(crate) burst: u32,
    /// Afterwards, one in each of these.
    pub(crate) interval: Duration,
}

/// When there may be as much as at the beginning again (the theoretical arrival time of ATM's generic cell rate
/// algorithm). The least is owed by who may have as much the soonest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Debt {
    over: Instant,
}

impl Debt {
    pub(crate) fn none(now: Instant) -> Self {
        Self { over: now }
    }

    /// Whether nothing is owed any more, so that it need not be remembered.
    pub(crate) fn is_paid(self, now: Instant) -> bool {
        self.over <= now
    }

    /// Adds one to it, unless it is too high: how long until it is not.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let most = rate.interval * rate.burst.saturating_sub(1);
        let debt = self.over.saturating_duration_since(now);
        if debt > most {
            return Err(debt - most);
        }
        self.over = now + debt + rate.interval;
        Ok(())
    }

    /// Takes away what was added last, as if it had not happened.
    pub(crate) fn give_back(&mut self, rate: Rate) {
        // No clock reaches back for ever; then nothing is owed that matters.
        self.over = self.over.checked_sub(rate.interval).unwrap_or(self.over);
    }
}
