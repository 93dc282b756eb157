//! One call at a time for each owner.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_ipam::Owner;
use tokio::sync::Notify;
use tonic::Status;

/// The longest a call waits for another of the same owner.
const DEADLINE: Duration = Duration::from_secs(10);

/// Who is being served.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    busy: Mutex<BTreeSet<Owner>>,
    ended: Notify,
}

/// An owner's turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    owner: Owner,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.busy().remove(&self.owner);
        self.turns.0.ended.notify_waiters();
    }
}

impl Turns {
    /// Waits for the owner's turn.
    pub(super) async fn take(&self, owner: &Owner) -> Result<Turn, Status> {
        self.take_within(owner, DEADLINE).await
    }

    async fn take_within(&self, owner: &Owner, deadline: Duration) -> Result<Turn, Status> {
        let wait = async {
            loop {
                // Heard also if the other's turn ends before this waits.
                let ended = self.0.ended.notified();
                if let Some(turn) = self.try_take(owner) {
                    return turn;
                }
                ended.await;
            }
        };
        tokio::time::timeout(deadline, wait).await.map_err(|_| {
            // Nothing was begun.
            Status::aborted(format!(
                "another call for {owner} has not ended within {} s: try again",
                deadline.as_secs()
            ))
        })
    }

    /// Takes the owner's turn unless another call has it.
    pub(super) fn try_take(&self, owner: &Owner) -> Option<Turn> {
        self.busy().insert(owner.clone()).then(|| Turn {
            turns: self.clone(),
            owner: owner.clone(),
        })
    }

    fn busy(&self) -> MutexGuard<'_, BTreeSet<Owner>> {
        // A set of owners is whole whoever panicked while holding it.
        self.0.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_calls_of_one_owner_wait_for_each_other_and_those_of_two_do_not() {
        let turns = Turns::default();
        let owner = |container| Owner::new("test", "quilt", container, "eth0").unwrap();
        let first = turns.take(&owner("a")).await.unwrap();
        assert!(turns.try_take(&owner("a")).is_none());
        let _other = turns.take(&owner("b")).await.unwrap();
        let second = {
            let turns = turns.clone();
            let owner = owner("a");
            tokio::spawn(async move { turns.take(&owner).await.map(drop) })
        };
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
        assert!(turns.try_take(&owner("a")).is_some());
    }

    /// Callers undo what they may have begun, which would be the other call's.
    #[tokio::test]
    async fn who_waits_in_vain_is_told_that_nothing_was_begun() {
        let turns = Turns::default();
        let owner = Owner::new("test", "quilt", "a", "eth0").unwrap();
        let _first = turns.take(&owner).await.unwrap();
        let told = turns.take_within(&owner, Duration::ZERO).await.unwrap_err();
        assert_eq!(told.code(), tonic::Code::Aborted);
    }
}
