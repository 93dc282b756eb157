//! What repeats is said once and counted.
//!
//! A line that was said is held back for a while, [`FIRST`] at first and longer each time that it has repeated, and
//! counted. At the end of that time it is said again, with the count. So nothing is lost but when each of them was.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// How long a line is held back when it was said for the first time.
const FIRST: Duration = Duration::from_secs(10);
/// The longest.
const LONGEST: Duration = Duration::from_secs(600);
/// So many different lines are remembered; when there are more, those that nothing was held back of are forgotten.
const REMEMBERED: usize = 512;

/// What was said lately, and what was held back since.
#[derive(Debug)]
pub(crate) struct Repeats<L> {
    said: HashMap<L, Said>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    /// Until when it is held back.
    until: Instant,
    period: Duration,
    held_back: u64,
    /// When it came last.
    last: Instant,
}

impl<L> Default for Repeats<L> {
    fn default() -> Self {
        Self {
            said: HashMap::new(),
        }
    }
}

impl<L: Clone + Eq + Hash> Repeats<L> {
    /// Whether a line is to be written now. It is counted otherwise.
    pub(crate) fn is_said(&mut self, line: &L, now: Instant) -> bool {
        if let Some(said) = self.said.get_mut(line)
            && (said.held_back > 0 || now < said.until)
        {
            // What is due is told by `due`, with this one.
            said.held_back = said.held_back.saturating_add(1);
            said.last = now;
            return false;
        }
        if self.said.len() >= REMEMBERED {
            self.said.retain(|_, said| said.held_back > 0);
        }
        // A flood of different lines, each of which repeats: they are told of as they come.
        if self.said.len() < REMEMBERED {
            let said = Said {
                until: now + FIRST,
                period: FIRST,
                held_back: 0,
                last: now,
            };
            self.said.insert(line.clone(), said);
        }
        true
    }

    /// What was held back and is to be said by now, and how often it was; what came last is last.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(L, u64)> {
        let mut due = Vec::new();
        self.said.retain(|line, said| {
            if now < said.until {
                return true;
            }
            if said.held_back == 0 {
                return false;
            }
            due.push((line.clone(), *said));
            let period = (said.period * 2).min(LONGEST);
            *said = Said {
                until: now + period,
                period,
                held_back: 0,
                last: said.last,
            };
            true
        });
        in_order(due)
    }

    /// When there is something to say next; `None` while nothing is held back.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let held_back = self.said.values().filter(|said| said.held_back > 0);
        held_back.map(|said| said.until).min()
    }

    /// All that is held back: nothing more will come.
    pub(crate) fn end(&mut self) -> Vec<(L, u64)> {
        let all = std::mem::take(&mut self.said).into_iter();
        in_order(all.filter(|(_, said)| said.held_back > 0).collect())
    }
}

/// What came last is last, as it is with what is not held back: of a state that changes to and fro that is how it is now.
fn in_order<L>(mut due: Vec<(L, Said)>) -> Vec<(L, u64)> {
    due.sort_by_key(|(_, said)| said.last);
    let counted = due.into_iter().map(|(line, said)| (line, said.held_back));
    counted.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_repeats_is_said_once_and_then_with_how_often_it_was() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        assert!(repeats.is_said(&"failed", start));
        assert_eq!(repeats.next_due(), None);
        for second in 1..=9 {
            assert!(!repeats.is_said(&"failed", start + second * SECOND));
        }
        assert!(repeats.is_said(&"another", start + 5 * SECOND));
        assert_eq!(repeats.next_due(), Some(start + FIRST));
        assert!(repeats.due(start + 9 * SECOND).is_empty());
        assert_eq!(repeats.due(start + FIRST), [("failed", 9)]);
        // It is held back for longer now.
        assert!(!repeats.is_said(&"failed", start + FIRST + 19 * SECOND));
        assert_eq!(repeats.due(start + FIRST + 19 * SECOND), []);
        assert_eq!(repeats.due(start + FIRST + 20 * SECOND), [("failed", 1)]);
    }

    #[test]
    fn what_comes_again_after_a_while_is_said_again() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        assert!(repeats.is_said(&"failed", start));
        assert!(repeats.is_said(&"failed", start + FIRST));
    }

    #[test]
    fn what_is_held_back_at_the_end_is_told() {
        let mut repeats = Repeats::default();
        let start = Instant::now();
        for _ in 0..3 {
            repeats.is_said(&"failed", start);
        }
        repeats.is_said(&"once", start);
        assert_eq!(repeats.end(), [("failed", 2)]);
        assert_eq!(repeats.end(), []);
    }

    proptest! {
        /// However lines come: each is said or counted, none of both, and what is remembered is bounded.
        #[test]
        fn no_line_is_lost(lines in prop::collection::vec((0u32..2000, 0u32..20), 0..3000)) {
            let mut repeats = Repeats::default();
            let mut now = Instant::now();
            let mut told = 0;
            for (line, seconds) in &lines {
                now += *seconds * SECOND / 4;
                told += repeats.due(now).into_iter().map(|(_, times)| times).sum::<u64>();
                told += u64::from(repeats.is_said(line, now));
                prop_assert!(repeats.said.len() <= REMEMBERED);
            }
            told += repeats.end().into_iter().map(|(_, times)| times).sum::<u64>();
            prop_assert_eq!(told, lines.len() as u64);
        }
    }
}
