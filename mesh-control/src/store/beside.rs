//! How many connections are taken at a time by what is only looked at, so that some are left for changes, and for what
//! everybody is told of them: there are as many as [`super::open`] and [`super::server`] say, four.
//!
//! Who looks waits in turn, for as long as the deadline of the request lets it.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Connections for what operators look at.
const LOOKING: usize = 2;

/// Connections for reports of traffic, of which an answer reads many, one after another.
const REPORTING: usize = 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Beside {
    looking: Semaphore,
    reporting: Semaphore,
}

impl Default for Beside {
    fn default() -> Self {
        Self {
            looking: Semaphore::new(LOOKING),
            reporting: Semaphore::new(REPORTING),
        }
    }
}

impl Beside {
    /// The turn to look at something. (Nobody closes the semaphore.)
    pub(super) async fn look(&self) -> Option<SemaphorePermit<'_>> {
        self.looking.acquire().await.ok()
    }

    /// The turn to read reports.
    pub(super) async fn report(&self) -> Option<SemaphorePermit<'_>> {
        self.reporting.acquire().await.ok()
    }
}
