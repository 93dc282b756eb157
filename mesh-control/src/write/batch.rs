//! Changes, made one batch at a time.
//!
//! Every change needs the database's lock, and an fsync before it is acknowledged. What arrives while a
//! batch is written makes the next one: with thousands at once, each costs its statements only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::command::{Ask, Command};
use super::liveness_loops::WRITE_BATCH;
use crate::access::mandate::Mandate;
use crate::registry::{ChangeError, Registry};
use crate::store::{Change, StoreError};

/// How many changes can wait. More clients than that wait with the deadline of their request.
pub(crate) const LONGEST_QUEUE: usize = 16 * 1024;

/// How many changes share a transaction. Nodes' statuses are written, and lists read, in between.
const MOST_IN_BATCH: usize = 256;

/// A transaction takes up no further change after so long, however few it has: on a machine that is so busy that
/// all of them would take longer than [`BATCH_DEADLINE`], some are made, rather than all given up.
const LONGEST_BATCH: Duration = Duration::from_secs(1);

/// How long a change waits for those before it. Shorter than the deadline of the request that waits
/// for it: what its client has given up on, and may be trying elsewhere, is not begun.
const QUEUE_DEADLINE: Duration = Duration::from_secs(12);

/// How long a batch may take: longer than every deadline in the database, for when a server is
/// gone without a word.
pub(crate) const BATCH_DEADLINE: Duration = Duration::from_secs(11);

/// The queue's end that takes.
pub(crate) type Queue = mpsc::Receiver<Command>;

impl Registry {
    /// Has a change made for somebody of this mandate, and waits until it is stored. It is made also if its client hangs
    /// up.
    pub(super) async fn ask<Q, A>(
        &self,
        command: impl FnOnce(Ask<Q, A>) -> Command,
        question: Q,
        mandate: &Mandate,
    ) -> Result<A, ChangeError> {
        let (ask, answered) = Ask::new(question, mandate.clone());
        let sent = tokio::time::timeout(QUEUE_DEADLINE, self.queue.send(command(ask)));
        match sent.await {
            Ok(Ok(())) => answered.await.map_err(|_| ChangeError::Stopping)?,
            Ok(Err(_)) => Err(ChangeError::Stopping),
            Err(_) => Err(ChangeError::Store(Arc::new(StoreError::Queued(
                QUEUE_DEADLINE,
            )))),
        }
    }

    /// Makes the changes that are asked for, until `stop`; those that wait by then are made, too.
    pub(crate) async fn make_changes(self: Arc<Self>, mut queue: Queue, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                received = queue.recv_many(&mut batch, MOST_IN_BATCH) => if received == 0 { return },
                () = stop.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    continue;
                }
            }
            self.make(std::mem::take(&mut batch)).await;
        }
    }

    async fn make(&self, mut rest: Vec<Command>) {
        while !rest.is_empty() {
            let late = rest.extract_if(.., |command| command.since().elapsed() >= QUEUE_DEADLINE);
            let queued = Arc::new(StoreError::Queued(QUEUE_DEADLINE));
            late.for_each(|command| command.fail(&queued));
            rest = self.make_some(rest).await;
        }
    }

    /// Makes the first of these changes, and returns those that are yet to be made.
    async fn make_some(&self, mut batch: Vec<Command>) -> Vec<Command> {
        if batch.is_empty() {
            return batch;
        }
        match self.try_batch(&mut batch).await {
            Ok(made) => {
                let rest = batch.split_off(made);
                batch.into_iter().for_each(Command::answer);
                return rest;
            }
            // One of them may be the cause: a bug, or the row that no longer fits on the disk.
            Err(error) if batch.len() > 1 && !error.is_outage() => {
                for mut command in batch {
                    match self.try_batch(std::slice::from_mut(&mut command)).await {
                        Ok(_) => command.answer(),
                        Err(error) => command.fail(&Arc::new(error)),
                    }
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                batch.into_iter().for_each(|command| command.fail(&error));
            }
        }
        Vec::new()
    }

    /// Returns how many were made: at least one, in their order.
    async fn try_batch(&self, batch: &mut [Command]) -> Result<usize, StoreError> {
        match self.try_batch_once(batch).await {
            // Once everything is read again, they are made on what the database is now.
            Err(StoreError::OtherHistory) if self.try_catch_up().await.is_ok() => {
                self.try_batch_once(batch).await
            }
            tried => tried,
        }
    }

    async fn try_batch_once(&self, batch: &mut [Command]) -> Result<usize, StoreError> {
        let _turn = self.turn.lock().await;
        // Whether a holder is up decides who may have its address, so that has to be stored first: as it is by
        // now. While thousands come up, others would come up during each write, and a registration never be made.
        let statuses = self.copy.memory().liveness.unwritten_statuses();
        for _ in 0..statuses.div_ceil(WRITE_BATCH) {
            self.write_batch().await?;
        }
        let made = async {
            let mut change = self.begin_change().await?;
            self.know_credentials(change.credentials_before()).await?;
            let began = Instant::now();
            let mut made = 0;
            while let Some(command) = batch.get_mut(made)
                && (made == 0 || began.elapsed() < LONGEST_BATCH)
            {
                command.attempt(self, &mut change).await?;
                made += 1;
            }
            let revision = change.revision();
            Ok((self.finish(change).await?, revision, made))
        };
        let (changed, revision, made) = within(BATCH_DEADLINE, made).await?;
        for command in batch.iter().take(made) {
            command.stored(self, revision);
        }
        if changed {
            self.catch_up().await;
        }
        Ok(made)
    }
}

impl Registry {
    /// Starts a change on the history that this control plane knows.
    pub(crate) async fn begin_change(&self) -> Result<Change, StoreError> {
        let stands = self.copy.memory().stands();
        self.store.begin_change(stands.as_ref()).await
    }

    /// Starts a change of nothing but `last_heartbeat`.
    pub(crate) async fn begin_heartbeats(&self) -> Result<Change, StoreError> {
        let stands = self.copy.memory().stands();
        self.store.begin_heartbeats(stands.as_ref()).await
    }

    /// Makes a change last, see [`Change::finish`]: should the database lose it, that is found out from here on.
    pub(crate) async fn finish(&self, change: Change) -> Result<bool, StoreError> {
        let position = change.position();
        let changed = change.finish().await?;
        if changed && let Some(position) = position {
            self.copy.memory().made(position);
        }
        Ok(changed)
    }
}

/// What is given up goes on nowhere: its transaction is rolled back.
pub(crate) async fn within<T>(
    deadline: Duration,
    made: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(deadline, made)
        .await
        .unwrap_or(Err(StoreError::Queued(deadline)))
}
