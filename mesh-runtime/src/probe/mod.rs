//! `ProbePeers`: asks peers for a sign of life through the data plane.
//!
//! The question goes from this node's bridge address to the peer's, over the overlay, so it
//! takes the way that containers' packets take: route, forwarding entry, underlay, guards. It
//! is answered by the peer's kernel; neither its runtime nor its agent need be alive.
//!
//! [`round`] decides whom to ask when (pure), [`packet`] is what is sent, [`socket`] sends.
//!
//! Beside the call, peers are asked now and then whether VXLAN gets there and back: [`look`] asks, [`swallowed`]
//! decides (pure). And [`path`] asks a peer or an address by every way there is, for whoever wants to know which it takes.

pub(crate) mod look;
mod packet;
pub(crate) mod path;
mod round;
mod socket;
pub(crate) mod swallowed;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use tonic::Status;

pub(crate) use socket::OpenProbeSocket;
use socket::ProbeSocket;

use crate::{
    api::{
        ask::ask,
        command::{Command, Commands},
    },
    wanted::subnet::gateway,
};
use round::{ATTEMPTS, Round};

/// The wait for answers where the caller names none.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest wait for answers that a caller may name.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(10);

/// Peers that are asked before answers are looked for again.
const ASKED_AT_A_TIME: usize = 64;
/// Peers whose counters one command reads, so that other calls get their turn in between.
const LOOKED_UP_AT_A_TIME: usize = 256;
/// How often the counters are looked at during a probe: a peer whose firewall eats our
/// question may send something else.
const LOOKS: u32 = 8;

/// What is asked of whom.
#[derive(Clone, Debug)]
pub(crate) struct ProbeRequest {
    /// Subnets of peers as the caller writes them; empty for all.
    pub(crate) subnets: Vec<String>,
    /// A peer that was heard this recently is not asked; zero asks every one.
    pub(crate) recent: Duration,
    pub(crate) timeout: Duration,
}

/// What the reconciler knows before anybody is asked.
pub(crate) struct ProbeStart {
    /// Each subnet as the caller wrote it, with the peer's or the reason why it is none.
    pub(crate) subjects: Vec<(String, Result<Ipv4Net, String>)>,
    /// The socket to ask over, or why there is none.
    pub(crate) socket: Result<OpenProbeSocket, String>,
}

impl std::fmt::Debug for ProbeStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProbeStart")
            .field("subjects", &self.subjects)
            .finish_non_exhaustive()
    }
}

/// What a probe says of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The subnet as the caller wrote it.
    pub(crate) subnet: String,
    pub(crate) alive: bool,
    /// Time since the peer's last packet, if there was one.
    pub(crate) age: Option<Duration>,
    /// Why nothing can be said; empty otherwise.
    pub(crate) error: String,
}

/// Asks peers and waits for their answers.
///
/// # Errors
///
/// A runtime that is shutting down or does not answer.
pub(crate) async fn probe(
    commands: &Commands,
    request: ProbeRequest,
) -> Result<Vec<Finding>, Status> {
    let ProbeRequest {
        subnets,
        recent,
        timeout,
    } = request;
    let ProbeStart { subjects, socket } =
        ask(commands, |reply| Command::StartProbe { subnets, reply }).await?;
    let peers: Vec<Ipv4Net> = subjects
        .iter()
        .filter_map(|(_, subject)| subject.clone().ok())
        .collect();

    let begun = Instant::now();
    let mut heard = BTreeMap::new();
    look_up(commands, &peers, &mut heard).await?;
    let is_recent = |heard: &BTreeMap<Ipv4Net, Instant>, peer: &Ipv4Net| {
        !recent.is_zero() && heard.get(peer).is_some_and(|at| begun - *at <= recent)
    };
    let quiet: Vec<Ipv4Net> = peers
        .iter()
        .filter(|peer| !is_recent(&heard, peer))
        .copied()
        .collect();
    let socket = socket.and_then(|socket| socket.register().map_err(|error| error.to_string()));
    let refused = listen(commands, socket, &quiet, timeout, &mut heard).await?;
    // A last look, so that every age is as of now.
    look_up(commands, &peers, &mut heard).await?;

    let now = Instant::now();
    let findings = subjects.into_iter().map(|(subnet, subject)| {
        let peer = match subject {
            Ok(peer) => peer,
            Err(error) => return unknown(subnet, error),
        };
        let alive = is_recent(&heard, &peer) || heard.get(&peer).is_some_and(|at| *at >= begun);
        let error = refused.get(&gateway(peer)).filter(|_| !alive);
        Finding {
            subnet,
            alive,
            age: heard.get(&peer).map(|at| now - *at),
            error: error.cloned().unwrap_or_default(),
        }
    });
    Ok(findings.collect())
}

fn unknown(subnet: String, error: String) -> Finding {
    Finding {
        subnet,
        alive: false,
        age: None,
        error,
    }
}

/// Asks `quiet` until all have been heard or the time is over. Returns the gateways of those
/// that could not even be asked, with the reason.
async fn listen(
    commands: &Commands,
    socket: Result<ProbeSocket, String>,
    quiet: &[Ipv4Net],
    timeout: Duration,
    heard: &mut BTreeMap<Ipv4Net, Instant>,
) -> Result<BTreeMap<Ipv4Addr, String>, Status> {
    let by_gateway: BTreeMap<Ipv4Addr, Ipv4Net> =
        quiet.iter().map(|peer| (gateway(*peer), *peer)).collect();
    let begun = Instant::now();
    let mut round = Round::new(
        by_gateway.keys().copied(),
        timeout,
        ATTEMPTS,
        rand::random::<f64>,
    );
    let mut next_look = timeout / LOOKS;
    while !round.is_over(begun.elapsed()) {
        for (to, attempt) in round.due(begun.elapsed(), ASKED_AT_A_TIME) {
            let asked = match &socket {
                Ok(socket) => socket.send(to, attempt).map_err(|error| error.to_string()),
                Err(reason) => Err(reason.clone()),
            };
            round.asked(to, asked);
        }
        let wake = begun + round.wake_at().min(next_look);
        tokio::select! {
            from = answer(&socket) => {
                if let Some(peer) = by_gateway.get(&from) {
                    round.heard(from);
                    heard.insert(*peer, Instant::now());
                }
            }
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        if begun.elapsed() >= next_look {
            next_look += timeout / LOOKS;
            let silent: Vec<Ipv4Net> = round
                .silent()
                .filter_map(|gateway| by_gateway.get(&gateway).copied())
                .collect();
            look_up(commands, &silent, heard).await?;
            for peer in silent {
                if heard.get(&peer).is_some_and(|at| *at >= begun) {
                    round.heard(gateway(peer));
                }
            }
        }
    }
    Ok(round.refused())
}

async fn answer(socket: &Result<ProbeSocket, String>) -> Ipv4Addr {
    match socket {
        Ok(socket) => socket.answer().await,
        Err(_) => std::future::pending().await,
    }
}

/// Notes when the counters say that each of `peers` was heard last.
async fn look_up(
    commands: &Commands,
    peers: &[Ipv4Net],
    heard: &mut BTreeMap<Ipv4Net, Instant>,
) -> Result<(), Status> {
    for peers in peers.chunks(LOOKED_UP_AT_A_TIME) {
        let peers = peers.to_vec();
        let seen = ask(commands, |reply| Command::LastSeen { peers, reply }).await?;
        for (peer, at) in seen {
            let latest = heard.entry(peer).or_insert(at);
            *latest = at.max(*latest);
        }
    }
    Ok(())
}
