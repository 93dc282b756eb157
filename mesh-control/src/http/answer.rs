//! Answers that are large, and what they take until the last client has its copy.
//!
//! Whole lists are megabytes, and a client may take its time. So they are made one at a time, which leaves processor
//! time for everything else, and none is made while those that are still being sent take too much. A text that many are
//! sent counts once.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use mesh_rest::problem_kind::Kind;
use serde::Serialize;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tracing::error;

use super::concurrency::{Patience, Waiting};
use super::limits;
use crate::api::problem::Problem;

/// How slowly an answer may be taken while others wait for theirs.
const WHILE_OTHERS_WAIT: Patience = Patience {
    grace: Duration::from_secs(5),
    rate: 32 * 1024,
};

/// And while nobody does.
const PATIENCE: Patience = Patience {
    grace: Duration::from_secs(60),
    rate: 32 * 1024,
};

static TURN: Semaphore = Semaphore::const_new(1);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static FREED: Notify = Notify::const_new();
static WAITING: AtomicUsize = AtomicUsize::new(0);

static STREAM: Semaphore = Semaphore::const_new(limits::STREAMED_ANSWERS);

/// The text of an answer, counted as long as anybody has it.
#[derive(Debug)]
struct Text(Vec<u8>);

impl Text {
    fn new(text: Vec<u8>) -> Self {
        BYTES.fetch_add(text.len(), SeqCst);
        Self(text)
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        BYTES.fetch_sub(self.0.len(), SeqCst);
        FREED.notify_waiters();
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Takes a text as an answer, or part of one.
pub(crate) fn keep(text: Vec<u8>) -> Bytes {
    Bytes::from_owner(Text::new(text))
}

/// Waits until there is room for a small answer.
pub(crate) async fn room() {
    below(limits::ANSWERS_BEFORE_ANY).await;
}

/// Waits for the turn to make a large answer, and for room for it.
pub(crate) async fn turn() -> Option<SemaphorePermit<'static>> {
    let turn = taken(&TURN).await;
    below(limits::ANSWERS_BEFORE_A_LARGE_ONE).await;
    turn
}

/// Waits for the turn to read a large answer from the database.
pub(crate) async fn stream() -> Option<SemaphorePermit<'static>> {
    taken(&STREAM).await
}

async fn taken(semaphore: &'static Semaphore) -> Option<SemaphorePermit<'static>> {
    if let Ok(turn) = semaphore.try_acquire() {
        return Some(turn);
    }
    let _waiting = Waiting::begin(&WAITING);
    // Nobody closes it.
    semaphore.acquire().await.ok()
}

async fn below(most: usize) {
    while BYTES.load(SeqCst) >= most {
        let _waiting = Waiting::begin(&WAITING);
        let freed = FREED.notified();
        tokio::pin!(freed);
        // From here on it hears of what is freed.
        freed.as_mut().enable();
        if BYTES.load(SeqCst) >= most {
            freed.await;
        }
    }
}

/// Whether a client that took so much of its answer since then is given up.
pub(super) fn is_too_slow(since: Instant, taken: u64) -> bool {
    let patience = match WAITING.load(SeqCst) {
        0 => PATIENCE,
        _ => WHILE_OTHERS_WAIT,
    };
    patience.is_over(since, taken)
}

/// Whether somebody waits to be answered.
pub(super) fn is_short() -> bool {
    WAITING.load(SeqCst) > 0
}

/// JSON in memory, which only a bug keeps from being made.
pub(crate) fn serialise(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| {
        error!(name: "answer-cannot-serialised", %error, "an answer cannot be serialised; this is a bug");
        Problem::new(
            Kind::Internal,
            "the control plane has a bug here; its log tells more",
        )
    })
}

/// An answer of JSON.
pub(crate) fn json(text: Bytes) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_text_counts_until_the_last_copy_of_it_is_gone() {
        // Beside other tests, which have small ones.
        let text = keep(vec![0; limits::ANSWERS_BEFORE_A_LARGE_ONE]);
        let copy = text.clone();
        drop(text);
        let mut next = Box::pin(turn());
        assert!(futures_util::poll!(&mut next).is_pending());
        assert!(is_short());
        drop(copy);
        assert!(next.await.is_some());
    }
}
