//! What can be asked of the one who writes.

use std::sync::Arc;
use std::time::Instant;

use mesh_rest::node_id::NodeId;
use tokio::sync::oneshot;

use super::departure::{self, Departure};
use super::membership::{self, Arrival, LetIn};
use super::operator::{self, LeftBefore};
use crate::access::mandate::Mandate;
use crate::cluster::subnet_plan::SubnetIndex;
use crate::registry::{ChangeError, Registry};
use crate::store::{Change, Reservation, StoreError, Tenant};

/// A change that somebody waits for.
pub(crate) enum Command {
    /// A node registers, new or known.
    Register(Box<Ask<Arrival, LetIn>>),
    /// A node's agent stops; answered with whether it was there until now.
    Deregister(Ask<NodeId, bool>),
    /// A node leaves for good; answered with whether it was there until now.
    Leave(Ask<Departure, bool>),
    /// The leases of nodes that left end; answered with whose.
    ReleaseDeparted(Ask<LeftBefore, Vec<Tenant>>),
    /// An operator ends a lease; answered with who had it, unless it was released before.
    Release(Ask<SubnetIndex, Option<Tenant>>),
    /// An operator keeps a range from being leased.
    Reserve(Ask<Reservation, ()>),
    /// An operator lets a range be leased again.
    Unreserve(Ask<String, ()>),
}

/// The same for each command.
macro_rules! whichever {
    ($command:expr, $ask:ident => $then:expr) => {
        match $command {
            Command::Register($ask) => $then,
            Command::Deregister($ask) => $then,
            Command::Leave($ask) => $then,
            Command::ReleaseDeparted($ask) => $then,
            Command::Release($ask) => $then,
            Command::Reserve($ask) => $then,
            Command::Unreserve($ask) => $then,
        }
    };
}

impl Command {
    /// Makes the change. A refusal has written nothing; after a [`StoreError`] the transaction never was.
    ///
    /// What is known of credentials is what the change is made on: whoever may not ask any more is refused.
    pub(super) async fn attempt(
        &mut self,
        registry: &Registry,
        change: &mut Change,
    ) -> Result<(), StoreError> {
        if whichever!(self, ask => ask.is_refused()) {
            return Ok(());
        }
        match self {
            Self::Register(ask) => {
                let registered =
                    membership::register(&ask.question, &ask.mandate, registry, change);
                ask.outcome = Some(registered.await?);
            }
            Self::Deregister(ask) => {
                ask.outcome = Some(departure::deregister(&ask.question, change).await?);
            }
            Self::Leave(ask) => {
                ask.outcome = Some(departure::leave(&ask.question, change).await?);
            }
            Self::ReleaseDeparted(ask) => {
                ask.outcome = Some(operator::release_departed(ask.question, change).await?);
            }
            Self::Release(ask) => {
                ask.outcome = Some(operator::release(ask.question, change).await?);
            }
            Self::Reserve(ask) => {
                ask.outcome = Some(operator::reserve(&ask.question, change).await?);
            }
            Self::Unreserve(ask) => {
                ask.outcome = Some(operator::unreserve(&ask.question, change).await?);
            }
        }
        Ok(())
    }

    /// Takes note that it is stored, before it is answered; `revision` is the change's.
    pub(super) fn stored(&self, registry: &Registry, revision: i64) {
        match self {
            Self::Register(ask) => ask.made(|arrival, let_in| {
                membership::registered(arrival, let_in, registry, revision);
            }),
            Self::Deregister(ask) => ask.made(|node_id, was_there| {
                departure::deregistered(node_id, *was_there, registry, revision);
            }),
            Self::Leave(ask) => ask.made(|departure, was_there| {
                departure::left(&departure.node_id, *was_there, registry, revision);
            }),
            Self::ReleaseDeparted(ask) => ask.made(|_, tenants| {
                operator::released_departed(tenants, registry, revision);
            }),
            Self::Release(ask) => ask.made(|subnet, tenant| {
                operator::released(*subnet, tenant.as_ref(), registry, revision);
            }),
            Self::Reserve(ask) => ask.made(|range, ()| operator::reserved(range, revision)),
            Self::Unreserve(ask) => ask.made(|cidr, ()| operator::unreserved(cidr, revision)),
        }
    }

    /// Tells who waits what came of it.
    pub(super) fn answer(self) {
        whichever!(self, ask => ask.answer());
    }

    /// Tells who waits that the database did not take it.
    pub(super) fn fail(self, error: &Arc<StoreError>) {
        whichever!(self, ask => ask.fail(error));
    }

    /// Since when somebody waits.
    pub(super) fn since(&self) -> Instant {
        whichever!(self, ask => ask.since)
    }
}

/// A question with the place for its answer.
pub(crate) struct Ask<Q, A> {
    question: Q,
    mandate: Mandate,
    outcome: Option<Result<A, ChangeError>>,
    answer: oneshot::Sender<Result<A, ChangeError>>,
    since: Instant,
}

impl<Q, A> Ask<Q, A> {
    /// A question, and where its answer will be.
    pub(super) fn new(
        question: Q,
        mandate: Mandate,
    ) -> (Self, oneshot::Receiver<Result<A, ChangeError>>) {
        let (answer, answered) = oneshot::channel();
        let ask = Self {
            question,
            mandate,
            outcome: None,
            answer,
            since: Instant::now(),
        };
        (ask, answered)
    }

    /// Whether whoever asks may not any more. That is the answer then.
    fn is_refused(&mut self) -> bool {
        match self.mandate.judge() {
            Ok(_) => false,
            Err(refused) => {
                self.outcome = Some(Err(ChangeError::NotAnyMore(refused)));
                true
            }
        }
    }

    fn made(&self, then: impl FnOnce(&Q, &A)) {
        if let Some(Ok(outcome)) = &self.outcome {
            then(&self.question, outcome);
        }
    }

    fn answer(self) {
        if let Some(outcome) = self.outcome {
            // Whoever no longer waits has given up, or hung up.
            let _ = self.answer.send(outcome);
        }
    }

    fn fail(self, error: &Arc<StoreError>) {
        let _ = self.answer.send(Err(ChangeError::Store(Arc::clone(error))));
    }
}
