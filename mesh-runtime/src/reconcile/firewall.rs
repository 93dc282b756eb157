//! The packet filter's place in the loop: written beside it, one turn at a time.

use std::{io, sync::Arc, time::Duration};

use tokio::{sync::Notify, task::JoinHandle, time::Instant};

use super::{Reconciler, tally::Repaired};
use crate::{
    apply::firewall::{Counters, NftError, Outcome, Wanted, Writer, listen},
    desired::firewall::{Content, Ruleset},
    problem::Problem,
};

/// The time between two runs of nft, which take a tenth of a second of a processor each. Rules that
/// somebody destroys again and again are whole within a second all the same.
const PACE: Duration = Duration::from_millis(500);

/// How long a kernel that refused the whole has the guards alone, before the whole is tried again: somebody may
/// have loaded what it lacks.
const WIDEN: Duration = Duration::from_secs(300);

/// How long programs that are to go wait for the rules that judge in their place.
const RULES_FIRST: Duration = Duration::from_secs(10);

/// The packet filter's rules, and who writes them.
pub(crate) struct Firewall {
    wanted: Option<Ruleset>,
    /// What the kernel showed when it was last looked at.
    shown: Option<Ruleset>,
    /// `None` while a turn has it.
    writer: Option<Writer>,
    turn: Option<JoinHandle<(Writer, Result<Outcome, NftError>)>>,
    /// Whether the last turn began while the rules that are wanted had been written before.
    mends: bool,
    /// Whether somebody may have changed the rules since.
    look: bool,
    /// When nft may run again.
    free_at: Instant,
    /// Whether a turn came too early.
    early: bool,
    /// Why they are not in place, and when they are tried again.
    failed: Option<(String, Instant)>,
    /// Why the kernel has the guards alone, and when the whole is tried again.
    narrowed: Option<(String, Instant)>,
    counters: Counters,
    /// How often the rules were put right.
    repairs: u64,
    changed: Arc<Notify>,
    listener: Option<JoinHandle<()>>,
}

impl Drop for Firewall {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

impl Firewall {
    /// Listens to changes of the rules. Where that is not possible, they are looked at with every
    /// comparison all the same. `published`: whether an earlier run had published ports at its end.
    pub(super) fn listen(published: bool) -> Self {
        let changed = Arc::new(Notify::new());
        let listener = listen(Arc::clone(&changed));
        if let Err(error) = &listener {
            tracing::info!(name: "packet-filter-unheard", %error, "changes of the packet filter are not heard: looking every few seconds");
        }
        Self {
            wanted: None,
            shown: None,
            writer: Some(Writer::after(published)),
            turn: None,
            mends: false,
            look: false,
            free_at: Instant::now(),
            early: false,
            failed: None,
            narrowed: None,
            counters: Counters::default(),
            repairs: 0,
            changed,
            listener: listener.ok(),
        }
    }

    /// Notified when somebody has changed any rules.
    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// Has the rules looked at.
    pub(super) fn look(&mut self) {
        self.look = true;
    }

    /// When the next turn is due; `None` while there is nothing to do, or one is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        let wanted = self.wanted.as_ref()?;
        if self.turn.is_some() {
            return None;
        }
        if let Some((_, again)) = &self.failed {
            return Some(*again);
        }
        if self.early {
            return Some(self.free_at);
        }
        (self.look || self.shown.as_ref() != Some(wanted)).then_some(now)
    }

    /// Begins a turn, unless a glance shows that there is nothing to do: then it says so.
    pub(super) fn begin(&mut self) -> bool {
        let (Some(ruleset), Some(mut writer)) = (self.wanted.clone(), self.writer.take()) else {
            return false;
        };
        let now = Instant::now();
        if self.failed.is_none() && self.shown.as_ref() == Some(&ruleset) && writer.glance() {
            let counters = writer.counters().clone();
            self.counters.note(counters, now.into_std());
            self.writer = Some(writer);
            self.look = false;
            self.early = false;
            return true;
        }
        let wanted = Wanted {
            ruleset,
            may_run: self.free_at <= now,
        };
        self.look = false;
        self.early = false;
        self.mends = self.shown.as_ref() == Some(&wanted.ruleset);
        self.turn = Some(tokio::task::spawn_blocking(move || {
            let outcome = writer.turn(&wanted);
            (writer, outcome)
        }));
        false
    }

    /// Waits until the turn that is under way has ended; for ever if none is. Cancel safe.
    pub(super) async fn done(&mut self) -> Result<Outcome, NftError> {
        let Some(turn) = &mut self.turn else {
            return std::future::pending().await;
        };
        let ended = turn.await;
        self.turn = None;
        let (writer, outcome) = ended.unwrap_or_else(|error| {
            let wanted = self.wanted.as_ref();
            (
                Writer::after(wanted.is_some_and(|it| it.routes_loopback().is_some())),
                Err(NftError::Read(io::Error::other(error))),
            )
        });
        self.shown = writer.written().cloned();
        self.counters
            .note(writer.counters().clone(), Instant::now().into_std());
        self.writer = Some(writer);
        outcome
    }

    /// Takes the result of [`done`](Self::done).
    fn settle(&mut self, outcome: Result<Outcome, NftError>) {
        let now = Instant::now();
        self.failed = None;
        match outcome {
            Ok(Outcome::InPlace) => {}
            Ok(Outcome::Written) => self.free_at = now + PACE,
            Ok(Outcome::Early) => self.early = true,
            Ok(Outcome::Overtaken) => {
                self.free_at = now + PACE;
                self.early = true;
            }
            // It may be about what guards do not need: the kernel says which line, not why.
            Err(NftError::Refused(reason)) if self.narrowed.is_none() => {
                self.narrowed = Some((reason, now + WIDEN));
                self.wanted = self.wanted.take().map(Ruleset::guards_alone);
                self.free_at = now + PACE;
                self.early = true;
            }
            Err(error) => {
                self.failed = Some((error.to_string(), now + super::schedule::COMPARISON))
            }
        }
    }

    /// Says what the rules are to be.
    fn want(&mut self, ruleset: Ruleset) {
        let now = Instant::now();
        if self
            .narrowed
            .as_ref()
            .is_some_and(|(_, again)| *again <= now)
        {
            self.narrowed = None;
        }
        self.wanted = Some(match self.narrowed {
            Some(_) => ruleset.guards_alone(),
            None => ruleset,
        });
        if let Some(writer) = &mut self.writer {
            writer.hold_loopback();
        }
    }

    /// Whether there are rules in place, those that are wanted now or those before them. What is to be written anew
    /// may be gone.
    pub(super) fn stands(&self) -> bool {
        self.failed.is_none() && !self.early && self.shown.is_some()
    }

    /// Whether the kernel does not show the rules yet, but will.
    pub(super) fn lags(&self) -> bool {
        self.failed.is_none() && self.wanted.is_some() && self.shown != self.wanted
    }

    /// Whether the rules hold a registered port to what is registered, or will not.
    pub(super) fn guards(&self, port: u32) -> bool {
        let shown = self.shown.as_ref();
        self.failed.is_some() || shown.is_some_and(|rules| rules.is_strict(port))
    }

    /// How many rules the kernel shows, if they are the ones that are wanted.
    pub(super) fn rules(&self) -> Option<usize> {
        let shown = self.shown.as_ref().filter(|_| !self.lags())?;
        Some(shown.content().rules)
    }

    /// What is wanted, and whether the kernel shows what was written of it.
    pub(super) fn wanted_content(&self) -> (Option<Content>, bool) {
        let wanted = self.wanted.as_ref();
        let settled = !self.lags() && !self.early && self.turn.is_none();
        (wanted.map(Ruleset::content), settled)
    }

    /// How often the rules were put right.
    pub(super) fn repairs(&self) -> u64 {
        self.repairs
    }

    /// Why the rules are not in place, and why there are the guards alone.
    pub(super) fn complaints(&self) -> (Option<String>, Option<String>) {
        let reason = |told: &Option<(String, Instant)>| told.as_ref().map(|(why, _)| why.clone());
        (reason(&self.failed), reason(&self.narrowed))
    }

    /// A rule that the kernel shows, by its place in its chain.
    pub(super) fn rule(&self, family: &str, chain: &str, place: usize) -> Option<String> {
        self.shown.as_ref()?.rule(family, chain, place)
    }

    /// Lets what is under way come to its end.
    pub(super) async fn finish(&mut self) {
        if let Some(turn) = self.turn.take() {
            // What came of it is for nobody to see any more.
            let _ = turn.await;
        }
    }

    /// Whether VXLAN from that peer does not pass yet, but will.
    pub(super) fn keeps_out(&self, peer: std::net::Ipv4Addr) -> bool {
        let shown = self.shown.as_ref().or(self.wanted.as_ref());
        let written = self.shown.is_some() && shown.is_some_and(|rules| rules.takes_from(peer));
        self.failed.is_none() && self.wanted.is_some() && !written
    }
}

impl Reconciler {
    /// Says what the rules are to be, as a round has found.
    pub(super) fn show_firewall(&mut self) {
        // Without a bridge for a moment, the rules stay as they are.
        if let Some(rules) = self.desired.firewall.clone() {
            self.firewall.want(rules);
        }
    }

    /// Has the rules written that are wanted, and waits for that, but not for ever.
    pub(super) async fn write_rules(&mut self) {
        let deadline = Instant::now() + RULES_FIRST;
        // A turn that is under way may be writing what was wanted before, and the next one may not begin at once.
        while self.firewall.lags() {
            if let Some(due) = self.firewall.due() {
                tokio::time::sleep_until(due.min(deadline)).await;
                if self.firewall.begin() {
                    continue;
                }
            }
            match tokio::time::timeout_at(deadline, self.firewall.done()).await {
                Ok(outcome) => self.note_firewall(outcome),
                Err(_) => {
                    tracing::warn!(name: "packet-filter-rules-late", "the packet filter's rules are not written in time");
                    return;
                }
            }
        }
    }

    /// Why the rules are not in place, and what others' rules break.
    pub(super) fn firewall_problems(&self) -> Vec<Problem> {
        let failed = self.firewall.failed.as_ref();
        let failed = failed.map(|(reason, _)| Problem::NoFirewall(reason.clone()));
        let mut problems: Vec<Problem> = failed.into_iter().collect();
        if problems.is_empty()
            && let Some((reason, _)) = &self.firewall.narrowed
        {
            problems.push(Problem::NoTranslation(reason.clone()));
        }
        let Some(subnet) = self.wanted.subnet else {
            return problems;
        };
        let now = Instant::now().into_std();
        let counters = &self.firewall.counters;
        if counters.masqueraded(now) {
            let cluster = self.settings.cluster.cidr;
            problems.push(Problem::Masqueraded { subnet, cluster });
        }
        let blocked = counters.blocked(now).into_iter();
        problems.extend(blocked.map(|passage| Problem::Blocked {
            passage,
            bridge: self.settings.bridge.clone(),
            overlay: self.settings.overlay.clone(),
            subnet,
            port: self.wanted.node_settings.vxlan_port,
        }));
        problems
    }

    /// Takes what came of a turn.
    pub(super) fn note_firewall(&mut self, outcome: Result<Outcome, NftError>) {
        if self.firewall.mends && matches!(outcome, Ok(Outcome::Written)) {
            self.firewall.repairs += 1;
            self.account.tally().repaired(Repaired::Firewall, 1);
        }
        let stood = self.firewall.stands();
        self.firewall.settle(outcome);
        // What it guarded alone gets its program at once.
        self.unplanned |= stood && !self.firewall.stands();
        let mut problems = self.problems.clone();
        problems.retain(|problem| {
            !matches!(
                problem,
                Problem::NoFirewall(_)
                    | Problem::NoTranslation(_)
                    | Problem::Masqueraded { .. }
                    | Problem::Blocked { .. }
            )
        });
        problems.extend(self.firewall_problems());
        if problems != self.problems {
            self.note_problems(problems);
        }
        self.answer_waiting();
    }
}
