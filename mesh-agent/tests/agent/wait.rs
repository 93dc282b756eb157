//! Waiting for conditions.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Far longer than anything here takes, even on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds; false if it did not in time.
pub(crate) fn holds(condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    condition()
}
