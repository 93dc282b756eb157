//! Whether this process was running.
//!
//! A control plane that is stopped (SIGSTOP, a debugger), or whose machine is paused or asleep, hears nobody, and finds
//! every deadline passed when it goes on. What it missed says nothing about the nodes.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Shorter absences are a busy machine's: a heartbeat waits so long for its answer.
const SHORTEST: Duration = Duration::from_secs(1);

/// Watches how long a pause takes that was meant to be short.
#[derive(Debug, Default)]
pub(super) struct Presence {
    back_at: Option<Duration>,
}

impl Presence {
    /// Before a pause.
    pub(super) fn leaves_for(&mut self, pause: Duration) {
        self.back_at = since_boot().map(|now| now + pause);
    }

    /// After it: how much longer it took, if that is so much of the node timeout that heartbeats may have been lost.
    pub(super) fn was_absent_for(&self, timeout: Duration) -> Option<Duration> {
        let late = since_boot()?.checked_sub(self.back_at?)?;
        (late >= SHORTEST.max(timeout / 10)).then_some(late)
    }
}

/// The time that goes on while the machine sleeps, as the monotonic clock does not (clock_gettime(2)).
fn since_boot() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .ok()
        .map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_takes_as_long_as_it_was_meant_to_is_no_absence() {
        let mut presence = Presence::default();
        assert_eq!(presence.was_absent_for(Duration::from_secs(30)), None);
        presence.leaves_for(Duration::from_millis(1));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(presence.was_absent_for(Duration::from_secs(30)), None);
    }

    #[test]
    fn an_absence_is_long_in_relation_to_the_timeout() {
        let now = since_boot().unwrap();
        let gone = |seconds| Presence {
            back_at: now.checked_sub(Duration::from_secs(seconds)),
        };
        if now < Duration::from_secs(60) {
            return eprintln!("skipped: this machine has just been started");
        }
        let timeout = Duration::from_secs(30);
        assert_eq!(gone(2).was_absent_for(timeout), None);
        assert!(gone(40).was_absent_for(timeout).unwrap() >= Duration::from_secs(40));
        assert!(gone(2).was_absent_for(Duration::from_secs(3)).is_some());
    }
}
