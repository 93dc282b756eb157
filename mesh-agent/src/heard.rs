//! What the control plane's answers say beside their bodies: its clock, who its authorities are, and whether it lets
//! somebody in without credentials.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_credentials::control_plane_check::clock as shown;
use mesh_problems::catalog::agent::{CLOCKS_DIFFER, INSECURE_CONTROL_PLANE};
use mesh_rest::client::{Notice, Notices};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    clock::{self, Clocks, News},
    problems::Problems,
};

/// Replicas may differ in it; so often it is said at most.
const SAY_INSECURE: Duration = Duration::from_secs(600);

/// The longest reason that stands in the log, in characters.
const LONGEST_REASON: usize = 200;

/// What was heard last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// What the control plane calls its set of authorities.
    pub authorities: Option<String>,
    /// By how much its clock is ahead of this host's, in seconds: 0 while they show about the same.
    pub clock_ahead: i64,
    /// Why it lets in whoever reaches it; empty where it does not.
    pub insecure: String,
    /// The newest check of the ways between all nodes.
    pub check: Option<String>,
}

/// Hears it.
#[derive(Debug, Default)]
pub struct Ears {
    clocks: Mutex<Clocks>,
    doors: Mutex<Doors>,
    heard: watch::Sender<Heard>,
    problems: Problems,
}

impl Ears {
    /// What it hears that is wrong it says there.
    #[must_use]
    pub fn new(problems: Problems) -> Self {
        Self {
            problems,
            ..Self::default()
        }
    }

    /// Changes with each answer.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Heard> {
        self.heard.subscribe()
    }

    fn compare(&self, theirs: i64) -> i64 {
        let ours = clock::now();
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        let news = clocks.compare(ours, theirs);
        match news {
            Some(News::Differ) => warn!(name: "host-clock-control-plane-show",
                code = CLOCKS_DIFFER.code,
                ours = shown(ours),
                theirs = shown(theirs),
                difference_s = ours.abs_diff(theirs),
                "this host's clock and the control plane's show different times: set the wrong one, before certificates \
                 count as expired"
            ),
            Some(News::Agree) => info!(name: "host-clock-control-plane-show-same",
                ours = shown(ours),
                theirs = shown(theirs),
                "this host's clock and the control plane's show the same time again"
            ),
            None => {}
        }
        match (clocks.differ(), news) {
            (true, Some(_)) => {
                let (here, there) = (shown(ours), shown(theirs));
                let observed = format!(
                    "here it was {here} when it was {there} there, which is {} s",
                    ours.abs_diff(theirs)
                );
                self.problems.raise(&CLOCKS_DIFFER, observed);
            }
            (true, None) => {}
            (false, _) => self.problems.clear(&CLOCKS_DIFFER),
        }
        match clocks.differ() {
            true => theirs.saturating_sub(ours),
            false => 0,
        }
    }
}

/// Whether the control plane lets somebody in without credentials, as far as that was said.
#[derive(Debug, Default)]
struct Doors {
    insecure: Option<String>,
    said: Option<Instant>,
}

impl Doors {
    /// Takes what an answer says of it. Whether it is to be said: it is another thing than what was said before.
    fn compare(&mut self, insecure: Option<&str>) -> bool {
        let is_new = self.insecure.as_deref() != insecure;
        let lately = self.said.is_some_and(|said| said.elapsed() < SAY_INSECURE);
        if !is_new || (lately && insecure.is_some()) {
            return false;
        }
        self.insecure = insecure.map(str::to_owned);
        if insecure.is_some() {
            self.said = Some(Instant::now());
        }
        true
    }
}

impl Notices for Ears {
    fn take(&self, notice: Notice) {
        let insecure = notice.insecure.as_deref();
        let is_news = {
            let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
            doors.compare(insecure)
        };
        let why = insecure.map(|why| {
            why.chars()
                .filter(|it| !it.is_control())
                .take(LONGEST_REASON)
                .collect::<String>()
        });
        match &why {
            Some(why) => self.problems.raise(&INSECURE_CONTROL_PLANE, why),
            None => self.problems.clear(&INSECURE_CONTROL_PLANE),
        }
        match &why {
            Some(why) if is_news => warn!(name: "control-plane-lets-whoever-reaches",
                code = INSECURE_CONTROL_PLANE.code,
                why,
                "the control plane lets in whoever reaches it: anybody there can change this network"
            ),
            None if is_news => {
                info!(name: "control-plane-lets-nobody-without", "the control plane lets nobody in without credentials")
            }
            _ => {}
        }
        let ahead = notice.date.map(|theirs| self.compare(theirs));
        self.heard.send_modify(|heard| {
            heard.clock_ahead = ahead.unwrap_or(heard.clock_ahead);
            heard.insecure = why.unwrap_or_default();
            if notice.authorities.is_some() {
                heard.authorities = notice.authorities;
            }
            if notice.check.is_some() {
                heard.check = notice.check;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_the_control_plane_is_insecure_is_said_when_it_is_news_and_not_at_each_answer() {
        let mut doors = Doors::default();
        for (insecure, expected) in [
            (None, false),
            (Some("a"), true),
            (Some("a"), false),
            (None, true),
            (None, false),
            // Another replica's answer: not so soon.
            (Some("a"), false),
            (None, false),
        ] {
            assert_eq!(doors.compare(insecure), expected, "{insecure:?}");
        }
    }
}
