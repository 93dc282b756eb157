//! A change of credentials, in the database and then in memory, whatever becomes of who asked for it.
//!
//! Requests are judged by what is in memory. Were a change made last and then not taken in, somebody who was revoked would be
//! let in until the next change. So
//!
//! 1. what a change did is read before it is made last, on its own connection: nothing that can fail comes after that;
//! 2. both are done in a task that goes on when the client hangs up, or its deadline passes;
//! 3. what may be stored and is not known, as after a commit that nothing was heard of, is read until that succeeds, and
//!    everything once in a while besides.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::memory::{Credentials, Outdated};
use crate::copy::list::READ_DEADLINE;
use crate::registry::Registry;
use crate::store::{CredentialChange, StoreError};
use crate::write::batch::{BATCH_DEADLINE, within};

/// How often it is read whether anything changed, although nobody has a doubt.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Between attempts to read, at first and at most. They go on for as long as the process: nobody waits for them.
const RETRY_INTERVALS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Has credentials read, unless what was to be known is by the end.
struct Doubt<'a>(Option<&'a Credentials>);

impl Doubt<'_> {
    fn settle(mut self) {
        self.0 = None;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(credentials) = self.0 {
            credentials.doubt();
        }
    }
}

impl Registry {
    /// Makes a change last, and has it in memory: both, also if whoever waits for this hangs up.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: as far as is known, nothing has changed. See [`CredentialChange::finish`].
    pub(crate) async fn finish_credentials(
        &self,
        change: CredentialChange,
    ) -> Result<(), Arc<StoreError>> {
        let Some(registry) = self.itself.upgrade() else {
            // It is being dropped, and nobody is judged by it any more.
            return self.commit_credentials(change).await.map_err(Arc::new);
        };
        let task = async move { registry.commit_credentials(change).await };
        match self.changes.spawn(task).await {
            Ok(committed) => committed.map_err(Arc::new),
            // The runtime ends, or there was a panic, of which the log tells.
            Err(_) => Err(Arc::new(StoreError::Queued(BATCH_DEADLINE))),
        }
    }

    async fn commit_credentials(&self, change: CredentialChange) -> Result<(), StoreError> {
        within(BATCH_DEADLINE, self.commit_and_take_in(change)).await
    }

    async fn commit_and_take_in(&self, mut change: CredentialChange) -> Result<(), StoreError> {
        let known = self.credentials.known();
        let changes = change.changes_with_it(known.revision).await?;
        // From here on it may be stored.
        let doubt = Doubt(Some(&self.credentials));
        change.finish().await?;
        match changes.map(|changes| self.take_in_credentials(known, changes)) {
            None | Some(Ok(())) => doubt.settle(),
            // What was read meanwhile may be from before this change, and need not tell of what it removed.
            Some(Err(Outdated)) => self.credentials.read_anew(),
        }
        Ok(())
    }

    /// Reads what is stored of credentials whenever it may not be known, until that succeeds, and once in a while; until
    /// `stop`.
    pub async fn keep_credentials_known(self: Arc<Self>, stop: CancellationToken) {
        let (first, longest) = RETRY_INTERVALS;
        let intervals = ExponentialBuilder::default()
            .with_min_delay(first)
            .with_max_delay(longest)
            .with_jitter()
            .without_max_times();
        let mut retries = None;
        loop {
            let retry = retries.as_mut().and_then(Iterator::next);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.credentials.doubted(), if retry.is_none() => {}
                () = tokio::time::sleep(retry.unwrap_or(LOOK_INTERVAL)) => {}
            }
            let read = async { self.read_credentials().await.map_err(StoreError::Shared) };
            match within(READ_DEADLINE, read).await {
                Ok(()) if retries.take().is_some() => {
                    info!(name: "credentials-can-read-again", "credentials can be read again")
                }
                Ok(()) => {}
                Err(error) if retries.is_none() => {
                    retries = Some(intervals.build());
                    warn!(name: "credentials-cannot-read", %error, "credentials cannot be read; requests are judged by what is known of them");
                }
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
