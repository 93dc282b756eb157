//! What our tables' counters say of others' rules. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::desired::firewall::{MASQUERADED, Passage};

/// How long something is spoken of that is not seen any more.
const RECENT: Duration = Duration::from_secs(120);

/// So many packets in a row that do not pass are no accident.
const SOME: u64 = 5;

/// Readings of the counters, by name, in packets. They begin anew when the tables are written.
pub(crate) type Reading = BTreeMap<String, u64>;

/// What was seen lately.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    last: Reading,
    masqueraded: Option<Instant>,
    passages: BTreeMap<Passage, Passed>,
}

#[derive(Debug, Default)]
struct Passed {
    /// Packets that have entered since one passed.
    stuck: u64,
    /// When one entered that did not pass.
    seen: Option<Instant>,
}

impl Counters {
    /// Takes a reading.
    pub(crate) fn note(&mut self, reading: Reading, now: Instant) {
        let more = |name: &str| {
            let packets = reading.get(name).copied().unwrap_or_default();
            let before = self.last.get(name).copied().unwrap_or_default();
            // Fewer than before: it began anew.
            packets.checked_sub(before).unwrap_or(packets)
        };
        if more(MASQUERADED) > 0 {
            self.masqueraded = Some(now);
        }
        for passage in Passage::ALL {
            let (entered, passed) = (more(&passage.entered()), more(&passage.passed()));
            let state = self.passages.entry(passage).or_default();
            if passed > 0 {
                *state = Passed::default();
            } else if entered > 0 {
                state.stuck += entered;
                state.seen = Some(now);
            }
        }
        self.last = reading;
    }

    /// Whether somebody masquerades inside the mesh.
    pub(crate) fn masqueraded(&self, now: Instant) -> bool {
        is_recent(self.masqueraded, now)
    }

    /// Where nothing passes of what has entered.
    pub(crate) fn blocked(&self, now: Instant) -> Vec<Passage> {
        let blocked = self
            .passages
            .iter()
            .filter(|(_, state)| state.stuck >= SOME && is_recent(state.seen, now));
        blocked.map(|(passage, _)| *passage).collect()
    }
}

fn is_recent(seen: Option<Instant>, now: Instant) -> bool {
    seen.is_some_and(|seen| now.saturating_duration_since(seen) < RECENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(counts: &[(String, u64)]) -> Reading {
        counts.iter().cloned().collect()
    }

    #[test]
    fn what_is_masqueraded_is_spoken_of_for_a_while_and_then_no_more() {
        let start = Instant::now();
        let mut counters = Counters::default();
        let counted = |packets| reading(&[(MASQUERADED.to_owned(), packets)]);
        counters.note(counted(0), start);
        assert!(!counters.masqueraded(start));
        counters.note(counted(3), start);
        assert!(counters.masqueraded(start));
        let later = start + RECENT;
        counters.note(counted(3), later);
        assert!(!counters.masqueraded(later), "nothing new was counted");
        // The tables were written anew, and it goes on.
        counters.note(counted(1), later);
        assert!(counters.masqueraded(later));
    }

    #[test]
    fn a_way_is_blocked_once_some_have_entered_and_none_has_passed() {
        let now = Instant::now();
        let mut counters = Counters::default();
        let way = Passage::ToNodes;
        let counted =
            |entered, passed| reading(&[(way.entered(), entered), (way.passed(), passed)]);
        counters.note(counted(10, 10), now);
        assert_eq!(counters.blocked(now), []);
        counters.note(counted(10 + SOME - 1, 10), now);
        assert_eq!(counters.blocked(now), [], "it may be an accident");
        counters.note(counted(10 + SOME, 10), now);
        assert_eq!(counters.blocked(now), [way]);
        assert_eq!(counters.blocked(now + RECENT), []);
        // A filter that lets some through is meant.
        counters.note(counted(100, 11), now);
        assert_eq!(counters.blocked(now), []);
    }
}
