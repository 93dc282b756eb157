//! Callers that look while programs are being attached, or rules written: they see it done.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Reconciler;
use crate::api::command::{Made, PeerList, Refusal, Status, SyncAnswer};

/// The longest a caller waits, when ports keep coming.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest that an endpoint waits to be guarded, which it is never let send without.
const GUARD_PATIENCE: Duration = Duration::from_secs(7);

/// A caller who waits.
pub(super) struct Waiting {
    since: Instant,
    question: Question,
}

enum Question {
    Peers(oneshot::Sender<PeerList>),
    Status(oneshot::Sender<Status>),
    Sync(oneshot::Sender<SyncAnswer>, SyncAnswer),
    Endpoint(oneshot::Sender<Result<Made, Refusal>>, Made),
}

impl Waiting {
    pub(super) fn for_peers(reply: oneshot::Sender<PeerList>) -> Self {
        Self::for_answer(Question::Peers(reply))
    }

    pub(super) fn for_status(reply: oneshot::Sender<Status>) -> Self {
        Self::for_answer(Question::Status(reply))
    }

    /// A sync that is done but for programs that carry no traffic yet.
    pub(super) fn for_sync(reply: oneshot::Sender<SyncAnswer>, answer: SyncAnswer) -> Self {
        Self::for_answer(Question::Sync(reply, answer))
    }

    /// An endpoint whose interface is made, and which programs and rules do not know yet.
    pub(super) fn for_endpoint(reply: oneshot::Sender<Result<Made, Refusal>>, made: Made) -> Self {
        Self::for_answer(Question::Endpoint(reply, made))
    }

    fn patience(&self) -> Duration {
        match self.question {
            Question::Endpoint(..) => GUARD_PATIENCE,
            _ => PATIENCE,
        }
    }

    fn for_answer(question: Question) -> Self {
        Self {
            since: Instant::now(),
            question,
        }
    }
}

impl Reconciler {
    /// Looks, and answers at once unless programs are being attached or rules written.
    pub(super) async fn answer(&mut self, caller: Waiting) {
        self.look().await;
        self.answer_when_shown(caller);
    }

    /// Answers at once unless programs are being attached or rules written.
    pub(super) fn answer_when_shown(&mut self, caller: Waiting) {
        self.waiting.push(caller);
        self.answer_waiting();
    }

    /// Answers a sync: at once where the programs carry traffic, because what it says is in
    /// their maps then, and where the packet filter lets the peers in.
    pub(super) fn answer_sync(&mut self, reply: oneshot::Sender<SyncAnswer>, answer: SyncAnswer) {
        if self.fast_path.is_starting() || self.firewall.lags() {
            self.waiting.push(Waiting::for_sync(reply, answer));
        } else {
            // A caller that has gone away meanwhile is no error.
            drop(reply.send(answer));
        }
    }

    /// When the first of those who wait has waited long enough; `None` while nobody does.
    pub(super) fn patience_ends(&self) -> Option<tokio::time::Instant> {
        let ends = self.waiting.iter();
        let first = ends.map(|caller| caller.since + caller.patience()).min()?;
        Some(tokio::time::Instant::from_std(first))
    }

    /// Answers those who have waited for what is done now, or long enough.
    pub(super) fn answer_waiting(&mut self) {
        let attached = !self.fast_path.is_attaching();
        let synced = !self.fast_path.is_starting() && !self.firewall.lags();
        for caller in std::mem::take(&mut self.waiting) {
            let done = match &caller.question {
                Question::Sync(..) => synced,
                Question::Peers(_) => attached,
                // Also what the rules hold of containers is in place then.
                Question::Status(_) => attached && !self.firewall.lags(),
                // With its own guards it may send, whatever is still to come for others.
                Question::Endpoint(_, Made { port, .. }) => {
                    // Without rules that stand in for it, it waits for its program.
                    let left_free =
                        self.firewall.stands() && self.desired.containers.left_free.contains(port);
                    self.fast_path.guards(*port, left_free) && self.firewall.guards(*port)
                }
            };
            if !done && caller.since.elapsed() < caller.patience() {
                self.waiting.push(caller);
                continue;
            }
            // A caller that has gone away meanwhile is no error.
            match caller.question {
                Question::Peers(reply) => drop(reply.send(self.list_peers())),
                Question::Status(reply) => drop(reply.send(self.status())),
                Question::Sync(reply, answer) => drop(reply.send(answer)),
                Question::Endpoint(reply, made) => {
                    let guarded = done;
                    drop(reply.send(Ok(Made { guarded, ..made })));
                }
            }
        }
    }
}
