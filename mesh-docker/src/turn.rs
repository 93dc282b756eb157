//! One thing at a time for each container: Docker repeats a call whose connection broke while the first is still under way, and what
//! is to be undone is undone beside Docker's calls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Whose turn it is, by the holders of addresses.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Arc<Turn<()>>>>);

impl Turns {
    /// Waits until nobody else is at what this holder has. Whoever has a turn takes no other one: two could wait for each other.
    pub(crate) async fn take(&self, holder: &str) -> OwnedMutexGuard<()> {
        let turn = {
            // Entries are added and removed as a whole.
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(holder.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_has_a_turn_of_a_holder_at_a_time_and_none_is_kept_that_nobody_has() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let _other = turns.take("b").await;
        let mut second = std::pin::pin!(turns.take("a"));
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(
                second.as_mut().poll(context).is_pending()
            ))
            .await
        );
        drop(first);
        drop(second.await);
        drop(turns.take("c").await);
        let left = turns.0.lock().unwrap();
        assert!(!left.contains_key("a") && left.contains_key("b"));
    }
}
