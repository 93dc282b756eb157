//! When the next round may, and when it must, take place.

use std::{io, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use mesh_ticker::Ticker;
use tokio::time::{Instant, sleep_until};

/// How often what the kernel tells nobody is compared. Agents send all their peers every five seconds, and the comparison
/// comes along with that: this is a little later, so that both wake the process up once.
pub(super) const COMPARISON: Duration = Duration::from_millis(5050);

/// With peers that are sent this long after the last comparison comes another.
pub(super) const COMPARISON_WITH_PEERS: Duration = Duration::from_millis(2500);

/// After how many comparisons everything is compared, whatever the notifications said.
const FULL: u32 = 6;

/// Notifications within this time after a round wait for the next one: a container's set-up
/// causes dozens, and an endpoint has 100 ms to appear.
const QUIET: Duration = Duration::from_millis(10);

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// When rounds take place.
#[derive(Debug)]
pub(super) struct Schedule {
    quiet_until: Instant,
    retry: Option<(ExponentialBackoff, Instant)>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            quiet_until: Instant::now(),
            retry: None,
        }
    }
}

impl Schedule {
    /// Notes the end of a round; `failed` if what went wrong is worth another attempt.
    pub(super) fn round_done(&mut self, now: Instant, failed: bool) {
        self.quiet_until = now + QUIET;
        if !failed {
            self.retry = None;
            return;
        }
        // A round in between does not put off the attempt that is due.
        if let Some((_, at)) = &self.retry
            && *at > now
        {
            return;
        }
        let mut backoff = match self.retry.take() {
            Some((backoff, _)) => backoff,
            None => ExponentialBuilder::default()
                .with_min_delay(FIRST_RETRY)
                .with_max_delay(LAST_RETRY)
                .with_jitter()
                .without_max_times()
                .build(),
        };
        let delay = backoff.next().unwrap_or(LAST_RETRY);
        self.retry = Some((backoff, now + delay));
    }

    /// Before this, notifications wait.
    pub(super) fn quiet_until(&self) -> Instant {
        self.quiet_until
    }

    /// When the next attempt is due, after one that failed.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry.as_ref().map(|(_, at)| *at)
    }
}

/// The comparisons with the kernel that nothing has given cause for.
#[derive(Debug)]
pub(super) struct Comparisons {
    clock: Ticker,
    count: u32,
    /// `None` until there was one: peers that are sent bring it along at once, and from then on both go together.
    last: Option<Instant>,
}

impl Comparisons {
    /// The first is due one period from now on.
    pub(super) fn from_now() -> io::Result<Self> {
        Ok(Self {
            clock: Ticker::every(COMPARISON)?,
            count: 0,
            last: None,
        })
    }

    /// Waits until one is due. Cancel safe.
    pub(super) async fn due(&mut self) {
        self.clock.tick().await;
    }

    /// Whether one is to be made along with peers that were sent.
    pub(super) fn is_due_with_peers(&self, now: Instant) -> bool {
        self.last
            .is_none_or(|last| now.duration_since(last) >= COMPARISON_WITH_PEERS)
    }

    /// Whether the next is one of everything.
    pub(super) fn is_next_full(&self) -> bool {
        self.count % FULL == FULL - 1
    }

    /// One was made.
    pub(super) fn done(&mut self, now: Instant) {
        self.count = self.count.wrapping_add(1);
        self.last = Some(now);
        if let Err(error) = self.clock.restart() {
            tracing::debug!(name: "clock-steady-again", %error, "the clock goes on as it did");
        }
    }
}

/// Waits until a moment; for ever if there is none. What is due already takes no timer, which would wake the thread up
/// a millisecond later.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) if at <= Instant::now() => {}
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn peers_that_are_sent_bring_the_comparison_along_and_each_sixth_is_one_of_everything() {
        let mut comparisons = Comparisons::from_now().unwrap();
        let (mut full, mut now) = (Vec::new(), Instant::now());
        for count in 0..12 {
            assert_eq!(comparisons.is_due_with_peers(now), count == 0);
            // As often as an agent sends them: before the clock is due.
            now += Duration::from_secs(5);
            assert!(comparisons.is_due_with_peers(now));
            if comparisons.is_next_full() {
                full.push(count);
            }
            comparisons.done(now);
        }
        assert_eq!(full, [5, 11]);
    }

    #[test]
    fn attempts_grow_rarer_until_one_succeeds() {
        let mut schedule = Schedule::default();
        let mut now = Instant::now();
        let mut delay = Duration::ZERO;
        for _ in 0..12 {
            schedule.round_done(now, true);
            let due = schedule.retry_at().unwrap();
            delay = due - now;
            // Jitter adds up to as much again.
            assert!(delay <= LAST_RETRY * 2, "{delay:?}");
            now = due;
        }
        assert!(delay >= LAST_RETRY, "{delay:?}");
        schedule.round_done(now, false);
        assert_eq!(schedule.retry_at(), None);
    }

    #[test]
    fn a_round_for_another_reason_does_not_put_off_an_attempt() {
        let mut schedule = Schedule::default();
        let now = Instant::now();
        schedule.round_done(now, true);
        let due = schedule.retry_at();
        schedule.round_done(now + Duration::from_millis(1), true);
        assert_eq!(schedule.retry_at(), due);
    }
}
