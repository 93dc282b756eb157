//! The cluster in memory: what the database says, and what heartbeats say since.
//!
//! All of it stands behind one lock, the roster with its revision and the table of who lives, so that whoever looks
//! sees both of one moment, and what is read from the database is taken in whole or not at all. It is read by one at a
//! time: two that read at once could take in the older state after the newer. Whoever needs what is stored by now waits
//! for a read that began after it asked, and shares it with all who asked meanwhile: however many ask, the database is
//! read as often as it can answer, and not more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_rest::node_id::NodeId;

use crate::cluster::history::Position;
use crate::cluster::liveness::Liveness;
use crate::store::{RememberedLease, StoreError};
use feed::Feed;
use roster::Roster;
use whole_list::WholeList;

pub mod feed;
mod history;
pub mod list;
pub(crate) mod list_text;
pub mod listed_node;
pub mod roster;
mod whole_list;

/// See the module.
#[derive(Debug)]
pub(crate) struct Copy {
    memory: Mutex<Memory>,
    pub(crate) feed: Feed,
    whole_list: WholeList,
    pub(crate) reads: Reads,
}

/// What is behind the lock.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) roster: Roster,
    pub(crate) liveness: Liveness,
    /// Where this stands in the history of the database: at the roster's revision, or at a later one that was made
    /// here and is not read yet. `None`: nothing is read yet.
    stands: Option<Position>,
    /// How often it turned out to be another history, or another id of the database.
    era: u64,
    /// What a replica has to remember of nodes beside the roster: their keys.
    keys: HashMap<NodeId, String>,
    /// Leases that were made here and are not read yet, with the revisions that made them.
    unread: HashMap<NodeId, (i64, RememberedLease)>,
}

impl Copy {
    /// An empty one, older than everything that is stored.
    pub(crate) fn new(liveness: Liveness, feed: Feed) -> Self {
        Self {
            memory: Mutex::new(Memory {
                roster: Roster::default(),
                liveness,
                stands: None,
                era: 0,
                keys: HashMap::new(),
                unread: HashMap::new(),
            }),
            feed,
            whole_list: WholeList::default(),
            reads: Reads::default(),
        }
    }

    /// Never held across a wait. It is never left half changed: none of its methods can panic between two writes.
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads of the database, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    begun: AtomicU64,
    last: tokio::sync::Mutex<Option<Read>>,
}

/// How a read ended.
#[derive(Debug)]
struct Read {
    number: u64,
    outcome: Result<(), Arc<StoreError>>,
}

impl Reads {
    /// Has `read` done, unless one that began after this call has ended meanwhile: that one's outcome is this one's,
    /// also if it failed, or all who wait for a server that is gone would wait for its deadline one after another.
    pub(crate) async fn share(
        &self,
        read: impl Future<Output = Result<(), StoreError>>,
    ) -> Result<(), Arc<StoreError>> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if let Some(last) = last.as_ref().filter(|last| last.number > before) {
            return last.outcome.clone();
        }
        // Given up here, by a client that hangs up, it leaves no outcome, and the next in turn reads.
        let number = 1 + self.begun.fetch_add(1, Ordering::SeqCst);
        let outcome = read.await.map_err(Arc::new);
        *last = Some(Read {
            number,
            outcome: outcome.clone(),
        });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Whoever asked before a read began has what it read; whoever asked later does not.
    #[tokio::test]
    async fn who_asks_while_it_is_read_shares_the_next_read_and_no_earlier_one() {
        let (reads, done, gate) = (Reads::default(), Cell::new(0), Semaphore::new(0));
        let read = || async {
            done.set(done.get() + 1);
            // Nobody closes it.
            gate.acquire().await.unwrap().forget();
            Ok(())
        };
        let first = reads.share(read());
        tokio::pin!(first);
        // It has begun, and is not over.
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut others: Vec<_> = (0..50).map(|_| Box::pin(reads.share(read()))).collect();
        for other in &mut others {
            assert!(futures_util::poll!(other).is_pending());
        }
        gate.add_permits(2);
        first.await.unwrap();
        for outcome in join_all(others).await {
            outcome.unwrap();
        }
        assert_eq!(done.get(), 2, "one for the first, one for all the others");
        gate.add_permits(1);
        reads.share(read()).await.unwrap();
        assert_eq!(done.get(), 3);
    }

    #[tokio::test]
    async fn who_waited_for_a_read_that_failed_has_failed_as_well() {
        let (reads, done, gate) = (Reads::default(), Cell::new(0), Semaphore::new(0));
        let read = || async {
            done.set(done.get() + 1);
            gate.acquire().await.unwrap().forget();
            Err(StoreError::Gone)
        };
        let first = reads.share(read());
        tokio::pin!(first);
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut others: Vec<_> = (0..50).map(|_| Box::pin(reads.share(read()))).collect();
        for other in &mut others {
            assert!(futures_util::poll!(other).is_pending());
        }
        gate.add_permits(2);
        first.await.unwrap_err();
        for outcome in join_all(others).await {
            outcome.unwrap_err();
        }
        assert_eq!(done.get(), 2);
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_leaves_the_turn_to_the_next() {
        let reads = Reads::default();
        let mut given_up = Box::pin(reads.share(std::future::pending()));
        assert!(futures_util::poll!(&mut given_up).is_pending());
        let mut next = Box::pin(reads.share(async { Ok(()) }));
        assert!(futures_util::poll!(&mut next).is_pending());
        drop(given_up);
        next.await.unwrap();
    }
}
