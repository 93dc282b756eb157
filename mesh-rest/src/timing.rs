//! How often nodes beat, and how long one may be silent.
//!
//! One setting, the control plane's node timeout; all else follows from it, and is told in the answer to a registration.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_timeout_of_30_s_is_a_heartbeat_each_10_s_and_one_each_15_s_at_least() {
        let timeout = Duration::from_secs(30);
        assert_eq!(heartbeat_interval(timeout), Duration::from_secs(10));
        assert_eq!(longest_heartbeat_interval(timeout), Duration::from_secs(15));
    }
}
