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

/// Sources that are remembered, with some hundred bytes for each of their lines.
const MOST_SOURCES: usize = 4096;

/// How often something of a source is spoken of.
const BETWEEN_WORDS: Duration = Duration::from_secs(60);

/// What differs by who or by the kind of call is spoken of by itself, up to so many for each source; the rest is one
/// sum.
const MOST_LINES: usize = 6;

/// What stands for whoever is in the sum, and for what they asked.
const SEVERAL: &str = "several";

/// What to do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Say why.
    Tell,
    /// Say to wait.
    SlowDown {
        /// How long.
        retry_after: Duration,
    },
}

/// What is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusing {
    /// To whom, as far as it is known.
    pub who: String,
    /// The kind of call, of which there are few.
    pub call: String,
    /// Why, in a word; what is counted together may differ in it.
    pub why: String,
}

/// What to log, and to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// What was refused.
    pub refused: Refusing,
    /// How often since the last word of it.
    pub times: u64,
}

/// Refusals that are spoken of together.
#[derive(Debug)]
struct Line {
    refused: Refusing,
    spoken: Instant,
    since: u64,
}

impl Line {
    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.spoken) >= BETWEEN_WORDS
    }

    /// What there is to say of it, if it is time.
    fn word(&mut self, now: Instant) -> Option<Word> {
        if self.since == 0 || !self.is_due(now) {
            return None;
        }
        self.spoken = now;
        Some(Word {
            refused: self.refused.clone(),
            times: std::mem::take(&mut self.since),
        })
    }
}

#[derive(Debug)]
struct Entry {
    debt: Debt,
    lines: Vec<Line>,
}

impl Entry {
    /// Counts a refusal. A line that is new is due at once.
    fn count(&mut self, refused: Refusing, now: Instant) {
        let several = || Refusing {
            who: SEVERAL.to_owned(),
            call: SEVERAL.to_owned(),
            why: SEVERAL.to_owned(),
        };
        let place = |lines: &[Line], refused: &Refusing| {
            let is_it = |line: &Line| {
                (&line.refused.who, &line.refused.call) == (&refused.who, &refused.call)
            };
            lines.iter().position(is_it)
        };
        let mut refused = refused;
        let mut at = place(&self.lines, &refused);
        if at.is_none() && self.lines.len() >= MOST_LINES {
            // One of which there was nothing to say for so long makes room.
            self.lines
                .retain(|line| line.since > 0 || !line.is_due(now));
        }
        if at.is_none() && self.lines.len() >= MOST_LINES {
            refused = several();
            at = place(&self.lines, &refused);
        }
        if let Some(line) = at.and_then(|at| self.lines.get_mut(at)) {
            if line.since == 0 {
                line.refused.why = refused.why;
            } else if line.refused.why != refused.why {
                SEVERAL.clone_into(&mut line.refused.why);
            }
            line.since += 1;
            return;
        }
        self.lines.push(Line {
            refused,
            spoken: now.checked_sub(BETWEEN_WORDS).unwrap_or(now),
            since: 1,
        });
    }

    /// What there is to say now.
    fn words(&mut self, now: Instant) -> Vec<Word> {
        self.lines
            .iter_mut()
            .filter_map(|line| line.word(now))
            .collect()
    }
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

    fn refuse(&mut self, source: Source, refused: Refusing, now: Instant) -> (Verdict, Vec<Word>) {
        if !self.sources.contains_key(&source) {
            // Where too many are refused, nobody new is remembered.
            if let Err(retry_after) = self.all.take(ALL, now) {
                return (Verdict::SlowDown { retry_after }, Vec::new());
            }
            self.make_room(now);
            let mut debt = Debt::none(now);
            let _ = debt.take(EACH, now);
            let mut entry = Entry {
                debt,
                lines: Vec::new(),
            };
            entry.count(refused, now);
            let words = entry.words(now);
            self.sources.insert(source, entry);
            return (Verdict::Tell, words);
        }
        let Some(entry) = self.sources.get_mut(&source) else {
            return (Verdict::Tell, Vec::new());
        };
        entry.count(refused, now);
        let mut debt = entry.debt;
        let taken = debt.take(EACH, now).and_then(|()| self.all.take(ALL, now));
        if let Err(retry_after) = taken {
            return (Verdict::SlowDown { retry_after }, Vec::new());
        }
        entry.debt = debt;
        (Verdict::Tell, entry.words(now))
    }

    /// Forgets those that owe nothing and were spoken of long ago, and, if that is not enough, the one that owes least.
    fn make_room(&mut self, now: Instant) {
        if self.sources.len() < MOST_SOURCES {
            return;
        }
        self.sources.retain(|_, entry| {
            let is_spoken_of = entry.lines.iter().any(|line| !line.is_due(now));
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
    /// Something is refused to a source now: what to do about it, and what to log.
    pub fn refuse(&self, source: Source, refused: Refusing) -> (Verdict, Vec<Word>) {
        // A panic leaves each entry as it was before or after.
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.refuse(source, refused, Instant::now())
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

    fn refusing(who: u32) -> Refusing {
        Refusing {
            who: format!("operator {who}"),
            call: "POST /api/tokens".to_owned(),
            why: "forbidden".to_owned(),
        }
    }

    fn is_told((verdict, _): (Verdict, Vec<Word>)) -> bool {
        verdict == Verdict::Tell
    }

    proptest! {
        /// Of any refusals, a source is told of no more than a burst and what time allows; each who is spoken of once a
        /// minute, and every refusal is in one word or the next.
        #[test]
        fn a_source_is_told_of_no_more_than_a_burst_and_what_time_allows(
            pauses in prop::collection::vec((0u64..3000, 0u32..3, 0u32..9), 1..400)
        ) {
            let start = Instant::now();
            let mut table = Table::new(start);
            let mut now = start;
            let mut told: HashMap<u32, Vec<Instant>> = HashMap::new();
            let mut words: HashMap<(u32, String), Vec<Instant>> = HashMap::new();
            let mut counted: HashMap<u32, (u64, u64)> = HashMap::new();
            for (pause, from, who) in pauses {
                now += Duration::from_millis(pause);
                let (verdict, said) = table.refuse(source(from), refusing(who), now);
                let (all, said_of) = counted.entry(from).or_default();
                *all += 1;
                for word in said {
                    words.entry((from, word.refused.who)).or_default().push(now);
                    *said_of += word.times;
                }
                let lines = &table.sources[&source(from)].lines;
                prop_assert!(lines.len() <= MOST_LINES + 1);
                let waiting: u64 = lines.iter().map(|line| line.since).sum();
                prop_assert_eq!(*all, *said_of + waiting);
                match verdict {
                    Verdict::Tell => told.entry(from).or_default().push(now),
                    Verdict::SlowDown { retry_after } => {
                        // After that time there is an answer again.
                        let mut later = table.sources[&source(from)].debt;
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
            let verdict = table.refuse(source(1), refusing(1), now);
            assert_eq!(is_told(verdict), number < EACH.burst, "{number}");
        }
        assert!(is_told(table.refuse(source(2), refusing(1), now)));
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
            told += u32::from(is_told(table.refuse(source(number), refusing(1), now)));
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
            if let (Verdict::SlowDown { retry_after }, _) =
                table.refuse(source(1), refusing(1), now)
            {
                break retry_after;
            }
        };
        assert!(!is_told(table.refuse(
            source(1),
            refusing(1),
            now + retry_after - Duration::from_millis(1)
        )));
        assert!(is_told(table.refuse(
            source(1),
            refusing(1),
            now + retry_after
        )));
    }
    #[test]
    fn what_differs_is_spoken_of_by_itself_until_it_is_too_much() {
        let now = Instant::now();
        let mut table = Table::new(now);
        let mut of = |who, now| table.refuse(source(1), refusing(who), now).1;
        let word = |who: u32, times| Word {
            refused: refusing(who),
            times,
        };
        assert_eq!(of(0, now), [word(0, 1)]);
        assert_eq!(of(1, now), [word(1, 1)]);
        assert_eq!(of(0, now), []);
        assert_eq!(of(0, now), []);
        // What is left to say of one is said when another of its source asks.
        let later = now + BETWEEN_WORDS;
        assert_eq!(of(1, later), [word(0, 2), word(1, 1)]);
        let many: Vec<Word> = (2..20).flat_map(|who| of(who, later)).collect();
        assert_eq!(many.len(), MOST_LINES - 2 + 1, "{many:?}");
        assert_eq!(many[MOST_LINES - 2].refused.who, SEVERAL);
        let rest = of(99, later + BETWEEN_WORDS);
        let times: u64 = rest.iter().map(|word| word.times).sum();
        assert_eq!(
            times,
            20 - u64::try_from(MOST_LINES).unwrap() - 1 + 1,
            "{rest:?}"
        );
    }
}
