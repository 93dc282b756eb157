//! The probe task: asks the runtime about peers that the control plane does not call up.
//!
//! At the start it asks once which peers are in place, so that an agent that restarts next
//! to a control plane that lost its database knows whom it must not drop.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use mesh_problems::catalog::agent::PEERS_NOT_PROBED;
use mesh_proto::mesh;
use mesh_rest::mtu::mtu;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    node::parse_subnet,
    peers::{KnownPeer, KnownPeers, Peer, Verdict},
    problems::Problems,
    reasons::Reasons,
    runtime_client::{CallError, RuntimeAddress, RuntimeConnection, RuntimeLost, unless_lost},
    underlay::parse_underlay_address,
};

/// Longest time between two attempts to reach a runtime that is away.
const LONGEST_ABSENCE_PAUSE: Duration = Duration::from_secs(1);

/// How peers are asked for a sign of life.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    /// Where the runtime is.
    pub runtime: RuntimeAddress,
    /// Time between two rounds while there are peers in doubt.
    pub interval: Duration,
    /// How long one probe waits for an answer. A packet that came this recently is one.
    pub timeout: Duration,
    /// How many probes in a row a peer may leave unanswered.
    pub attempts: u32,
}

/// What the runtime says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The peers it had when this agent started; the first report.
    Present(KnownPeers),
    /// What became of the peers in doubt.
    Verdicts {
        /// When the round began.
        asked: Instant,
        /// By subnet.
        verdicts: BTreeMap<Ipv4Net, Verdict>,
    },
}

/// Reports which peers are in place; then, until `stop`, asks about those in `doubtful` when
/// they change, and every interval. While the runtime is away there are no reports, and
/// nobody is given up.
pub async fn run(
    settings: ProbeSettings,
    mut doubtful: watch::Receiver<BTreeSet<Ipv4Net>>,
    reports: mpsc::Sender<Report>,
    problems: Problems,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut prober = Prober {
        settings,
        connection: None,
        reasons: Reasons::default(),
        problems,
    };
    let mut report = tokio::select! {
        () = stop.cancelled() => return,
        present = prober.present() => Report::Present(present),
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            sent = reports.send(report) => if sent.is_err() { return },
        }
        report = loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = doubtful.changed() => if changed.is_err() { return },
                // While nobody is in doubt, nothing has to wake up.
                _ = ticks.tick(), if !doubtful.borrow().is_empty() => {}
            }
            let subnets = doubtful.borrow_and_update().clone();
            if subnets.is_empty() {
                // Nobody is asked about any more.
                prober.can_tell();
                continue;
            }
            let asked = Instant::now();
            let round = tokio::select! {
                () = stop.cancelled() => return,
                round = prober.round(subnets) => round,
            };
            // The next one is an interval after this one, and about who is in doubt by then.
            ticks.reset();
            match round {
                Ok(verdicts) => break Report::Verdicts { asked, verdicts },
                // The data plane task says so.
                Err(lost) => {
                    debug!(name: "runtime-lost-peers-kept", reason = %lost, "runtime lost; nobody is given up")
                }
            }
        };
    }
}

struct Prober {
    settings: ProbeSettings,
    connection: Option<RuntimeConnection>,
    reasons: Reasons<()>,
    problems: Problems,
}

impl Prober {
    /// As far as is known the runtime can tell which peers are alive. Whether it could not before.
    fn can_tell(&mut self) -> bool {
        self.problems.clear(&PEERS_NOT_PROBED);
        self.reasons.resolve(&())
    }

    /// The peers in place, asked until the runtime is there.
    async fn present(&mut self) -> KnownPeers {
        let mut refusals = 0;
        loop {
            match self.list().await {
                Ok(Ok(peers)) => {
                    debug!(name: "peers-found-runtime", peers = peers.len(), "peers found in the runtime");
                    return peers;
                }
                Ok(Err(CallError::Unimplemented { .. })) => return KnownPeers::new(),
                Ok(Err(failure)) => {
                    refusals += 1;
                    if refusals >= self.settings.attempts {
                        warn!(name: "runtime-not-say-peers", reason = %failure, "the runtime does not say which peers it has; starting with none");
                        return KnownPeers::new();
                    }
                }
                Err(lost) => {
                    debug!(name: "waiting-runtime", reason = %lost, "waiting for the runtime")
                }
            }
            sleep(self.settings.interval.min(LONGEST_ABSENCE_PAUSE)).await;
        }
    }

    async fn list(&mut self) -> Result<Result<KnownPeers, CallError>, RuntimeLost> {
        let mut runtime = self.connected().await?;
        let mut answer = self.keep(unless_lost(runtime.list_peers().await))?;
        if let Err(failure @ CallError::Failed { .. }) = &answer
            && self.settings.runtime.is_elsewhere(&runtime, failure)
        {
            runtime = self.connected().await?;
            answer = self.keep(unless_lost(runtime.list_peers().await))?;
        }
        Ok(answer.map(|answer| known(&answer)))
    }

    /// Asks about `subnets` as often as it takes to be sure.
    async fn round(
        &mut self,
        subnets: BTreeSet<Ipv4Net>,
    ) -> Result<BTreeMap<Ipv4Net, Verdict>, RuntimeLost> {
        let mut runtime = self.connected().await?;
        let mut verdicts = BTreeMap::new();
        let mut open = subnets;
        for attempt in 1..=self.settings.attempts {
            let started = tokio::time::Instant::now();
            let request = request(&open, self.settings.timeout);
            match self.keep(unless_lost(runtime.probe_peers(request).await))? {
                Ok(answer) => {
                    if self.can_tell() {
                        info!(name: "runtime-can-tell-again-peers", "the runtime can tell again which peers are alive");
                    }
                    take(&mut verdicts, &mut open, &answer);
                }
                Err(CallError::Unimplemented { .. }) => {
                    self.can_tell();
                    verdicts.extend(open.iter().map(|subnet| (*subnet, Verdict::CannotTell)));
                    return Ok(verdicts);
                }
                Err(failure) => {
                    if self.reasons.note((), &failure.to_string()) {
                        warn!(name: "runtime-not-tell-peers-alive",
                            code = PEERS_NOT_PROBED.code, reason = %failure,
                            "the runtime does not tell which peers are alive; they are kept for the grace"
                        );
                        self.problems.raise(&PEERS_NOT_PROBED, failure.to_string());
                    }
                    take(
                        &mut verdicts,
                        &mut open,
                        &mesh::ProbePeersResponse::default(),
                    );
                }
            }
            if open.is_empty() || attempt == self.settings.attempts {
                break;
            }
            // An answer that came at once is no reason to ask faster.
            sleep_until(started + self.settings.timeout).await;
        }
        Ok(verdicts)
    }

    async fn connected(&mut self) -> Result<RuntimeConnection, RuntimeLost> {
        if let Some(connection) = &self.connection
            && !self.settings.runtime.has_better_than(connection).await
        {
            return Ok(connection.clone());
        }
        let connection = self.settings.runtime.connect().await?;
        Ok(self.connection.insert(connection).clone())
    }

    /// A connection that lost the runtime is of no further use.
    fn keep<T>(&mut self, result: Result<T, RuntimeLost>) -> Result<T, RuntimeLost> {
        if result.is_err() {
            self.connection = None;
        }
        result
    }
}

fn request(subnets: &BTreeSet<Ipv4Net>, timeout: Duration) -> mesh::ProbePeersRequest {
    let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    mesh::ProbePeersRequest {
        subnets: subnets.iter().map(ToString::to_string).collect(),
        recent_ms: milliseconds,
        timeout_ms: milliseconds,
    }
}

/// Enters one answer. Who is alive is not asked again; dead is who was so in every answer.
fn take(
    verdicts: &mut BTreeMap<Ipv4Net, Verdict>,
    open: &mut BTreeSet<Ipv4Net>,
    answer: &mesh::ProbePeersResponse,
) {
    let mut said = BTreeMap::new();
    for probe in &answer.peers {
        let verdict = match probe {
            probe if probe.alive => Verdict::Alive,
            probe if probe.error.is_empty() => Verdict::Dead,
            _ => Verdict::Inconclusive,
        };
        if let Ok(subnet) = probe.subnet.parse::<Ipv4Net>() {
            said.insert(subnet, verdict);
        }
    }
    open.retain(|subnet| {
        let now = said.get(subnet).copied().unwrap_or(Verdict::Inconclusive);
        let before = verdicts.get(subnet).copied().unwrap_or(now);
        let verdict = match (before, now) {
            (_, Verdict::Alive) => Verdict::Alive,
            (Verdict::Dead, Verdict::Dead) => Verdict::Dead,
            _ => Verdict::Inconclusive,
        };
        verdicts.insert(*subnet, verdict);
        verdict != Verdict::Alive
    });
}

/// The runtime's peers as peers that no list has named yet.
fn known(answer: &mesh::ListPeersResponse) -> KnownPeers {
    let peers = answer
        .peers
        .iter()
        .filter_map(|status| status.peer.as_ref());
    peers
        .filter_map(|peer| {
            let subnet = parse_subnet(&peer.subnet).ok()?;
            let host_address = parse_underlay_address(&peer.host_address).ok()?;
            let hostname = peer.hostname.clone();
            let peer = Peer {
                host_address,
                hostname,
                mtu: mtu(peer.mtu.into()),
            };
            Some((subnet, KnownPeer::unnamed(peer)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(probes: &[(&str, bool, &str)]) -> mesh::ProbePeersResponse {
        let probe = |(subnet, alive, error): &(&str, bool, &str)| mesh::PeerProbe {
            subnet: (*subnet).to_owned(),
            alive: *alive,
            last_packet_age_ms: None,
            error: (*error).to_owned(),
        };
        mesh::ProbePeersResponse {
            peers: probes.iter().map(probe).collect(),
        }
    }

    fn after(answers: &[mesh::ProbePeersResponse]) -> Verdict {
        let subnet: Ipv4Net = "10.42.2.0/24".parse().unwrap();
        let (mut verdicts, mut open) = (BTreeMap::new(), BTreeSet::from([subnet]));
        for answer in answers {
            take(&mut verdicts, &mut open, answer);
        }
        assert_eq!(open.is_empty(), verdicts[&subnet] == Verdict::Alive);
        verdicts[&subnet]
    }

    #[test]
    fn dead_is_who_never_answered_and_alive_who_did_once() {
        let dead = said(&[("10.42.2.0/24", false, "")]);
        let alive = said(&[("10.42.2.0/24", true, "")]);
        let unable = said(&[("10.42.2.0/24", false, "no such peer")]);
        let silent = said(&[("10.42.3.0/24", true, "")]);
        assert_eq!(after(&[dead.clone(), dead.clone()]), Verdict::Dead);
        assert_eq!(after(&[dead.clone(), alive.clone()]), Verdict::Alive);
        assert_eq!(after(&[unable.clone(), alive]), Verdict::Alive);
        assert_eq!(after(&[unable, dead.clone()]), Verdict::Inconclusive);
        assert_eq!(after(&[dead, silent]), Verdict::Inconclusive);
    }

    #[test]
    fn what_the_runtime_lists_and_cannot_be_a_peer_is_left_out() {
        let peer = |subnet: &str, host_address: &str| mesh::PeerStatus {
            peer: Some(mesh::Peer {
                subnet: subnet.to_owned(),
                host_address: host_address.to_owned(),
                ..mesh::Peer::default()
            }),
            ..mesh::PeerStatus::default()
        };
        let answer = mesh::ListPeersResponse {
            generation: 1,
            peers: vec![
                peer("10.42.2.0/24", "192.0.2.2"),
                peer("10.42.3.1/24", "192.0.2.3"),
                peer("10.42.4.0/24", "0.0.0.0"),
                mesh::PeerStatus::default(),
            ],
        };
        let known = known(&answer);
        let subnets: Vec<_> = known.keys().map(ToString::to_string).collect();
        assert_eq!(subnets, ["10.42.2.0/24"]);
    }
}
