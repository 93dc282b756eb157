//! How often nodes beat, how long one may be silent, and how often they are told of others.
//!
//! Of beats and silence there is one setting, the control plane's node timeout; all else follows from it, and is told in
//! the answer to a registration.

use std::ops::RangeInclusive;
use std::time::Duration;

/// So many heartbeats fit into the node timeout: two may be lost, and the third keeps the node up.
const BEATS: u32 = 3;

/// So many have to, or a single lost one takes a node down.
const FEWEST_BEATS: u32 = 2;

/// How often a node beats where one that is silent for `node_timeout` is down.
#[must_use]
pub fn heartbeat_interval(node_timeout: Duration) -> Duration {
    node_timeout / BEATS
}

/// The longest time between two heartbeats of a node that is let in.
#[must_use]
pub fn longest_heartbeat_interval(node_timeout: Duration) -> Duration {
    node_timeout / FEWEST_BEATS
}

/// The shortest time between two publications of what changed.
pub const BETWEEN_NEWS: Duration = Duration::from_millis(100);

/// What each who waits adds to it: about what its answer costs on one processor, so that a flood of changes leaves
/// processor time for registrations.
const FOR_EACH_WAITER: Duration = Duration::from_micros(50);

/// The time between two publications of what changed where so many wait for them.
#[must_use]
pub fn between_news(waiters: usize) -> Duration {
    let waiters = u32::try_from(waiters).unwrap_or(u32::MAX);
    BETWEEN_NEWS.saturating_add(FOR_EACH_WAITER.saturating_mul(waiters))
}

/// How long who was told news pauses before it asks again, chosen at random from this, in a cluster of so many nodes.
/// Sooner the question would be read before others have their news. Nothing is missed by it, and where one or two replicas
/// share the waiting nodes evenly nothing comes later: by then none has published anything else. Of several replicas one with
/// few waiting nodes may have, and is asked a moment later.
#[must_use]
pub fn pause_after_news(nodes: usize) -> RangeInclusive<Duration> {
    let interval = between_news(nodes);
    interval / 4..=interval / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_timeout_of_30_s_is_a_heartbeat_each_10_s_and_one_each_15_s_at_least() {
        let timeout = Duration::from_secs(30);
        assert_eq!(heartbeat_interval(timeout), Duration::from_secs(10));
        assert_eq!(longest_heartbeat_interval(timeout), Duration::from_secs(15));
    }

    #[test]
    fn no_pause_outlasts_what_two_replicas_leave_between_two_publications() {
        for nodes in [0, 1, 3, 255, 10_000, 65_535, usize::MAX] {
            let pause = pause_after_news(nodes);
            assert!(
                *pause.end() <= between_news(nodes / 2),
                "{nodes}: {pause:?}"
            );
            assert!(
                *pause.start() >= Duration::from_millis(25),
                "{nodes}: {pause:?}"
            );
        }
        assert_eq!(between_news(10_000), Duration::from_millis(600));
    }
}
