//! Who did what, from where: in the log, and in the database.
//!
//! What changes credentials is kept along with the change. Everything else goes through a queue, so that nobody waits
//! for it, and what repeats is counted: a thousand refusals a second are one entry with a number.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mesh_rest::audit::{AuditLine, AuditList};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::mandate::Mandate;
use crate::registry::{Registry, unix_seconds};
use crate::store::{AuditEntry, StoreError, number};

/// Entries that wait to be kept. More are counted and not kept.
const LONGEST_QUEUE: usize = 4096;

/// How often what came is kept.
const INTERVAL: Duration = Duration::from_secs(2);

/// Entries that differ, between two of these moments. More are counted and not kept.
const MOST_DIFFERENT: usize = 512;

/// How often what is old is forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How long what ended is kept: no certificate can be used, or renewed, longer after it was made.
const ENDED_FOR: i64 = 90 * 24 * 60 * 60;

/// Who does something, and from where.
#[derive(Debug, Clone)]
pub struct Doer {
    /// `admin`, `operator NAME (ID)`, `node ID` or `nobody`.
    pub who: String,
    /// An address, or `admin socket`.
    pub source: String,
    /// By what it may.
    pub mandate: Mandate,
}

impl Doer {
    /// What was done.
    #[must_use]
    pub fn did(&self, action: &str, subject: &str) -> AuditEntry {
        self.tried(action, subject, "done")
    }

    /// What came of it.
    #[must_use]
    pub fn tried(&self, action: &str, subject: &str, outcome: &str) -> AuditEntry {
        AuditEntry {
            at: unix_seconds(),
            who: self.who.clone(),
            source: self.source.clone(),
            action: action.to_owned(),
            subject: subject.to_owned(),
            outcome: outcome.to_owned(),
            times: 1,
        }
    }
}

/// An entry with its number, as it was made.
pub(crate) type Numbered = (i64, AuditEntry);

/// The queue's end that is put into.
#[derive(Debug)]
pub(crate) struct Audit {
    queue: mpsc::Sender<Numbered>,
    lost: AtomicU64,
}

impl Audit {
    /// One with its queue.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Numbered>) {
        let (queue, entries) = mpsc::channel(LONGEST_QUEUE);
        let audit = Self {
            queue,
            lost: AtomicU64::new(0),
        };
        (audit, entries)
    }
}

/// What came since, each only once, with the moment and the number of the first.
#[derive(Debug, Default)]
struct Gathered {
    entries: Vec<Numbered>,
    places: HashMap<What, usize>,
    lost: u64,
}

type What = (String, String, String, String, String);

impl Gathered {
    fn add(&mut self, (number, entry): Numbered) {
        let what = (
            entry.who.clone(),
            entry.source.clone(),
            entry.action.clone(),
            entry.subject.clone(),
            entry.outcome.clone(),
        );
        let place = self.places.get(&what).copied();
        if let Some((_, first)) = place.and_then(|place| self.entries.get_mut(place)) {
            first.times = first.times.saturating_add(entry.times);
        } else if self.entries.len() >= MOST_DIFFERENT {
            self.lost += 1;
        } else {
            self.places.insert(what, self.entries.len());
            self.entries.push((number, entry));
        }
    }

    fn take(&mut self) -> (Vec<Numbered>, u64) {
        self.places.clear();
        (
            std::mem::take(&mut self.entries),
            std::mem::take(&mut self.lost),
        )
    }
}

impl Registry {
    /// Has it kept that something was done, or tried.
    pub fn note(&self, entry: AuditEntry) {
        if self.audit.queue.try_send((number(), entry)).is_err() {
            self.audit.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps what is noted, and forgets what is older than `days`, until `stop`.
    pub async fn write_audit(self: Arc<Self>, days: u32, stop: CancellationToken) {
        let Some(mut entries) = self.audit_entries.lock().await.take() else {
            return stop.cancelled().await;
        };
        let mut gathered = Gathered::default();
        let mut interval = tokio::time::interval(INTERVAL);
        // Not at once: a clock that is wrong at the start would have everything forgotten.
        let begin = tokio::time::Instant::now() + FORGET_INTERVAL;
        let mut forget = tokio::time::interval_at(begin, FORGET_INTERVAL);
        let mut failing = false;
        loop {
            tokio::select! {
                entry = entries.recv() => match entry {
                    Some(entry) => gathered.add(entry),
                    None => return stop.cancelled().await,
                },
                _ = interval.tick() => self.keep(&mut gathered, &mut failing).await,
                _ = forget.tick() => {
                    if let Err(error) = self.forget_old(days).await {
                        warn!(name: "what-old-audit-cannot-forgotten", %error, "what is old in the audit cannot be forgotten now");
                    }
                }
                () = stop.cancelled() => {
                    while let Ok(entry) = entries.try_recv() {
                        gathered.add(entry);
                    }
                    return self.keep(&mut gathered, &mut failing).await;
                }
            }
        }
    }

    async fn keep(&self, gathered: &mut Gathered, failing: &mut bool) {
        let (entries, mut lost) = gathered.take();
        lost += self.audit.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            warn!(name: "more-refused-done-than-audit",
                entries = lost,
                "more was refused or done than the audit keeps; those are not in it"
            );
        }
        if entries.is_empty() {
            return;
        }
        for (_, entry) in &entries {
            let AuditEntry {
                who,
                source,
                action,
                subject,
                outcome,
                times,
                ..
            } = entry;
            info!(name: "audit", who, source, action, subject, outcome, times, "audit");
        }
        let kept = async {
            let _turn = self.turn.lock().await;
            self.store.keep_audit(&entries).await
        };
        match kept.await {
            Ok(()) => *failing = false,
            Err(error) if !std::mem::replace(failing, true) => {
                warn!(name: "audit-cannot-kept", %error, "the audit cannot be kept; it is in the log alone");
            }
            Err(_) => {}
        }
    }

    async fn forget_old(&self, days: u32) -> Result<(), StoreError> {
        let now = unix_seconds();
        let _turn = self.turn.lock().await;
        let before = now.saturating_sub(i64::from(days) * 24 * 60 * 60);
        self.store.forget_audit(before).await?;
        let mut change = self.store.begin_credentials().await?;
        change.forget_ended(now.saturating_sub(ENDED_FOR)).await?;
        self.finish_credentials(change)
            .await
            .map_err(StoreError::Shared)
    }

    /// What was done before a moment, in Unix seconds, the latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn audit_before(&self, before: i64, most: u32) -> Result<AuditList, StoreError> {
        let entries = self.store.audit(before, most).await?;
        let line = |entry: AuditEntry| AuditLine {
            at: entry.at,
            who: entry.who,
            source: entry.source,
            action: entry.action,
            subject: entry.subject,
            outcome: entry.outcome,
            times: entry.times,
        };
        Ok(AuditList {
            entries: entries.into_iter().map(line).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_one_entry_with_a_number_and_what_is_too_much_is_counted() {
        let doer = Doer {
            who: "nobody".to_owned(),
            source: "192.0.2.7".to_owned(),
            mandate: Mandate::own(),
        };
        let mut gathered = Gathered::default();
        let mut entry = doer.did("release", "10.42.7.0/24");
        entry.at = 7;
        gathered.add((1, entry));
        for number in 2..1002 {
            let mut entry = doer.tried("join", "", "unknown token");
            entry.at = 8 + number;
            gathered.add((number, entry));
        }
        gathered.add((1002, doer.did("release", "10.42.8.0/24")));
        let (entries, lost) = gathered.take();
        let seen: Vec<_> = entries
            .iter()
            .map(|(number, it)| (*number, it.at, it.times))
            .collect();
        // In the order in which they were made, and each when it was first.
        let last = entries[2].1.at;
        let expected = vec![(1, 7, 1), (2, 10, 1000), (1002, last, 1)];
        assert_eq!((seen, lost), (expected, 0));
        for number in 0..MOST_DIFFERENT + 3 {
            gathered.add((0, doer.tried("join", &number.to_string(), "unknown token")));
        }
        let (entries, lost) = gathered.take();
        assert_eq!((entries.len(), lost), (MOST_DIFFERENT, 3));
        assert_eq!(gathered.take(), (Vec::new(), 0));
    }
}
