//! The change feed: who waits for news, when they are told, and the answers they share.
//!
//! A join has to reach ten thousand waiting agents in well under a second, and ten thousand joins in
//! a row must not mean ten thousand answers to each. So news are *published* at intervals, the first
//! at once, and the answer from one revision to the current one is serialised once for all who ask.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use mesh_rest::timing::between_news;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::whole_list;

/// Serialised answers that are kept: waiters of one publication share one, late ones a few more.
const MOST_ANSWERS: usize = 64;

/// And how many bytes of them.
const MOST_BYTES: usize = 16 << 20;

/// Where an answer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum From {
    /// At a revision that the asker has.
    Revision(i64),
    /// At nothing: the whole list.
    Nothing,
}

/// Where the list stands: later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// How often it turned out that the database went back, or has another id: revisions are those of one era.
    pub era: u64,
    /// The revision.
    pub revision: i64,
}

impl Place {
    /// A revision of the first era.
    pub fn at(revision: i64) -> Self {
        Self { era: 0, revision }
    }
}

#[derive(Debug, Default)]
struct Answers {
    place: Place,
    bytes: HashMap<From, (Bytes, Instant)>,
}

impl Answers {
    fn made(&self, from: From, place: Place) -> Option<Bytes> {
        let (bytes, made) = self.bytes.get(&from)?;
        let is_current =
            self.place == place && (from != From::Nothing || made.elapsed() < whole_list::LIFETIME);
        is_current.then(|| bytes.clone())
    }
}

/// See the module.
#[derive(Debug)]
pub struct Feed {
    published: watch::Sender<Place>,
    news: Notify,
    answers: Mutex<Answers>,
    stopping: CancellationToken,
}

impl Feed {
    /// A feed whose list stands at `place`; its waiters are answered when `stopping` is cancelled.
    pub fn new(place: Place, stopping: CancellationToken) -> Self {
        Self {
            published: watch::Sender::new(place),
            news: Notify::new(),
            answers: Mutex::default(),
            stopping,
        }
    }

    /// How many wait for news.
    pub fn waiters(&self) -> usize {
        self.published.receiver_count()
    }

    /// Says that the list stands elsewhere.
    pub fn there_is_news(&self) {
        self.news.notify_one();
    }

    /// Waits until something newer than `since` is published, for `wait` at most, and no longer
    /// than until the process stops.
    pub async fn wait(&self, since: Place, wait: Duration) {
        let mut published = self.published.subscribe();
        tokio::select! {
            // Fails only without a sender, which is here.
            _ = published.wait_for(|place| *place > since) => {}
            () = tokio::time::sleep(wait) => {}
            () = self.stopping.cancelled() => {}
        }
    }

    /// Publishes news until `stop`; `current` tells where the list stands.
    pub async fn publish(&self, current: impl Fn() -> Place, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.news.notified() => {}
            }
            let interval = between_news(self.published.receiver_count());
            self.published.send_replace(current());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// The answer from `from` to `place`, unless somebody asked before the one that `make` makes, which says from and to
    /// where that is: the list may be further by then. Others who ask wait meanwhile, and share it.
    pub fn answer<E>(
        &self,
        from: From,
        place: Place,
        make: impl FnOnce() -> Result<(From, Place, Bytes), E>,
    ) -> Result<Bytes, E> {
        let mut answers = self.answers();
        if let Some(bytes) = answers.made(from, place) {
            return Ok(bytes);
        }
        let (from, place, bytes) = make()?;
        if answers.place != place {
            *answers = Answers {
                place,
                ..Answers::default()
            };
        }
        let kept: usize = answers.bytes.values().map(|(bytes, _)| bytes.len()).sum();
        if answers.bytes.len() >= MOST_ANSWERS || kept + bytes.len() > MOST_BYTES {
            answers.bytes.clear();
        }
        answers.bytes.insert(from, (bytes.clone(), Instant::now()));
        Ok(bytes)
    }

    /// A panic while it was locked can only have come from `make`, before anything was changed.
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

    use mesh_rest::timing::BETWEEN_NEWS;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_is_serialised_once_for_each_start_and_revision() {
        let feed = Feed::new(Place::at(0), CancellationToken::new());
        let made = AtomicUsize::new(0);
        let ask = |from, revision| {
            let answer = feed.answer(from, Place::at(revision), || {
                made.fetch_add(1, Relaxed);
                let text = format!("{from:?} to {revision}");
                Ok::<_, Infallible>((from, Place::at(revision), Bytes::from(text)))
            });
            answer.unwrap()
        };
        for _ in 0..3 {
            assert_eq!(ask(From::Revision(1), 5), "Revision(1) to 5");
            assert_eq!(ask(From::Revision(4), 5), "Revision(4) to 5");
        }
        assert_eq!(made.load(Relaxed), 2);
        assert_eq!(ask(From::Revision(1), 6), "Revision(1) to 6");
        assert_eq!(made.load(Relaxed), 3);
        for since in 0..10_000 {
            ask(From::Revision(since), 10_000);
            assert!(feed.answers().bytes.len() <= MOST_ANSWERS);
        }
    }

    #[tokio::test]
    async fn a_flood_of_news_is_published_in_intervals_and_its_end_is_not_missed() {
        const LAST: i64 = 200;
        let stop = CancellationToken::new();
        let feed = Arc::new(Feed::new(Place::at(0), stop.clone()));
        let revision = Arc::new(AtomicI64::new(0));
        let publisher = {
            let (feed, revision, stop) = (Arc::clone(&feed), Arc::clone(&revision), stop.clone());
            tokio::spawn(async move {
                feed.publish(|| Place::at(revision.load(Relaxed)), stop)
                    .await
            })
        };
        let flood = {
            let (feed, revision) = (Arc::clone(&feed), Arc::clone(&revision));
            tokio::spawn(async move {
                for _ in 0..LAST {
                    revision.fetch_add(1, Relaxed);
                    feed.there_is_news();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        };
        let start = Instant::now();
        let (mut since, mut answers) = (0, 0);
        while since < LAST {
            feed.wait(Place::at(since), LONG).await;
            since = revision.load(Relaxed);
            answers += 1;
        }
        // The first at once, then one an interval: however slow the machine, there cannot be more.
        let most = 2 + start.elapsed().as_millis() / BETWEEN_NEWS.as_millis();
        assert!(answers <= most, "{answers} answers, {most} at most");
        flood.await.unwrap();
        stop.cancel();
        publisher.await.unwrap();
    }

    #[tokio::test]
    async fn another_era_is_news_at_whatever_revision_and_has_answers_of_its_own() {
        let stop = CancellationToken::new();
        let feed = Feed::new(Place::at(9), stop.clone());
        let now = Place {
            era: 1,
            revision: 4,
        };
        let answer = |place| {
            let text = Bytes::from(format!("{place:?}"));
            let made = || Ok::<_, Infallible>((From::Nothing, place, text));
            feed.answer(From::Nothing, place, made).unwrap()
        };
        assert_ne!(answer(Place::at(4)), answer(now));
        feed.there_is_news();
        tokio::select! {
            () = feed.publish(|| now, stop.clone()) => {}
            () = feed.wait(Place::at(9), LONG) => {}
        }
        // Nothing new for who has it.
        feed.wait(now, Duration::from_millis(10)).await;
    }

    #[tokio::test]
    async fn a_wait_ends_with_news_or_in_time_or_at_a_stop() {
        let stop = CancellationToken::new();
        let feed = Feed::new(Place::at(3), stop.clone());
        // Each of these would take a minute if it did not end.
        feed.wait(Place::at(3), Duration::from_millis(10)).await;
        feed.wait(Place::at(2), LONG).await;
        stop.cancel();
        feed.wait(Place::at(3), LONG).await;
    }
}
