//! Checks of the ways between all nodes: what was ordered, and what nodes answered.
//!
//! Whoever orders one can have nodes do nothing but ask their own peers, once, and each node sees to it itself how often that
//! is. What is kept is in memory alone, of the last few checks, and bounded in bytes: a check is of one moment, and a new
//! one is made in seconds. Where there are several replicas, all hear of a check (see [`crate::replica`]), and each keeps what
//! the nodes answer that report to it: whoever wants to know asks each.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_rest::check::{CheckReport, CheckState, NodeChecked};
use mesh_rest::node_id::NodeId;
use mesh_rest::status::Status;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::access::rate::{Debt, Rate};
use crate::registry::Registry;
use crate::write::batch::{BATCH_DEADLINE, within};

/// How long nodes are told of a check, and may answer it.
const OPEN: Duration = Duration::from_secs(30);

/// How many checks are kept.
const MOST_CHECKS: usize = 4;

/// How much all of them may have in memory, about: those of 254 nodes, all of which have something to say of each other.
const MOST_BYTES: usize = 32 << 20;

/// How often there may be one.
const RATE: Rate = Rate {
    burst: 2,
    interval: Duration::from_secs(10),
};

/// One that was ordered.
#[derive(Debug)]
struct Check {
    id: String,
    ordered: Instant,
    /// Who was up by then.
    asked: BTreeSet<NodeId>,
    answers: BTreeMap<NodeId, Arc<CheckReport>>,
    bytes: usize,
}

impl Check {
    fn is_open(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.ordered) < OPEN
    }
}

/// The pure core.
#[derive(Debug)]
struct Table {
    /// The newest last.
    kept: VecDeque<Check>,
    /// Who was told of the newest without waiting for other news.
    told: HashSet<NodeId>,
    debt: Option<Debt>,
    most_bytes: usize,
}

impl Table {
    fn new(most_bytes: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            told: HashSet::new(),
            debt: None,
            most_bytes,
        }
    }

    /// Whether there may be another one, or after how long.
    fn take_turn(&mut self, now: Instant) -> Result<(), Duration> {
        let debt = self.debt.get_or_insert_with(|| Debt::none(now));
        debt.take(RATE, now)
    }

    fn order(&mut self, id: String, asked: BTreeSet<NodeId>, now: Instant) {
        if self.kept.iter().any(|check| check.id == id) {
            return;
        }
        while self.kept.len() >= MOST_CHECKS {
            self.kept.pop_front();
        }
        self.told.clear();
        self.kept.push_back(Check {
            bytes: asked
                .iter()
                .map(|id| size_of_val(id) + id.as_str().len())
                .sum(),
            id,
            ordered: now,
            asked,
            answers: BTreeMap::new(),
        });
    }

    fn newest(&self, now: Instant) -> Option<&Check> {
        self.kept.back().filter(|check| check.is_open(now))
    }

    /// Whether a node is to be told of the newest at once: the first time that it asks.
    fn tell(&mut self, node_id: &str, now: Instant) -> bool {
        if self.newest(now).is_none() || self.told.contains(node_id) {
            return false;
        }
        self.told.insert(NodeId::from(node_id.to_owned()))
    }

    /// Keeps an answer to a check that is open; of a node that answers again the first.
    fn keep(&mut self, node_id: NodeId, mut report: CheckReport, now: Instant) -> bool {
        let place = self
            .kept
            .iter()
            .position(|check| check.id == report.id && check.is_open(now));
        let Some(mut place) = place else {
            return false;
        };
        if self.kept[place].answers.contains_key(&node_id) {
            return false;
        }
        let mut bytes = weight(&report);
        // Those before it go first, and where that is not enough what this one says of its ways.
        while self.bytes() + bytes > self.most_bytes && place > 0 {
            self.kept.pop_front();
            place -= 1;
        }
        if self.bytes() + bytes > self.most_bytes {
            let count = u32::try_from(report.peers.len()).unwrap_or(u32::MAX);
            report.left_out = report.left_out.saturating_add(count);
            report.peers = Vec::new();
            bytes = weight(&report);
        }
        let check = &mut self.kept[place];
        check.bytes += bytes;
        check.answers.insert(node_id, Arc::new(report));
        true
    }

    fn bytes(&self) -> usize {
        self.kept.iter().map(|check| check.bytes).sum()
    }
}

/// How much a report has in memory, about.
fn weight(report: &CheckReport) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let ways = report.peers.iter().map(|way| {
        let findings = way.findings.iter();
        let findings = findings
            .map(|it| size_of_val(it) + it.code.len() + it.severity.len() + it.observed.len());
        size_of_val(way) + text(&way.error) + text(&way.carried_by) + findings.sum::<usize>()
    });
    size_of_val(report) + report.id.len() + text(&report.error) + ways.sum::<usize>()
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Checks {
    table: Mutex<Table>,
    /// Changes with each check that is ordered.
    ordered: watch::Sender<()>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            table: Mutex::new(Table::new(MOST_BYTES)),
            ordered: watch::Sender::new(()),
        }
    }
}

impl Checks {
    /// The id of the newest, while nodes are told of it.
    pub(crate) fn newest(&self) -> Option<String> {
        let table = self.table();
        table.newest(Instant::now()).map(|check| check.id.clone())
    }

    /// Another replica was told to have one made, and has told of it; that counts for how often there may be one here.
    pub(crate) fn hear(&self, id: &str, asked: BTreeSet<NodeId>) {
        let now = Instant::now();
        let mut table = self.table();
        // Whoever told of it let it be made.
        let _ = table.take_turn(now);
        table.order(id.to_owned(), asked, now);
        drop(table);
        self.ordered.send_replace(());
    }

    fn order(&self, id: &str, asked: BTreeSet<NodeId>) {
        self.table().order(id.to_owned(), asked, Instant::now());
        self.ordered.send_replace(());
    }

    /// Waits until there is a check that this node has not been told of. Cancel safe: who stops waiting before is told the
    /// next time.
    pub(crate) async fn untold(&self, node_id: Option<&str>) {
        let Some(node_id) = node_id else {
            return std::future::pending().await;
        };
        let mut ordered = self.ordered.subscribe();
        loop {
            if self.table().tell(node_id, Instant::now()) {
                return;
            }
            // Fails only without a sender, which is here.
            if ordered.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps what a node answered.
    pub(crate) fn keep(&self, node_id: NodeId, report: CheckReport) {
        self.table().keep(node_id, report, Instant::now());
    }

    /// No method of the table can panic between two writes.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Has every node ask its peers. Answers with the check's id.
    ///
    /// # Errors
    ///
    /// In how much time there may be one again.
    pub async fn order_check(&self) -> Result<String, Duration> {
        self.checks.table().take_turn(Instant::now())?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        self.checks.order(&id, self.who_is_up());
        info!(name: "every-node-told-ask-peers", check = id, "every node is told to ask its peers");
        if let Some(payload) = self.check_told(&id) {
            let telling = within(BATCH_DEADLINE, self.store.tell_beats(&payload));
            if let Err(error) = telling.await {
                warn!(name: "other-replicas-not-hear-check", %error, "other replicas do not hear of the check; the nodes that report to them do not answer it");
            }
        }
        Ok(id)
    }

    /// Whom a check that is ordered now asks.
    pub(crate) fn who_is_up(&self) -> BTreeSet<NodeId> {
        let up = self.shown().into_iter();
        let up = up.filter(|shown| shown.status == Status::Up);
        up.map(|shown| shown.node.node_id.clone()).collect()
    }

    /// What is known of a check; `None`: there is none of that id, or no more.
    pub fn check_state(&self, id: &str) -> Option<CheckState> {
        let now = Instant::now();
        let (ordered, open, asked, answers) = {
            let table = self.checks.table();
            let check = table.kept.iter().find(|check| check.id == id)?;
            let (asked, answers) = (check.asked.clone(), check.answers.clone());
            (check.ordered, check.is_open(now), asked, answers)
        };
        let nodes = self.shown().into_iter().filter_map(|shown| {
            let answer = answers.get(&shown.node.node_id);
            if answer.is_none() && !asked.contains(&shown.node.node_id) {
                return None;
            }
            Some(NodeChecked {
                node_id: shown.node.node_id.clone(),
                hostname: shown.node.hostname.clone(),
                host_ip: shown.node.host_ip,
                subnet: shown.node.subnet,
                answer: answer.map(|answer| CheckReport::clone(answer)),
            })
        });
        let age = now.saturating_duration_since(ordered).as_millis();
        Some(CheckState {
            id: id.to_owned(),
            age_ms: u64::try_from(age).unwrap_or(u64::MAX),
            open,
            nodes: nodes.collect(),
        })
    }
}

#[cfg(test)]
mod tests;
