//! How many requests may be under way in the whole process: room, of which there is so much.
//!
//! A connection that waits, for news or for its next request, costs next to nothing. One whose request is under way
//! costs hyper's buffers, and its body. So a request waits outside hyper until there is room for it; it waits in its
//! turn, and while anybody waits, whoever has room and dawdles loses it. Nodes have room of their own, which strangers
//! cannot take.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mesh_rest::problem_kind::Kind;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::limits;
use crate::api::problem::Problem;

/// How many requests of one kind are under way at a time; others wait.
#[derive(Debug, Clone, Copy)]
struct UnderWay {
    /// Requests that hyper has, 26 kB each.
    requests: usize,
    /// Heads and bodies that have to be waited for, in KiB.
    body_kibibytes: usize,
    /// Large bodies that nobody has said the length of.
    unannounced_bodies: usize,
}

/// What hyper and the API need for a request whose body is yet to come, in KiB.
const BESIDE_A_BODY: u32 = 32;

/// For heartbeats of nodes that are registered.
pub(crate) static FOR_NODES: Room = Room::new(UnderWay {
    requests: 1024,
    body_kibibytes: 96 * 1024,
    unannounced_bodies: 2,
});

/// For their questions. Answers may be large and take long: no heartbeat waits for one.
pub(crate) static FOR_QUESTIONS: Room = Room::new(UnderWay {
    requests: 1024,
    body_kibibytes: 32 * 1024,
    unannounced_bodies: 1,
});

/// For everybody else: registrations, operators, strangers. More at a time would be no faster: registrations are stored
/// some hundred together.
pub(crate) static FOR_OTHERS: Room = Room::new(UnderWay {
    requests: 1024,
    body_kibibytes: 32 * 1024,
    unannounced_bodies: 1,
});

/// See the module.
#[derive(Debug)]
pub(crate) struct Room {
    /// Requests that hyper has, 26 kB each.
    requests: Semaphore,
    /// Heads and bodies that have to be waited for, in KiB.
    bodies: Semaphore,
    /// Large bodies that nobody has said the length of.
    unannounced: Semaphore,
    waiting: AtomicUsize,
    deadline: Duration,
}

/// Room that is taken, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _of: SemaphorePermit<'static>,
}

impl Room {
    const fn new(most: UnderWay) -> Self {
        Self {
            requests: Semaphore::const_new(most.requests),
            bodies: Semaphore::const_new(most.body_kibibytes),
            unannounced: Semaphore::const_new(most.unannounced_bodies),
            waiting: AtomicUsize::new(0),
            deadline: limits::ANSWER,
        }
    }

    /// Room for a request.
    ///
    /// # Errors
    ///
    /// There was none for a long time.
    pub(crate) async fn for_a_request(&'static self) -> Result<Place, Problem> {
        self.take(&self.requests, 1).await
    }

    /// Room for a head or body of `bytes` that is yet to come.
    ///
    /// # Errors
    ///
    /// As [`Self::for_a_request`].
    pub(crate) async fn for_bytes(&'static self, bytes: usize) -> Result<Place, Problem> {
        let kibibytes = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        self.take(&self.bodies, kibibytes.saturating_add(BESIDE_A_BODY))
            .await
    }

    /// Room for a body that turns out to be large.
    ///
    /// # Errors
    ///
    /// As [`Self::for_a_request`].
    pub(crate) async fn for_a_large_body(&'static self) -> Result<Place, Problem> {
        self.take(&self.unannounced, 1).await
    }

    /// Whether somebody waits for room.
    pub(crate) fn is_short(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    async fn take(&self, of: &'static Semaphore, count: u32) -> Result<Place, Problem> {
        if let Ok(place) = of.try_acquire_many(count) {
            return Ok(Place { _of: place });
        }
        let _waiting = Waiting::begin(&self.waiting);
        match tokio::time::timeout(self.deadline, of.acquire_many(count)).await {
            Ok(Ok(place)) => Ok(Place { _of: place }),
            // Nobody closes the semaphore.
            Ok(Err(_)) | Err(_) => Err(Problem::new(
                Kind::Overloaded,
                "there are too many requests under way; try again",
            )),
        }
    }
}

/// Somebody who waits, counted as long as it does.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(super) fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// How slow a client may be that sends a body or takes an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Before anything is asked of it.
    pub(super) grace: Duration,
    /// From then on it must have moved so many bytes a second on average.
    pub(super) rate: u32,
}

impl Patience {
    /// Whether a client that has moved so much since then is too slow.
    pub(super) fn is_over(self, since: Instant, moved: u64) -> bool {
        let moved = Duration::from_millis(moved.saturating_mul(1000) / u64::from(self.rate));
        since.elapsed() > self.grace + moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_too_slow_when_it_has_not_moved_enough_since() {
        let patience = Patience {
            grace: Duration::from_secs(2),
            rate: 1000,
        };
        let ago = |seconds| Instant::now() - Duration::from_secs(seconds);
        assert!(!patience.is_over(ago(1), 0));
        assert!(patience.is_over(ago(3), 0));
        assert!(!patience.is_over(ago(3), 2000));
        assert!(patience.is_over(ago(30), 20_000));
        assert!(!patience.is_over(ago(30), u64::MAX));
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_in_turn_and_not_for_ever() {
        static ROOM: Room = Room {
            deadline: Duration::from_millis(300),
            ..Room::new(UnderWay {
                requests: 1,
                body_kibibytes: 100,
                unannounced_bodies: 1,
            })
        };
        let first = ROOM.for_a_request().await.unwrap();
        assert!(!ROOM.is_short());
        let second = tokio::spawn(ROOM.for_a_request());
        tokio::task::yield_now().await;
        assert!(ROOM.is_short());
        drop(first);
        let second = second.await.unwrap().unwrap();
        assert!(!ROOM.is_short());
        let refused = ROOM.for_a_request().await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Overloaded);
        drop(second);
        ROOM.for_a_request().await.unwrap();
    }
}
