//! The generation number of a peer set.

use std::time::SystemTime;

/// Numbers the syncs of this agent, so that the runtime can refuse one that was delayed.
///
/// The count starts from the clock (Unix milliseconds), which puts a restarted agent above
/// its earlier life without keeping anything on disk: no agent syncs once a millisecond. If
/// the clock was stepped back in between, the runtime's refusal names the generation it
/// holds, and [`Generation::continue_above`] goes on from there.
#[derive(Debug)]
pub struct Generation {
    last: u64,
}

impl Generation {
    /// Starts from the system clock.
    #[must_use]
    pub fn from_clock() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self::above(u64::try_from(since_epoch.as_millis()).unwrap_or(0))
    }

    /// Starts above `last`.
    #[must_use]
    pub fn above(last: u64) -> Self {
        Self { last }
    }

    /// The generation of the last sync.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The generation of the next sync. At the end of the number range it stays there,
    /// which a runtime takes: only a *lower* generation is refused.
    pub fn advance(&mut self) -> u64 {
        self.last = self.last.saturating_add(1);
        self.last
    }

    /// Continues above `applied`, the generation that the runtime shows, if that is higher.
    /// Answers whether it was.
    pub fn continue_above(&mut self, applied: u64) -> bool {
        let higher = applied > self.last;
        self.last = self.last.max(applied);
        higher
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_generation_is_above_the_last_and_above_what_the_runtime_showed(
            start in 0..u64::MAX / 2,
            shown in proptest::collection::vec(0..u64::MAX / 2, 0..20),
        ) {
            let mut generation = Generation::above(start);
            let mut last = start;
            for applied in shown {
                let next = generation.advance();
                prop_assert!(next > last);
                prop_assert_eq!(generation.continue_above(applied), applied > next);
                last = next.max(applied);
            }
            prop_assert!(generation.advance() > last);
        }
    }

    #[test]
    fn the_end_of_the_number_range_does_not_overflow() {
        let mut generation = Generation::above(1);
        assert!(generation.continue_above(u64::MAX));
        assert_eq!(generation.advance(), u64::MAX);
        assert!(!generation.continue_above(u64::MAX));
    }
}
