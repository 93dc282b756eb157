//! How often and how fast calls are repeated.

use std::time::Duration;

use backon::ExponentialBuilder;

/// Repeats within one round (a heartbeat, a sync): after these the round is given up, and
/// the next one comes at its interval.
pub const RETRIES_PER_ROUND: usize = 2;

/// The pause before the first repetition; each further one doubles it, and jitter adds up
/// to as much again, so that a fleet that lost one control plane does not return in step.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts to register.
pub const LONGEST_REGISTER_PAUSE: Duration = Duration::from_secs(10);

/// The longest pause between two looks for the node's address: each costs a few system calls, and a question to the
/// resolver if the control plane has a name.
pub const LONGEST_FIND_PAUSE: Duration = Duration::from_secs(2);

/// Repetitions within a round: few, then over.
#[must_use]
pub fn within_a_round() -> ExponentialBuilder {
    times(RETRIES_PER_ROUND)
}

/// So many repetitions, soon after one another.
#[must_use]
pub fn times(repetitions: usize) -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(Duration::from_secs(1))
        .with_max_times(repetitions)
        .with_jitter()
}

/// The pause before a round that follows a failed one: half of the interval to all of it,
/// so that a fleet that lost one control plane spreads over the interval.
#[must_use]
pub fn next_round(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.5..1.0))
}

/// Repetitions of the registration: a node that is not registered is no part of the mesh,
/// so this ends only when the agent is told to stop.
#[must_use]
pub fn until_registered() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_REGISTER_PAUSE)
        .without_max_times()
        .with_jitter()
}

/// The longest pause between two attempts to have a certificate made anew, which is valid for days more.
pub const LONGEST_RENEWAL_PAUSE: Duration = Duration::from_secs(600);

/// Repetitions of the renewal of a certificate: each costs the control plane a signature.
#[must_use]
pub fn until_renewed() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(LONGEST_RENEWAL_PAUSE)
        .without_max_times()
        .with_jitter()
}

/// Looks for the node's address, without which there is nothing to register.
#[must_use]
pub fn until_found() -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_FIND_PAUSE)
        .without_max_times()
        .with_jitter()
}
