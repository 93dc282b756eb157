//! A client of the change feed, as an agent is one, through everything that happens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::cluster::Addresses;
use crate::list::NodeList;

/// Follows one replica, or goes from one to the next with every request.
pub(crate) struct Follower {
    list: Arc<Mutex<NodeList>>,
    task: JoinHandle<()>,
}

impl Follower {
    pub(crate) fn of_replica(addresses: &Addresses, replica: usize) -> Self {
        Self::start(addresses.clone(), replica, 0)
    }

    pub(crate) fn roaming(addresses: &Addresses) -> Self {
        Self::start(addresses.clone(), 0, 1)
    }

    fn start(addresses: Addresses, mut replica: usize, stride: usize) -> Self {
        let list = Arc::new(Mutex::new(NodeList::default()));
        let kept = Arc::clone(&list);
        let task = tokio::spawn(async move {
            let mut list = NodeList::default();
            loop {
                if list.follow(&addresses.replica(replica)).await {
                    kept.lock().unwrap().clone_from(&list);
                } else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                replica += stride;
            }
        });
        Self { list, task }
    }

    pub(crate) fn list(&self) -> NodeList {
        self.list.lock().unwrap().clone()
    }

    /// Fails where an answer contradicted what it had.
    pub(crate) async fn check(&mut self) {
        if self.task.is_finished()
            && let Err(error) = (&mut self.task).await
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}
