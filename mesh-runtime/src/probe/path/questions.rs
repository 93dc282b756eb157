//! The questions that are asked along a way, each with its patience.

use std::{net::Ipv4Addr, time::Duration};

use tokio::time::timeout;

use super::{
    echo::{Echo, Outcome, Question},
    judge::SMALLEST,
    search::Search,
    seen::{HostSeen, Leg},
};
use crate::probe::{OpenProbeSocket, ProbeSocket};

/// How often each is asked, where it is silent.
const ATTEMPTS: u32 = 3;

/// How often a size is asked about that is not answered.
const SEARCH_ATTEMPTS: u32 = 2;

/// The shortest and the longest wait for an answer of the search: what has answered before does so again soon.
const SEARCH_WAIT: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(500)];

/// What is sent where the size does not matter: as ping(8).
pub(crate) const USUAL_SIZE: u32 = 84;

/// What came of asking an address, and the peer's bridge beside it.
#[derive(Debug, Default)]
pub(super) struct Asked {
    sent: u32,
    pub(super) answer: Option<(Duration, u16)>,
    gateway: bool,
    error: Option<String>,
}

impl Asked {
    pub(super) fn leg(&self) -> Leg {
        Leg {
            sent: self.sent,
            gateway: self.gateway,
            error: self.error.clone(),
            ..Leg::default()
        }
    }
}

/// Asks an address, and the peer's bridge, whose answer says that the address is nobody's.
pub(super) async fn ask_overlay(
    echo: &mut Result<Echo, String>,
    address: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    patience: Duration,
) -> Asked {
    let echo = match echo {
        Ok(echo) => echo,
        Err(reason) => {
            return Asked {
                error: Some(reason.clone()),
                ..Asked::default()
            };
        }
    };
    let beside = gateway.filter(|gateway| *gateway != address);
    let size = USUAL_SIZE;
    let questions: Vec<Question> = [Some(address), beside]
        .into_iter()
        .flatten()
        .map(|to| Question { to, size })
        .collect();
    let outcomes = echo.ask(&questions, patience / ATTEMPTS, ATTEMPTS).await;
    let first = outcomes.first().cloned().unwrap_or_default();
    let last = outcomes.last().cloned().unwrap_or_default();
    Asked {
        sent: first.sent,
        gateway: gateway.is_some() && last.answer.is_some(),
        error: first.answer.is_none().then_some(first.error).flatten(),
        answer: first.answer,
    }
}

/// Asks a peer's host on the underlay.
pub(super) async fn ask_host(
    echo: &mut Result<Echo, String>,
    host: Option<Ipv4Addr>,
    patience: Duration,
) -> HostSeen {
    let Some(to) = host else {
        return HostSeen::default();
    };
    let echo = match echo {
        Ok(echo) => echo,
        Err(reason) => {
            return HostSeen {
                error: Some(reason.clone()),
                ..HostSeen::default()
            };
        }
    };
    let size = USUAL_SIZE;
    let outcomes = echo
        .ask(&[Question { to, size }], patience / ATTEMPTS, ATTEMPTS)
        .await;
    let outcome: Outcome = outcomes.into_iter().next().unwrap_or_default();
    HostSeen {
        round_trip: outcome.answer.map(|(time, _)| time),
        error: outcome.error,
        ..HostSeen::default()
    }
}

/// Sends something to a host's port for VXLAN, which only one where nobody serves it answers. Before anything is sent
/// over the overlay: each answer of that kind may be the last for a while.
pub(super) fn ask_port(
    port: Option<OpenProbeSocket>,
    host: Option<Ipv4Addr>,
) -> Option<ProbeSocket> {
    let socket = port?.register().ok()?;
    socket.send(host?, 0).ok()?;
    Some(socket)
}

/// Whether it was answered, or is now.
pub(super) async fn is_unserved(
    port: Option<ProbeSocket>,
    host: Ipv4Addr,
    patience: Duration,
) -> bool {
    let Some(socket) = port else {
        return false;
    };
    let answer = async { while socket.answer().await != host {} };
    timeout(patience, answer).await.is_ok()
}

/// The largest packet that passes by a way that has answered.
pub(super) async fn largest(
    echo: &mut Result<Echo, String>,
    to: Ipv4Addr,
    leg: &Leg,
    top: u32,
) -> Option<u32> {
    let round_trip = leg.answers.first()?.round_trip;
    search(echo, to, SMALLEST, top, round_trip).await
}

/// The largest packet between two sizes that passes.
pub(super) async fn search(
    echo: &mut Result<Echo, String>,
    to: Ipv4Addr,
    bottom: u32,
    top: u32,
    round_trip: Duration,
) -> Option<u32> {
    let echo = echo.as_mut().ok()?;
    let [shortest, longest] = SEARCH_WAIT;
    let wait = (round_trip * 4).clamp(shortest, longest);
    let mut search = Search::new(bottom, top);
    loop {
        let tried = search.next();
        if tried.is_empty() {
            return search.largest();
        }
        let questions: Vec<Question> = tried.iter().map(|&size| Question { to, size }).collect();
        let outcomes = echo.ask(&questions, wait, SEARCH_ATTEMPTS).await;
        let answered = tried
            .iter()
            .zip(&outcomes)
            .filter(|(_, it)| it.answer.is_some());
        let passed: Vec<u32> = answered.map(|(&size, _)| size).collect();
        search.note(&tried, &passed);
    }
}
