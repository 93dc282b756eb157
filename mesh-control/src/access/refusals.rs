//! Failures slow down whoever causes them: each refusal costs its source, and beyond a burst it is told to wait, without
//! work, without a word in the log. What is valid never passes here.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::origin::Source;
use super::rate::{Debt, Rate};

/// To one source: a whole cluster that restarts with certificates that have expired stands behind its addresses, and
/// each host asks on each of its connections once or twice.
const EACH: Rate = Rate {
    burst: 30,
    interval: Duration::from_secs(2),
};

/// In all.
const ALL: Rate = Rate {
    burst: 1000,
    interval: Duration::from_millis(10),
};

/// Sources that are remembered, some hundred bytes each.
const MOST_SOURCES: usize = 4096;

/// How often a source is spoken of.
const BETWEEN_WORDS: Duration = Duration::from_secs(60);

/// What to do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Say why.
    Tell {
        /// Whether to log it, and how many more there were of this source since the last word.
        word: Option<u64>,
    },
    /// Say to wait.
    SlowDown {
        /// How long.
        retry_after: Duration,
    },
}

#[derive(Debug)]
struct Entry {
    debt: Debt,
    spoken: Option<Instant>,
    since: u64,
}

/// What was refused lately, and to whom.
#[derive(Debug)]
struct Table {
    all: Debt,
    sources: HashMap<Source, Entry>,
}

impl Table {
    fn new(now: Instant) -> Self {
        Self {
            all: Debt::none(now),
            sources: HashMap::new(),
        }
    }

    fn refuse(&mut self, source: Source, now: Instant) -> Verdict {
        if !self.sources.contains_key(&source) {
            // Where too many are refused, nobody new is remembered.
            if let Err(retry_after) = self.all.take(ALL, now) {
                return Verdict::SlowDown { retry_after };
            }
            self.make_room(now);
            let mut debt = Debt::none(now);
            let _ = debt.take(EACH, now);
            let entry = Entry {
                debt,
                spoken: Some(now),
                since: 0,
            };
            self.sources.insert(source, entry);
            return Verdict::Tell { word: Some(0) };
        }
        let Some(entry) = self.sources.get_mut(&source) else {
            return Verdict::Tell { word: None };
        };
        let mut debt = entry.debt;
        let taken = debt.take(EACH, now).and_then(|()| self.all.take(ALL, now));
        if let Err(retry_after) = taken {
            entry.since += 1;
            return Verdict::SlowDown { retry_after };
        }
        entry.debt = debt;
        let is_due = entry
            .spoken
            .is_none_or(|spoken| now.saturating_duration_since(spoken) >= BETWEEN_WORDS);
        if !is_due {
            entry.since += 1;
            return Verdict::Tell { word: None };
        }
        entry.spoken = Some(now);
        let word = std::mem::take(&mut entry.since);
        Verdict::Tell { word: Some(word) }
    }

    /// Forgets those that owe nothing and were spoken of long ago, and, if that is not enough, the one that owes least.
    fn make_room(&mut self, now: Instant) {
        if self.sources.len() < MOST_SOURCES {
            return;
        }
        self.sources.retain(|_, entry| {
            let is_spoken_of = entry
                .spoken
                .is_some_and(|spoken| now.saturating_duration_since(spoken) < BETWEEN_WORDS);
            !entry.debt.is_paid(now) || is_spoken_of
        });
        if self.sources.len() < MOST_SOURCES {
            return;
        }
        let least = self.sources.iter().min_by_key(|(_, entry)| entry.debt);
        if let Some(least) = least.map(|(source, _)| *source) {
            self.sources.remove(&least);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Refusals(Mutex<Table>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Mutex::new(Table::new(Instant::now())))
    }
}

impl Refusals {
    /// Something is refused to a source now.
    pub fn refuse(&self, source: Source) -> Verdict {
        // A panic leaves each entry as it was before or after.
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.refuse(source, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn source(number: u32) -> Source {
        Source::of(Ipv4Addr::from_bits(number).into())
    }

    fn is_told(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Tell { .. })
    }

    proptest! {
        /// Of any refusals, a source is told of no more than a burst and what time allows, and spoken of once a minute.
        #[test]
        fn a_source_is_told_of_no_more_than_a_burst_and_what_time_allows(
            pauses in prop::collection::vec((0u64..3000, 0u32..3), 1..400)
        ) {
            let start = Instant::now();
            let mut table = Table::new(start);
            let mut now = start;
            let mut told: HashMap<u32, Vec<Instant>> = HashMap::new();
            let mut words: HashMap<u32, Vec<Instant>> = HashMap::new();
            let mut counted: HashMap<u32, (u64, u64)> = HashMap::new();
            for (pause, who) in pauses {
                now += Duration::from_millis(pause);
                let verdict = table.refuse(source(who), now);
                let (all, said) = counted.entry(who).or_default();
                *all += 1;
                match verdict {
                    Verdict::Tell { word } => {
                        told.entry(who).or_default().push(now);
                        if let Some(more) = word {
                            words.entry(who).or_default().push(now);
                            // Every refusal is in one word or the next.
                            *said += more + 1;
                            prop_assert_eq!(said, all);
                        }
                    }
                    Verdict::SlowDown { retry_after } => {
                        // After that time there is an answer again.
                        let mut later = table.sources[&source(who)].debt;
                        prop_assert!(later.take(EACH, now + retry_after).is_ok());
                    }
                }
            }
            for times in told.values() {
                for (first, from) in times.iter().enumerate() {
                    for (last, until) in times.iter().enumerate().skip(first) {
                        let allowed = f64::from(EACH.burst) + (*until - *from).as_secs_f64() / EACH.interval.as_secs_f64();
                        let count = u32::try_from(last - first + 1).unwrap();
                        prop_assert!(f64::from(count) <= allowed + 0.001, "{count} > {allowed}");
                    }
                }
            }
            for times in words.values() {
                prop_assert!(times.windows(2).all(|two| two[1] - two[0] >= BETWEEN_WORDS));
            }
        }
    }

    #[test]
    fn whoever_was_refused_too_often_does_not_slow_others_down() {
        let now = Instant::now();
        let mut table = Table::new(now);
        for number in 0..100_000 {
            let verdict = table.refuse(source(1), now);
            assert_eq!(is_told(verdict), number < EACH.burst, "{number}");
        }
        assert!(is_told(table.refuse(source(2), now)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_told_in_all_as_well() {
        let mut now = Instant::now();
        let mut table = Table::new(now);
        let mut told = 0;
        for number in 0..50_000 {
            if number % 10 == 0 {
                now += Duration::from_millis(10);
            }
            told += u32::from(is_told(table.refuse(source(number), now)));
            assert!(table.sources.len() <= MOST_SOURCES);
        }
        // 50 s at the rate, and the burst before.
        assert!((5900..=6100).contains(&told), "{told}");
    }

    #[test]
    fn who_waits_as_long_as_told_is_answered() {
        let now = Instant::now();
        let mut table = Table::new(now);
        let retry_after = loop {
            if let Verdict::SlowDown { retry_after } = table.refuse(source(1), now) {
                break retry_after;
            }
        };
        assert!(!is_told(table.refuse(
            source(1),
            now + retry_after - Duration::from_millis(1)
        )));
        assert!(is_told(table.refuse(source(1), now + retry_after)));
    }
}
