//! Waiting for a condition, never for luck.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

const PAUSE: Duration = Duration::from_millis(20);

/// The least time that one look of [`wait_until`] gets.
const LOOK: Duration = Duration::from_secs(5);

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

/// Looks until `look` returns `Ok`; its `Err` says what was seen instead. A look that does not
/// end is over with the time; one that begins in time gets a few seconds at least.
///
/// # Errors
///
/// [`Error::Deadline`] with what was seen last.
pub async fn wait_until<T, E, F, Fut>(what: &str, within: Duration, look: F) -> Result<T>
where
    E: std::fmt::Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = std::result::Result<T, E>>,
{
    look_until(what, within, LOOK, look).await
}

async fn look_until<T, E, F, Fut>(
    what: &str,
    within: Duration,
    at_least: Duration,
    mut look: F,
) -> Result<T>
where
    E: std::fmt::Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = std::result::Result<T, E>>,
{
    let deadline = Deadline::after(within);
    let mut seen = "nothing yet".to_owned();
    loop {
        match tokio::time::timeout(deadline.remaining().max(at_least), look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(other)) => seen = other.to_string(),
            Err(_) => {
                let state = format!("a look did not end; before, {seen}");
                return Err(deadline.missed(what, state));
            }
        }
        if deadline.pause().await.is_err() {
            return Err(deadline.missed(what, seen));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_does_not_end_ends_the_wait_with_what_was_seen_before() {
        let mut looks = 0;
        let within = Duration::from_millis(200);
        let waited = look_until("a sign", within, Duration::ZERO, || {
            looks += 1;
            let first = looks == 1;
            async move {
                match first {
                    true => Err::<(), _>("dust"),
                    false => std::future::pending().await,
                }
            }
        });
        let error = waited.await.unwrap_err().to_string();
        assert!(error.contains("a sign"), "{error}");
        assert!(
            error.contains("a look did not end; before, dust"),
            "{error}"
        );
    }
}
