//! Changes, made one batch at a time.
//!
//! Every change needs the database's lock, and an fsync before it is acknowledged. What arrives while a
//! batch is written makes the next one: with thousands at once, each costs its statements only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::watch::WRITE_BATCH;
use super::{ChangeError, Registry};
use crate::store::{Change, StoreError};

/// How many changes can wait. More clients than that wait with the deadline of their request.
pub(super) const LONGEST_QUEUE: usize = 16 * 1024;

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
pub(super) const BATCH_DEADLINE: Duration = Duration::from_secs(11);

/// A change that somebody asked for.
pub(super) trait Request: Send + Sync + 'static {
    /// What is answered.
    type Outcome: Send + Sync + 'static;

    /// Makes the change. A refusal has written nothing; after a [`StoreError`] the transaction never was.
    fn attempt(
        &self,
        registry: &Registry,
        change: &mut Change,
    ) -> impl Future<Output = Result<Result<Self::Outcome, ChangeError>, StoreError>> + Send;

    /// Called once it is stored, before it is answered; `revision` is the change's.
    fn done(&self, registry: &Registry, outcome: &Self::Outcome, revision: i64);
}

/// A request with its place for the answer.
struct Asked<R: Request> {
    request: R,
    outcome: Option<Result<R::Outcome, ChangeError>>,
    answer: oneshot::Sender<Result<R::Outcome, ChangeError>>,
    since: Instant,
}

/// [`Asked`] of any request.
pub(super) trait Waiting: Send + Sync {
    fn attempt<'a>(
        &'a mut self,
        registry: &'a Registry,
        change: &'a mut Change,
    ) -> BoxFuture<'a, Result<(), StoreError>>;
    fn stored(&self, registry: &Registry, revision: i64);
    fn answer(self: Box<Self>);
    fn fail(self: Box<Self>, error: &Arc<StoreError>);
    fn since(&self) -> Instant;
}

impl<R: Request> Waiting for Asked<R> {
    fn attempt<'a>(
        &'a mut self,
        registry: &'a Registry,
        change: &'a mut Change,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.outcome = Some(self.request.attempt(registry, change).await?);
            Ok(())
        }
        .boxed()
    }

    fn stored(&self, registry: &Registry, revision: i64) {
        if let Some(Ok(outcome)) = &self.outcome {
            self.request.done(registry, outcome, revision);
        }
    }

    fn answer(self: Box<Self>) {
        if let Some(outcome) = self.outcome {
            // Whoever no longer waits has given up, or hung up.
            let _ = self.answer.send(outcome);
        }
    }

    fn fail(self: Box<Self>, error: &Arc<StoreError>) {
        let _ = self.answer.send(Err(ChangeError::Store(Arc::clone(error))));
    }

    fn since(&self) -> Instant {
        self.since
    }
}

/// The queue's end that takes.
pub(super) type Queue = mpsc::Receiver<Box<dyn Waiting>>;

impl Registry {
    /// Has a change made, and waits until it is stored. It is made also if its client hangs up.
    pub(super) async fn ask<R: Request>(&self, request: R) -> Result<R::Outcome, ChangeError> {
        let (answer, answered) = oneshot::channel();
        let asked = Box::new(Asked {
            request,
            outcome: None,
            answer,
            since: Instant::now(),
        });
        let queued = Arc::new(StoreError::Queued(QUEUE_DEADLINE));
        match tokio::time::timeout(QUEUE_DEADLINE, self.queue.send(asked)).await {
            Ok(Ok(())) => answered.await.map_err(|_| ChangeError::Stopping)?,
            Ok(Err(_)) => Err(ChangeError::Stopping),
            Err(_) => Err(ChangeError::Store(queued)),
        }
    }

    /// Makes the changes that are asked for, until `stop`; those that wait by then are made, too.
    pub(super) async fn make_changes(self: Arc<Self>, mut queue: Queue, stop: CancellationToken) {
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

    async fn make(&self, mut rest: Vec<Box<dyn Waiting>>) {
        while !rest.is_empty() {
            let late = rest.extract_if(.., |asked| asked.since().elapsed() >= QUEUE_DEADLINE);
            let queued = Arc::new(StoreError::Queued(QUEUE_DEADLINE));
            late.for_each(|asked| asked.fail(&queued));
            rest = self.make_some(rest).await;
        }
    }

    /// Makes the first of these changes, and returns those that are yet to be made.
    async fn make_some(&self, mut batch: Vec<Box<dyn Waiting>>) -> Vec<Box<dyn Waiting>> {
        if batch.is_empty() {
            return batch;
        }
        match self.try_batch(&mut batch).await {
            Ok(made) => {
                let rest = batch.split_off(made);
                batch.into_iter().for_each(|asked| asked.answer());
                return rest;
            }
            // One of them may be the cause: a bug, or the row that no longer fits on the disk.
            Err(error) if batch.len() > 1 && !error.is_outage() => {
                for mut asked in batch {
                    match self.try_batch(std::slice::from_mut(&mut asked)).await {
                        Ok(_) => asked.answer(),
                        Err(error) => asked.fail(&Arc::new(error)),
                    }
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                batch.into_iter().for_each(|asked| asked.fail(&error));
            }
        }
        Vec::new()
    }

    /// Returns how many were made: at least one, in their order.
    async fn try_batch(&self, batch: &mut [Box<dyn Waiting>]) -> Result<usize, StoreError> {
        let _turn = self.turn.lock().await;
        // Whether a holder is up decides who may have its address, so that has to be stored first: as it is by
        // now. While thousands come up, others would come up during each write, and a registration never be made.
        let statuses = self.liveness().unwritten_statuses();
        for _ in 0..statuses.div_ceil(WRITE_BATCH) {
            self.write_batch().await?;
        }
        let made = async {
            let mut change = self.store.begin_change().await?;
            let began = Instant::now();
            let mut made = 0;
            while let Some(asked) = batch.get_mut(made)
                && (made == 0 || began.elapsed() < LONGEST_BATCH)
            {
                asked.attempt(self, &mut change).await?;
                made += 1;
            }
            let revision = change.revision();
            Ok((change.finish().await?, revision, made))
        };
        let (changed, revision, made) = within(BATCH_DEADLINE, made).await?;
        for asked in batch.iter().take(made) {
            asked.stored(self, revision);
        }
        if changed {
            self.catch_up().await;
        }
        Ok(made)
    }
}

/// What is given up goes on nowhere: its transaction is rolled back.
pub(super) async fn within<T>(
    deadline: Duration,
    made: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(deadline, made)
        .await
        .unwrap_or(Err(StoreError::Queued(deadline)))
}
