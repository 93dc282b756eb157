//! Who sends how much to whom: the latest report of every node, and the matrix they make.
//!
//! A report is counters since a data plane was set up, and the node tells them anew with its next heartbeat:
//! nothing is lost for long with one. So a control plane with a database of its own keeps them in memory only.
//! Replicas keep in memory what they have yet to write to the database that they share, see
//! [`crate::registry::Registry::write_reports`], and show what is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mesh_rest::node_id::NodeId;

use crate::traffic::report::Report;

pub mod matrix;
pub mod packed;
pub mod report;
mod written;

/// The most flows that are kept, 120 bytes each: a thousand nodes that all talk to each other. Of who
/// reports when there is no room, only the data plane's state is kept.
const MOST_FLOWS: usize = 1 << 20;

/// What a node told last.
#[derive(Debug)]
pub struct Latest {
    /// When it did.
    pub received: Instant,
    /// The same in Unix seconds, for showing only.
    pub reported_at: i64,
    /// Since when something of this node is to be written; a later report takes the place of the first in
    /// the queue, too.
    pub waits_since: Instant,
    /// What it told; without peers when there was no room for them.
    pub report: Report,
    /// Peers that there was no room for.
    pub left_out: usize,
}

/// The latest report of each node.
pub type Reports = HashMap<NodeId, Arc<Latest>>;

/// The pure core: reports and how many flows they have.
#[derive(Debug)]
struct Table {
    reports: Reports,
    flows: usize,
    most_flows: usize,
}

impl Table {
    fn new(most_flows: usize) -> Self {
        Self {
            reports: Reports::new(),
            flows: 0,
            most_flows,
        }
    }

    fn keep(&mut self, node_id: NodeId, mut report: Report, now: Instant, unix_seconds: i64) {
        let waits_since = self.reports.get(&node_id).map(|old| old.waits_since);
        self.forget(node_id.as_str());
        let mut left_out = 0;
        if self.flows + report.peers.len() > self.most_flows {
            left_out = report.peers.len();
            report.peers = Vec::new();
        }
        self.flows += report.peers.len();
        let latest = Latest {
            received: now,
            reported_at: unix_seconds,
            waits_since: waits_since.unwrap_or(now),
            report,
            left_out,
        };
        self.reports.insert(node_id, Arc::new(latest));
    }

    fn forget(&mut self, node_id: &str) {
        if let Some(old) = self.reports.remove(node_id) {
            self.flows -= old.report.peers.len();
        }
    }

    fn forget_written(&mut self, node_id: &NodeId, written: &Arc<Latest>) {
        let same = |kept: &Arc<Latest>| Arc::ptr_eq(kept, written);
        if self.reports.get(node_id).is_some_and(same) {
            self.forget(node_id.as_str());
        }
    }
}

/// The latest report of each node, shared by all requests.
#[derive(Debug)]
pub struct Traffic {
    table: Mutex<Table>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            table: Mutex::new(Table::new(MOST_FLOWS)),
        }
    }
}

impl Traffic {
    /// Keeps the report of a node, in place of its last.
    pub fn keep(&self, node_id: NodeId, report: Report, now: Instant, unix_seconds: i64) {
        self.table().keep(node_id, report, now, unix_seconds);
    }

    /// Forgets a node that left.
    pub fn forget(&self, node_id: &str) {
        self.table().forget(node_id);
    }

    /// Every node's latest report.
    pub fn reports(&self) -> Reports {
        self.table().reports.clone()
    }

    /// The reports in the order in which they are to be written: who waits longest comes first.
    pub fn queue(&self) -> Vec<(NodeId, Arc<Latest>)> {
        let mut queue: Vec<_> = self.reports().into_iter().collect();
        queue.sort_by_key(|(_, latest)| latest.waits_since);
        queue
    }

    /// Forgets a report that is written, unless there is a newer one by now.
    pub fn forget_written(&self, node_id: &NodeId, written: &Arc<Latest>) {
        self.table().forget_written(node_id, written);
    }

    /// No method of the table can panic between two writes.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
