//! Whether nodes that are silent are likelier alive than dead: because so many fell silent at once.
//!
//! A switch that restarts, a firewall's new rule or a control plane that cannot be reached for a while takes the
//! heartbeats of many nodes away at the same moment, and none of the nodes. So when at least ten nodes are silent, and
//! at least half of all that are up fell silent within five seconds, they are held for one more timeout.

use std::time::{Duration, Instant};

/// As few may well have failed together.
const FEWEST: usize = 10;

/// Heartbeats that ended within this much of each other ended together; less where the timeout is short.
const AT_ONCE: Duration = Duration::from_secs(5);

/// How long before its deadline a node counts as silent. Agents beat three times within a timeout, so that a node whose
/// deadline is nearer than a third of it has missed two heartbeats.
pub fn notice(timeout: Duration) -> Duration {
    timeout / 3
}

/// Whether so many nodes fell silent at once: `deadlines` are those of the silent ones, in any order; `up` is how
/// many nodes are up, these among them.
///
/// Where all fell silent at the same moment their deadlines spread over the time between two heartbeats, ten seconds:
/// some five of these have half of them.
pub fn is_of_many(mut deadlines: Vec<Instant>, up: usize, timeout: Duration) -> bool {
    if deadlines.len() < FEWEST {
        return false;
    }
    let half = up.div_ceil(2);
    deadlines.sort_unstable();
    let at_once = AT_ONCE.min(timeout / 6);
    deadlines
        .windows(half.max(1))
        .any(|together| match (together.first(), together.last()) {
            (Some(first), Some(last)) => last.duration_since(*first) <= at_once,
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn deadlines(start: Instant, milliseconds: &[u64]) -> Vec<Instant> {
        let at = |ms: &u64| start + Duration::from_millis(*ms);
        milliseconds.iter().map(at).collect()
    }

    #[test]
    fn fewer_than_ten_or_less_than_half_are_not_many() {
        let start = Instant::now();
        let silent = |count| deadlines(start, &vec![0; count]);
        assert!(is_of_many(silent(10), 10, TIMEOUT));
        assert!(is_of_many(silent(10), 20, TIMEOUT));
        assert!(!is_of_many(silent(10), 21, TIMEOUT));
        assert!(is_of_many(silent(11), 21, TIMEOUT));
        assert!(!is_of_many(silent(9), 9, TIMEOUT));
        assert!(!is_of_many(silent(0), 0, TIMEOUT));
    }

    #[test]
    fn those_that_fell_silent_one_after_another_are_not_many_at_once() {
        let start = Instant::now();
        let each_second: Vec<u64> = (0..60).map(|n| n * 1000).collect();
        assert!(!is_of_many(deadlines(start, &each_second), 60, TIMEOUT));
        let within: Vec<u64> = (0..10).map(|n| n * 5000 / 9).collect();
        assert!(is_of_many(deadlines(start, &within), 20, TIMEOUT));
        let beyond: Vec<u64> = (0..10).map(|n| n * 5010 / 9).collect();
        assert!(!is_of_many(deadlines(start, &beyond), 20, TIMEOUT));
        let of_a_short_timeout = Duration::from_secs(6);
        assert!(!is_of_many(
            deadlines(start, &within),
            20,
            of_a_short_timeout
        ));
    }

    proptest! {
        /// Whenever in its interval each node beat last before all of them were cut off.
        #[test]
        fn all_that_are_cut_off_at_one_moment_are_many_at_once(
            phases in prop::collection::vec(0_u64..10_000, 10..200),
        ) {
            let start = Instant::now();
            let up = phases.len();
            prop_assert!(is_of_many(deadlines(start, &phases), up, TIMEOUT));
        }
    }
}
