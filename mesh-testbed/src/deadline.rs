//! Waiting for a condition, never for luck.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

const PAUSE: Duration = Duration::from_millis(20);

/// A point in time after which waiting is an error.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    started: Instant,
    within: Duration,
}

/// The deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("time is up")]
pub struct TimeUp;

impl Deadline {
    /// The deadline `within` from now.
    pub fn after(within: Duration) -> Self {
        Self {
            started: Instant::now(),
            within,
        }
    }

    /// What is left, zero once it has passed.
    pub fn remaining(&self) -> Duration {
        self.within.saturating_sub(self.started.elapsed())
    }

    /// Sleeps a little before the next look.
    ///
    /// # Errors
    ///
    /// [`TimeUp`] once the deadline has passed.
    pub async fn pause(&self) -> Result<(), TimeUp> {
        match self.remaining() {
            Duration::ZERO => Err(TimeUp),
            remaining => {
                tokio::time::sleep(PAUSE.min(remaining)).await;
                Ok(())
            }
        }
    }

    pub(crate) fn missed(&self, what: impl Into<String>, state: impl Into<String>) -> Error {
        Error::Deadline {
            what: what.into(),
            waited: self.within,
            state: state.into(),
        }
    }
}

/// Looks until `look` returns `Ok`; its `Err` says what was seen instead.
///
/// # Errors
///
/// [`Error::Deadline`] with what was seen last.
pub async fn wait_until<T, E, F, Fut>(what: &str, within: Duration, mut look: F) -> Result<T>
where
    E: std::fmt::Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = std::result::Result<T, E>>,
{
    let deadline = Deadline::after(within);
    loop {
        let seen = match look().await {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if deadline.pause().await.is_err() {
            return Err(deadline.missed(what, seen.to_string()));
        }
    }
}
