//! What an agent measures, for Prometheus: each task notes what it knows, and a scrape reads it.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_metrics::{
    Counters, Scrape, Source, Unavailable,
    catalog::{
        agent::{
            CERTIFICATE_EXPIRY, FEED_LAG, GENERATION, HEARTBEAT_FAILURES, HEARTBEATS, LAST_SYNC,
            PEERS, REGISTERED, RUNTIME_READY,
        },
        common::{self, ProblemCount},
    },
};
use mesh_problems::Kind;
use tokio::{sync::watch, time::Instant};

use crate::{node::Registered, peers::KnownPeers, problems::Problems};

/// What is measured, the same for all its clones.
#[derive(Debug, Clone)]
pub struct Measured(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registration: OnceLock<watch::Receiver<Option<Registered>>>,
    problems: OnceLock<Problems>,
    state: Mutex<State>,
    beats: Counters,
    failed_beats: Counters,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    listed: Option<Instant>,
    synced: Option<Synced>,
    takes_peers: bool,
    peers: PeerCounts,
    /// In Unix seconds.
    certificate_expiry: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Synced {
    at: SystemTime,
    generation: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct PeerCounts {
    up: u64,
    suspect: u64,
    doubtful: u64,
}

impl Default for Measured {
    fn default() -> Self {
        Self(Arc::new(Inner {
            registration: OnceLock::new(),
            problems: OnceLock::new(),
            state: Mutex::default(),
            beats: Counters::new(&HEARTBEATS).beginning_with(&[]),
            failed_beats: Counters::new(&HEARTBEAT_FAILURES).beginning_with(&[]),
        }))
    }
}

impl Measured {
    /// Goes by this registration from now on.
    pub fn follow(&self, registration: watch::Receiver<Option<Registered>>) {
        // One agent has one.
        let _followed_already = self.0.registration.set(registration);
    }

    /// Counts what is on this board from now on.
    pub fn count(&self, problems: Problems) {
        // One agent has one.
        let _counted_already = self.0.problems.set(problems);
    }

    /// Notes that the control plane has told the list, or that it is as it was.
    pub fn listed(&self) {
        self.state().listed = Some(Instant::now());
    }

    /// Notes that the runtime has taken the whole peer set.
    pub fn synced(&self, generation: u64) {
        let mut state = self.state();
        state.takes_peers = true;
        state.synced = Some(Synced {
            at: SystemTime::now(),
            generation,
        });
    }

    /// Notes that the runtime is lost, or has not taken the peer set.
    pub fn not_synced(&self) {
        self.state().takes_peers = false;
    }

    /// Notes the peers as they are known now.
    pub fn peers(&self, known: &KnownPeers) {
        let mut counts = PeerCounts::default();
        for peer in known.values() {
            *match (&peer.doubt, peer.is_suspect()) {
                (None, _) => &mut counts.up,
                (Some(_), true) => &mut counts.suspect,
                (Some(_), false) => &mut counts.doubtful,
            } += 1;
        }
        self.state().peers = counts;
    }

    /// Notes the certificate that is shown from now on, by its last second.
    pub fn certificate(&self, not_after: i64) {
        self.state().certificate_expiry = Some(not_after);
    }

    /// Counts a heartbeat.
    pub fn beat(&self, arrived: bool) {
        let Inner {
            beats,
            failed_beats,
            ..
        } = &*self.0;
        if arrived { beats } else { failed_beats }.add(&[], 1);
    }

    fn is_registered(&self) -> bool {
        let registration = self.0.registration.get();
        registration.is_some_and(|it| it.borrow().is_some())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with this node, as far as the agent knows: at most one problem of each kind.
    fn problems(&self) -> Vec<ProblemCount> {
        let problems = self.0.problems.get();
        let kinds = problems.map(Problems::kinds).unwrap_or_default();
        let count = |kind: &'static Kind| ProblemCount {
            code: kind.code,
            severity: kind.severity.as_str(),
            count: 1,
        };
        kinds.into_iter().map(count).collect()
    }
}

/// In Unix seconds; a clock from before 1970 is taken for 1970.
fn unix_seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64()
}

impl Source for Measured {
    async fn collect(&self) -> Result<Scrape, Unavailable> {
        let version = env!("CARGO_PKG_VERSION");
        let mut scrape = common::begin("quilt-mesh-agent", version, &self.problems());
        let state = self.state().clone();
        scrape.set(&REGISTERED, &[], self.is_registered().into());
        if let Some(listed) = state.listed {
            let lag: Duration = listed.elapsed();
            scrape.set_fraction(&FEED_LAG, &[], lag.as_secs_f64());
        }
        scrape.set(&RUNTIME_READY, &[], state.takes_peers.into());
        if let Some(Synced { at, generation }) = state.synced {
            scrape.set_fraction(&LAST_SYNC, &[], unix_seconds(at));
            scrape.set(&GENERATION, &[], generation);
        }
        for (name, count) in [
            ("up", state.peers.up),
            ("suspect", state.peers.suspect),
            ("doubtful", state.peers.doubtful),
        ] {
            scrape.set(&PEERS, &[name], count);
        }
        if let Some(expiry) = state.certificate_expiry {
            scrape.set(&CERTIFICATE_EXPIRY, &[], expiry.try_into().unwrap_or(0));
        }
        self.0.beats.show(&mut scrape);
        self.0.failed_beats.show(&mut scrape);
        Ok(scrape)
    }

    async fn ready(&self) -> Result<(), Unavailable> {
        if !self.is_registered() {
            let reason = "the node is not registered with the control plane";
            return Err(Unavailable(reason.to_owned()));
        }
        match self.state().takes_peers {
            true => Ok(()),
            false => Err(Unavailable(
                "the runtime has not taken the peers".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(measured: &Measured) -> Vec<String> {
        let scrape = measured.collect().await.unwrap();
        let text = scrape.into_text().unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn what_was_noted_is_shown_and_nothing_that_is_not_known() {
        let measured = Measured::default();
        let before = lines(&measured).await;
        for name in ["feed_lag", "last_sync", "certificate_expiry", "generation"] {
            assert!(!before.iter().any(|it| it.contains(name)), "{before:#?}");
        }
        measured.listed();
        measured.synced(7);
        measured.certificate(1_800_000_000);
        measured.beat(true);
        measured.beat(false);
        measured.beat(false);
        let after = lines(&measured).await;
        for line in [
            "quilt_mesh_agent_registered 0",
            "quilt_mesh_agent_generation 7",
            "quilt_mesh_agent_certificate_expiry_timestamp_seconds 1800000000",
            "quilt_mesh_agent_heartbeats_total 1",
            "quilt_mesh_agent_heartbeat_failures_total 2",
            "quilt_mesh_agent_peers{state=\"doubtful\"} 0",
        ] {
            assert!(after.iter().any(|it| it == line), "{line}: {after:#?}");
        }
        let mut lags = after
            .iter()
            .filter_map(|it| it.strip_prefix("quilt_mesh_agent_feed_lag_seconds "));
        let lag: f64 = lags.next().unwrap().parse().unwrap();
        assert!((0.0..60.0).contains(&lag), "{lag}");
    }

    #[tokio::test]
    async fn an_agent_is_ready_once_it_is_registered_and_the_runtime_takes_its_peers() {
        let measured = Measured::default();
        let ready = async |measured: &Measured| measured.ready().await.is_ok();
        assert!(!ready(&measured).await);
        let registered = Registered {
            node_id: "node-1".to_owned(),
            subnet: "10.42.1.0/24".parse().unwrap(),
            epoch: 1,
            heartbeat_interval: None,
        };
        let (tell, registration) = watch::channel(Some(registered));
        measured.follow(registration);
        assert!(!ready(&measured).await);
        measured.synced(1);
        assert!(ready(&measured).await);
        measured.not_synced();
        assert!(!ready(&measured).await);
        measured.synced(2);
        tell.send_replace(None);
        assert!(!ready(&measured).await);
    }
}
