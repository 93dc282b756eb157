//! When to look into new containers again, where changes inside them are not heard.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

/// A container gets its address within milliseconds of its port, and has to be an endpoint
/// within 100 ms; what takes longer is found at a rarer look, and at the next comparison.
const DELAYS: [Duration; 7] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
    Duration::from_millis(320),
    Duration::from_millis(640),
];

/// The looks that are still to be taken.
#[derive(Debug, Default)]
pub(super) struct SilentContainers {
    silent: BTreeSet<u32>,
    taken: usize,
    next: Option<Instant>,
}

impl SilentContainers {
    /// Notes the ports behind which no address is seen, as of `now`.
    pub(super) fn seen(&mut self, silent: BTreeSet<u32>, now: Instant) {
        let new = !silent.is_subset(&self.silent);
        self.silent = silent;
        if new {
            self.taken = 0;
            self.next = Some(now + DELAYS[0]);
        } else if self.silent.is_empty() {
            self.next = None;
        }
    }

    /// Notes that a look is taken at `now`, whatever comes of it.
    pub(super) fn take(&mut self, now: Instant) {
        self.taken += 1;
        self.next = DELAYS.get(self.taken).map(|&delay| now + delay);
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_port_is_looked_at_again_and_again_until_it_has_an_address_or_was_given_time() {
        let mut silent = SilentContainers::default();
        let start = Instant::now();
        let mut now = start;
        silent.seen([7].into(), now);
        let mut looks = 0;
        while let Some(next) = silent.next() {
            now = next;
            silent.take(now);
            silent.seen([7].into(), now);
            looks += 1;
        }
        assert_eq!(looks, DELAYS.len());
        assert_eq!(now - start, DELAYS.iter().sum::<Duration>());

        silent.seen([7, 8].into(), now);
        assert_eq!(silent.next(), Some(now + DELAYS[0]), "another one");
        silent.seen([].into(), now);
        assert_eq!(silent.next(), None);
    }

    #[test]
    fn a_round_for_another_reason_takes_no_look_away() {
        let mut silent = SilentContainers::default();
        let now = Instant::now();
        silent.seen([7].into(), now);
        let due = silent.next();
        silent.seen([7].into(), now + Duration::from_millis(1));
        assert_eq!(silent.next(), due);
    }
}
