//! What a control plane measures, for Prometheus: what is in memory is counted when it is asked for, and the database is
//! asked then, too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use mesh_metrics::catalog::common::{self, ProblemCount};
use mesh_metrics::catalog::control::{
    AUTHORITY_EXPIRY, CERTIFICATE_EXPIRY, DATABASE_SIZE, DATABASE_UP, FEED_WAITERS,
    HEARTBEAT_DURATION, NODES, REPLICA_LAG, REQUESTS, SUBNETS,
};
use mesh_metrics::{Counters, Scrape, Source, Timings, Unavailable};
use mesh_problems::{Kind, catalog::find};
use mesh_rest::status::Status;

use crate::access::Access;
use crate::api::access::Entry;
use crate::api::health;
use crate::copy::Memory;
use crate::http::tls::Tls;
use crate::registry::Registry;

/// How long the database may take to answer.
const DATABASE_DEADLINE: Duration = Duration::from_secs(2);

/// Whose answers are timed.
const HEARTBEAT: &str = "/api/nodes/{id}/heartbeat";

/// What is counted where it happens.
#[derive(Debug)]
pub(crate) struct Tally {
    requests: Counters,
    heartbeats: Timings,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            requests: Counters::new(&REQUESTS),
            heartbeats: Timings::new(&HEARTBEAT_DURATION),
        }
    }
}

impl Tally {
    /// Notes an answer to a request that began then: to a call of the table, or to none.
    pub(crate) fn answered(
        &self,
        entry: Option<&'static Entry>,
        status: StatusCode,
        began: Instant,
    ) {
        let class = match status.as_u16() / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        match entry {
            Some(entry) => {
                let call = format!("{} {}", entry.method, entry.path);
                self.requests.add(&[&call, class], 1);
                if entry.path == HEARTBEAT {
                    self.heartbeats.observe(began.elapsed());
                }
            }
            None => self.requests.add(&["none", class], 1),
        }
    }
}

/// What a control plane measures.
#[derive(Debug, Clone)]
pub struct Measured {
    registry: Arc<Registry>,
    access: Arc<Access>,
    tls: Arc<Tls>,
}

impl Measured {
    /// That of these.
    pub fn of(registry: &Arc<Registry>, access: &Arc<Access>, tls: &Arc<Tls>) -> Self {
        Self {
            registry: Arc::clone(registry),
            access: Arc::clone(access),
            tls: Arc::clone(tls),
        }
    }

    fn show_nodes(&self, scrape: &mut Scrape) {
        let (mut up, mut down) = (0, 0);
        {
            let Memory {
                roster, liveness, ..
            } = &*self.registry.copy.memory();
            for node in roster.nodes() {
                match liveness.status(node.node_id.as_str()) {
                    Some(Status::Up) => up += 1,
                    Some(Status::Down) | None => down += 1,
                }
            }
        }
        scrape.set(&NODES, &["up"], up);
        scrape.set(&NODES, &["down"], down);
        let waiters = self.registry.copy.feed.waiters();
        scrape.set(
            &FEED_WAITERS,
            &[],
            u64::try_from(waiters).unwrap_or(u64::MAX),
        );
    }

    fn show_certificates(&self, scrape: &mut Scrape) {
        let seconds = |time: i64| u64::try_from(time).unwrap_or_default();
        let signs = self.registry.credentials.signs();
        let trust = self.registry.credentials.trust();
        for authority in trust.iter().flat_map(|trust| trust.iter()) {
            let key = authority.key();
            let is_signing = if signs == Some(key) { "yes" } else { "no" };
            scrape.set(
                &AUTHORITY_EXPIRY,
                &[&key.short().to_string(), is_signing],
                seconds(authority.presented.not_after),
            );
        }
        for (whose, not_after) in self.tls.expiries() {
            scrape.set(&CERTIFICATE_EXPIRY, &[whose], seconds(not_after));
        }
    }

    /// What the control plane sees wrong with the cluster: at most one problem of each kind. Nothing where the database does
    /// not answer, which [`DATABASE_UP`] says.
    async fn problems(&self) -> Vec<ProblemCount> {
        let found = tokio::time::timeout(DATABASE_DEADLINE, self.registry.findings()).await;
        let Ok(Ok(found)) = found else {
            return Vec::new();
        };
        let kinds = found.findings.iter().filter_map(|it| find(&it.code));
        let count = |kind: &'static Kind| ProblemCount {
            code: kind.code,
            severity: kind.severity.as_str(),
            count: 1,
        };
        kinds.map(count).collect()
    }

    async fn show_database(&self, scrape: &mut Scrape) {
        let counts = tokio::time::timeout(DATABASE_DEADLINE, self.registry.store.counts()).await;
        let Ok(Ok(counts)) = counts else {
            scrape.set(&DATABASE_UP, &[], 0);
            return;
        };
        let total: u64 = self.registry.plan().count().into();
        let free = total.saturating_sub(counts.leased + counts.reserved);
        scrape.set(&DATABASE_UP, &[], 1);
        scrape.set(&DATABASE_SIZE, &[], counts.bytes);
        scrape.set(&SUBNETS, &["leased"], counts.leased);
        scrape.set(&SUBNETS, &["reserved"], counts.reserved);
        scrape.set(&SUBNETS, &["free"], free);
    }
}

impl Source for Measured {
    async fn collect(&self) -> Result<Scrape, Unavailable> {
        let problems = self.problems().await;
        let version = env!("CARGO_PKG_VERSION");
        let mut scrape = common::begin("quilt-mesh-control", version, &problems);
        self.show_nodes(&mut scrape);
        self.show_certificates(&mut scrape);
        self.show_database(&mut scrape).await;
        if let Some(lag) = self.registry.lag() {
            scrape.set_fraction(&REPLICA_LAG, &[], lag.as_secs_f64());
        }
        self.registry.tally.requests.show(&mut scrape);
        self.registry.tally.heartbeats.show(&mut scrape);
        self.access.refused().show(&mut scrape);
        Ok(scrape)
    }

    async fn ready(&self) -> Result<(), Unavailable> {
        let failing = health::failing(&self.registry).await;
        if failing.is_empty() {
            return Ok(());
        }
        let words = failing.iter().map(|(name, why)| format!("{name}: {why}"));
        Err(Unavailable(words.collect::<Vec<_>>().join("; ")))
    }
}
