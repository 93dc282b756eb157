//! What nodes tell with their heartbeats: kept, and where there are several replicas written for all to show.
//!
//! A replica writes every [`WRITE_INTERVAL`] what it was told since, a small batch at a time, so that
//! registrations get their turn in between, and no more than [`MOST_WRITTEN`] in all: what there is no room for
//! waits, and is replaced meanwhile by what the node tells next. What is written is forgotten here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use mesh_rest::heartbeat::DataPlane;
use mesh_rest::node_id::NodeId;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::copy::list::READ_DEADLINE;
use crate::registry::{ChangeError, Registry, unix_seconds};
use crate::store::{NewReport, StoreError, StoredReports};
use crate::traffic::matrix::{Database, Peers, Place, Reported};
use crate::traffic::report::Report;
use crate::traffic::{Latest, Reports, Traffic, packed};
use crate::write::batch::{BATCH_DEADLINE, within};

/// How often reports are written: what the other replicas show is at most so much older than what was told here.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// How many bytes of reports are written at a time, until the next [`WRITE_INTERVAL`]. Ten thousand nodes with ten
/// peers each fit; a million flows, about 30 bytes each, take 40 s.
const MOST_WRITTEN: usize = 4 << 20;

/// A transaction has no more reports than this, and ends with the one with which it has so many bytes.
const MOST_IN_BATCH: usize = 128;
const MOST_BYTES_IN_BATCH: usize = 256 << 10;

/// A report that could not be written for so long is not written any more: its node has told more since, or fell
/// silent long ago.
const TOO_OLD: Duration = Duration::from_secs(60);

impl Registry {
    /// The reports that are in memory.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Keeps what a node told with a heartbeat that was taken.
    pub fn keep_report(&self, node_id: String, report: Report) {
        let node_id = NodeId::from(node_id);
        self.traffic
            .keep(node_id.clone(), report, Instant::now(), unix_seconds());
        // It may have left since the heartbeat was taken. If it leaves from here on, this is forgotten then.
        if self.copy.memory().liveness.look_up(&node_id).is_none() {
            self.traffic.forget(node_id.as_str());
        }
    }

    /// Writes what nodes told, until `stop`. Does nothing where there are no other replicas.
    pub async fn write_reports(self: Arc<Self>, stop: CancellationToken) {
        if self.replica.is_none() {
            return stop.cancelled().await;
        }
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(WRITE_INTERVAL) => {}
            }
            let written = self.write_some_reports().await;
            match &written {
                Ok(()) if failing => {
                    info!(name: "database-takes-reports-again", "the database takes reports again")
                }
                Err(error) if !failing => {
                    warn!(name: "what-nodes-told-cannot-written", %error, "what nodes told cannot be written; other replicas show what they told before");
                }
                _ => {}
            }
            failing = written.is_err();
        }
    }

    /// Writes what waits longest, until it is enough for now.
    pub(crate) async fn write_some_reports(&self) -> Result<(), StoreError> {
        if self.replica.is_none() {
            return Ok(());
        }
        let mut queue = self.traffic.queue().into_iter();
        let mut room = MOST_WRITTEN;
        while room > 0 {
            let batch = Batch::of(&mut queue, MOST_BYTES_IN_BATCH.min(room));
            batch
                .too_old
                .iter()
                .for_each(|(node_id, latest)| self.traffic.forget_written(node_id, latest));
            if batch.new.is_empty() {
                return Ok(());
            }
            let turn = self.turn.lock().await;
            within(BATCH_DEADLINE, async {
                let mut change = self.begin_heartbeats().await?;
                change.write_reports(&batch.new).await?;
                self.finish(change).await
            })
            .await?;
            drop(turn);
            debug!(name: "reports-written",
                count = batch.new.len(),
                bytes = batch.bytes,
                "reports written"
            );
            for (node_id, latest) in &batch.taken {
                self.traffic.forget_written(node_id, latest);
            }
            room = room.saturating_sub(batch.bytes);
        }
        Ok(())
    }

    /// What is known of every node's latest report, wherever it told it.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Store`], when this is a replica that cannot reach the database.
    pub async fn latest_reports(&self) -> Result<HashMap<NodeId, Reported>, ChangeError> {
        let here = self.traffic.reports();
        if self.replica.is_none() {
            return Ok(in_memory(here, None));
        }
        // After those in memory: what is written meanwhile is found here.
        let stored = within(READ_DEADLINE, self.store.reports())
            .await
            .map_err(|error| ChangeError::Store(Arc::new(error)))?;
        Ok(latest(here, &stored))
    }
}

/// Reports that are written together.
#[derive(Default)]
struct Batch {
    taken: Vec<(NodeId, Arc<Latest>)>,
    new: Vec<NewReport>,
    too_old: Vec<(NodeId, Arc<Latest>)>,
    bytes: usize,
}

impl Batch {
    fn of(queue: &mut impl Iterator<Item = (NodeId, Arc<Latest>)>, most_bytes: usize) -> Self {
        let mut batch = Self::default();
        while batch.new.len() < MOST_IN_BATCH && batch.bytes < most_bytes {
            let Some((node_id, latest)) = queue.next() else {
                break;
            };
            // What cannot be serialised, which is not expected, must not hold up the rest.
            let packed = match packed::pack(&latest.report) {
                Ok(packed) if latest.received.elapsed() < TOO_OLD => packed,
                _ => {
                    batch.too_old.push((node_id, latest));
                    continue;
                }
            };
            let data_plane = packed.data_plane.as_ref().map_or(0, String::len);
            batch.bytes += packed.flows.len() + data_plane;
            batch.new.push(NewReport {
                node_id: node_id.clone(),
                received: latest.received,
                flow_count: latest.report.peers.len(),
                left_out: latest.left_out,
                packed,
            });
            batch.taken.push((node_id, latest));
        }
        batch
    }
}

/// What is told of reports in memory; with the database's clock where there is one, in milliseconds.
fn in_memory(here: Reports, now: Option<i64>) -> HashMap<NodeId, Reported> {
    let told = |latest: Arc<Latest>| {
        let age_ms = u64::try_from(latest.received.elapsed().as_millis()).unwrap_or(u64::MAX);
        let reported_at = match now {
            Some(now) => now.saturating_sub_unsigned(age_ms) / 1000,
            None => latest.reported_at,
        };
        Reported {
            reported_at,
            age_ms,
            left_out: latest.left_out,
            at: Place::Memory(latest),
        }
    };
    here.into_iter()
        .map(|(node_id, latest)| (node_id, told(latest)))
        .collect()
}

/// Of each node the later one of the report in memory and that in the database.
fn latest(here: Reports, stored: &StoredReports) -> HashMap<NodeId, Reported> {
    let mut all = in_memory(here, Some(stored.now));
    for (node_id, report) in &stored.reports {
        // A clock that was set back makes no report one of a time to come.
        let age_ms = u64::try_from(stored.now - report.reported_at).unwrap_or_default();
        if all.get(node_id).is_some_and(|told| told.age_ms <= age_ms) {
            continue;
        }
        let told = Reported {
            reported_at: report.reported_at.min(stored.now) / 1000,
            age_ms,
            left_out: report.left_out,
            at: Place::Database {
                flows: report.flow_count,
            },
        };
        all.insert(node_id.clone(), told);
    }
    all
}

impl Database for Registry {
    fn data_planes<'a>(
        &'a self,
        of: &'a [&'a NodeId],
    ) -> BoxFuture<'a, Result<HashMap<NodeId, DataPlane>, StoreError>> {
        within(READ_DEADLINE, self.store.data_planes(of)).boxed()
    }

    fn flows<'a>(
        &'a self,
        of: &'a [&'a NodeId],
    ) -> BoxFuture<'a, Result<HashMap<NodeId, Peers>, StoreError>> {
        within(READ_DEADLINE, self.store.flows(of)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoredReport;

    fn id(name: &str) -> NodeId {
        NodeId::from(name.to_owned())
    }

    fn here(traffic: &Traffic, name: &str, ago: Duration) {
        let received = Instant::now().checked_sub(ago).unwrap();
        traffic.keep(id(name), Report::default(), received, 0);
    }

    #[test]
    fn of_a_report_in_memory_and_one_in_the_database_the_later_one_is_shown() {
        let traffic = Traffic::default();
        for name in ["later here", "later there", "only here"] {
            here(&traffic, name, Duration::from_secs(10));
        }
        let stored = |reported_at| StoredReport {
            reported_at,
            flow_count: 7,
            left_out: 0,
        };
        let now = 1_000_000_000;
        let stored = StoredReports {
            now,
            reports: [
                (id("later here"), stored(now - 20_000)),
                (id("later there"), stored(now - 5_000)),
                (id("only there"), stored(now - 3_600_000)),
                // Before the database's clock was set back.
                (id("of tomorrow"), stored(now + 3_600_000)),
            ]
            .into(),
        };
        let told = latest(traffic.reports(), &stored);
        let at = |name| match told[&id(name)].at {
            Place::Memory(_) => "here",
            Place::Database { flows: 7 } => "there",
            Place::Database { .. } => panic!("another number of flows"),
        };
        assert_eq!(at("later here"), "here");
        assert_eq!(at("later there"), "there");
        assert_eq!(at("only here"), "here");
        assert_eq!(at("only there"), "there");
        assert_eq!(told[&id("later there")].age_ms, 5_000);
        assert_eq!(told[&id("only there")].reported_at, now / 1000 - 3600);
        let tomorrow = &told[&id("of tomorrow")];
        assert_eq!((tomorrow.age_ms, tomorrow.reported_at), (0, now / 1000));
    }

    #[test]
    fn a_batch_ends_when_it_has_enough_and_leaves_out_what_is_too_old() {
        let traffic = Traffic::default();
        here(&traffic, "old", TOO_OLD);
        for n in 0..MOST_IN_BATCH + 3 {
            here(&traffic, &n.to_string(), Duration::ZERO);
        }
        let mut queue = traffic.queue().into_iter();
        let batch = Batch::of(&mut queue, usize::MAX);
        assert_eq!(batch.new.len(), MOST_IN_BATCH);
        assert_eq!(batch.too_old[0].0, id("old"));
        assert_eq!(Batch::of(&mut queue, usize::MAX).new.len(), 3);

        let drops = (0..200)
            .map(|n| (format!("{n:01000}"), n))
            .collect::<std::collections::BTreeMap<_, _>>();
        let told = DataPlane {
            drops,
            ..DataPlane::default()
        };
        for name in ["one", "two"] {
            let report = Report {
                data_plane: Some(told.clone()),
                ..Report::default()
            };
            traffic.keep(id(name), report, Instant::now(), 0);
        }
        let mut queue = traffic
            .queue()
            .into_iter()
            .filter(|(node_id, _)| [id("one"), id("two")].contains(node_id));
        assert_eq!(Batch::of(&mut queue, 1000).new.len(), 1);
        assert_eq!(Batch::of(&mut queue, 1000).new.len(), 1);
    }
}
