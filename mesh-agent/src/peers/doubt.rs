//! Doubt about a peer, and what ends it.
//!
//! A control plane that does not call a peer up may be right, or cut off, restarted or wiped
//! itself. The peer's packets tell: while they arrive the peer stays, whatever the list says.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;

use super::KnownPeers;

/// Why a peer may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It is listed as `down`: its heartbeats do not reach the control plane, or its agent was
    /// stopped, perhaps to start again.
    Down,
    /// Nothing usable is listed about it. A control plane forgets a node only by losing its
    /// database; the nodes then register again one after another.
    Absent,
}

/// What the node's own data plane says about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its packets arrive.
    Alive,
    /// It was asked several times and did not answer.
    Dead,
    /// The data plane was asked and could not say, this time.
    Inconclusive,
    /// The runtime has no way of asking; the list is all there is to know.
    CannotTell,
}

/// Doubt about one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    cause: Cause,
    since: Instant,
    /// When the peer was last found alive since then.
    heard: Option<Instant>,
    /// The last verdict, and when it was asked for.
    verdict: Option<(Verdict, Instant)>,
}

impl Doubt {
    /// The doubt there was, or, if that had another cause, a new one.
    pub(super) fn continued(before: Option<&Self>, cause: Cause, now: Instant) -> Self {
        match before {
            Some(before) if before.cause == cause => before.clone(),
            _ => Self {
                cause,
                since: now,
                heard: None,
                verdict: None,
            },
        }
    }

    /// Why the peer may be gone.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// Whether the peer's packets contradict the list.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        matches!(self.verdict, Some((Verdict::Alive, _)))
    }

    /// What the data plane found, asked at `asked`. An answer to a question from before the
    /// doubt does not count.
    fn hear(&mut self, verdict: Verdict, asked: Instant) {
        if asked < self.since {
            return;
        }
        self.verdict = Some((verdict, asked));
        if verdict == Verdict::Alive {
            self.heard = Some(asked);
        }
    }

    /// Whether the peer is to be given up. Never while it is heard, and never unasked.
    ///
    /// A peer that is `down` is given up when it is dead on both sides. One that is absent, or
    /// about which nothing can be found out, is so for `grace` first, and still so when asked
    /// after that: an agent that was stopped for an hour does not act on what it heard before.
    #[must_use]
    pub fn is_over(&self, grace: Duration) -> bool {
        let Some((verdict, asked)) = self.verdict else {
            return false;
        };
        let quiet = asked.saturating_duration_since(self.heard.unwrap_or(self.since));
        match (verdict, self.cause) {
            (Verdict::Alive, _) => false,
            (Verdict::Dead | Verdict::CannotTell, Cause::Down) => true,
            (Verdict::Dead | Verdict::CannotTell, Cause::Absent) | (Verdict::Inconclusive, _) => {
                quiet > grace
            }
        }
    }
}

/// The peers after the data plane was asked, at `asked`, about those in doubt.
#[must_use]
pub fn judge(
    known: &KnownPeers,
    verdicts: &BTreeMap<Ipv4Net, Verdict>,
    asked: Instant,
    grace: Duration,
) -> KnownPeers {
    let mut known = known.clone();
    for (subnet, verdict) in verdicts {
        if let Some(doubt) = known.get_mut(subnet).and_then(|peer| peer.doubt.as_mut()) {
            doubt.hear(*verdict, asked);
        }
    }
    known.retain(|_, peer| {
        let over = |doubt: &Doubt| doubt.is_over(grace);
        !peer.doubt.as_ref().is_some_and(over)
    });
    known
}
