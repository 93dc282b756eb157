//! The fast path's place in the loop: opened beside it, shown the result of each round.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    task::{JoinError, JoinHandle},
    time::Instant,
};

use super::{Reconciler, tally::Repaired};
use crate::{
    ebpf::{
        AttachDone, FastPath, FastPathChanges, FastPathError, FastPathOptions, FastPathState,
        Hooks, detach_leftovers, stands_at_bridge,
    },
    observed::{Observed, dirty::Dirty},
    options::RuntimeOptions,
    problem::Problem,
};

/// The time between two readings of the maps because of dropped packets.
const MAPS_PACE: Duration = Duration::from_secs(1);

/// Where the fast path stands.
pub(crate) enum FastPathSlot {
    /// Nobody has looked yet.
    Unopened,
    /// Being loaded; the kernel path works meanwhile.
    Opening(JoinHandle<Result<FastPath, FastPathError>>),
    /// This host cannot do it.
    Unavailable(String),
    /// Loaded.
    Open(Box<OpenFastPath>),
}

/// What has come to its end.
pub(super) enum Progress {
    Opened(Result<Box<FastPath>, String>),
    Attached(Box<Result<AttachDone, JoinError>>),
}

/// A loaded fast path.
pub(crate) struct OpenFastPath {
    pub(super) fast_path: FastPath,
    /// What its maps were shown last, if they took it.
    pub(super) shown: Option<FastPathState>,
    /// What was attached last, as far as that went.
    attached: Option<Hooks>,
    /// Interfaces at which not all of that is in place.
    missing: BTreeSet<u32>,
    /// Programs on their way to being attached.
    attaching: Option<JoinHandle<AttachDone>>,
    /// Whether to look at the attachments once that is done: it may have looked already.
    look_again: bool,
    /// Why the maps were not written.
    pub(super) unwritten: Option<String>,
    /// What could not be attached.
    unattached: Option<Unattached>,
}

/// What came of attaching that did not go well.
struct Unattached {
    reason: String,
    /// Whether some port alone is left out, and the rest carries traffic.
    partly: bool,
}

impl OpenFastPath {
    /// Whether the programs have been attached at least once.
    pub(super) fn is_attached(&self) -> bool {
        self.attached.is_some()
    }

    /// Why it does not carry traffic.
    pub(super) fn refused(&self) -> Option<&str> {
        let unattached = self.unattached.as_ref().filter(|it| !it.partly);
        self.unwritten
            .as_deref()
            .or(unattached.map(|it| it.reason.as_str()))
    }

    /// What went wrong, whether it carries traffic or not.
    fn problem(&self) -> Option<Problem> {
        let unattached = self.unattached.as_ref().map(|it| &it.reason);
        let reason = self.unwritten.as_ref().or(unattached)?;
        Some(Problem::FastPath(reason.clone()))
    }

    /// Starts to attach what belongs to the state shown last, unless that is done, or being
    /// done. `anew` looks at what is attached as well, in case somebody has detached it.
    fn attach(&mut self, anew: bool) {
        let Some(state) = &self.shown else { return };
        let hooks = self.fast_path.hooks(state);
        let done = self.attached.as_ref() == Some(&hooks) && self.unattached.is_none();
        if done && (!anew || self.fast_path.holds(&hooks)) {
            return;
        }
        match self.fast_path.attach_job(state, anew) {
            Some(job) => self.attaching = Some(tokio::task::spawn_blocking(move || job.run())),
            None => self.look_again |= anew,
        }
    }
}

impl FastPathSlot {
    /// A fast path that is open already.
    pub(crate) fn open(fast_path: FastPath) -> Self {
        Self::Open(Box::new(OpenFastPath {
            fast_path,
            shown: None,
            attached: None,
            missing: BTreeSet::new(),
            attaching: None,
            look_again: false,
            unwritten: None,
            unattached: None,
        }))
    }

    /// Whether there are programs, attached or about to be.
    pub(super) fn has_programs(&self) -> bool {
        matches!(self, Self::Open(open) if open.is_attached() || open.refused().is_none())
    }

    /// Starts opening it.
    pub(super) fn begin(&mut self, options: &RuntimeOptions) {
        if !matches!(self, Self::Unopened) {
            return;
        }
        let options = fast_path_options(options);
        *self = Self::Opening(tokio::task::spawn_blocking(move || {
            FastPath::open(&options)
        }));
    }

    /// Generation of the peer set that the maps of an open fast path show.
    pub(super) fn generation(&self) -> Option<u64> {
        match self {
            Self::Open(open) => open.fast_path.report().ok().map(|report| report.generation),
            _ => None,
        }
    }

    /// Waits until what is under way has come to its end; for ever if nothing is. Cancel safe.
    pub(super) async fn progress(&mut self) -> Progress {
        match self {
            Self::Opening(task) => Progress::Opened(match task.await {
                Ok(result) => result.map(Box::new).map_err(|error| error.to_string()),
                Err(error) => Err(format!("loading it ended early: {error}")),
            }),
            Self::Open(open) => match &mut open.attaching {
                Some(task) => Progress::Attached(Box::new(task.await)),
                None => std::future::pending().await,
            },
            _ => std::future::pending().await,
        }
    }

    /// Notified of packets that a program has dropped.
    pub(super) fn dropped(&self) -> Option<Arc<Notify>> {
        match self {
            Self::Open(open) => Some(open.fast_path.dropped()),
            _ => None,
        }
    }

    /// Lets what is under way come to its end.
    pub(super) async fn finish(&mut self) {
        if let Self::Open(open) = self
            && let Some(task) = open.attaching.take()
        {
            let _ = task.await;
        }
    }

    /// Whether programs are attached as filters, as far as that is known.
    pub(super) fn attaches_filters(&self) -> bool {
        matches!(self, Self::Open(open) if open.fast_path.attaches_filters())
    }

    /// Whether the programs of a port, or of the bridge, were attached.
    pub(super) fn has_program(&self, port: u32) -> bool {
        let Self::Open(open) = self else {
            return false;
        };
        let attached = open.attached.as_ref();
        attached.is_some_and(|hooks| hooks.include(port)) && !open.missing.contains(&port)
    }

    /// Whether the program of a port is attached, or will not be, whatever is still to come for others. Of one that is
    /// `left_free`, the bridge's is.
    pub(super) fn guards(&self, port: u32, left_free: bool) -> bool {
        match self {
            Self::Unopened | Self::Opening(_) => false,
            Self::Unavailable(_) => true,
            Self::Open(open) => {
                let attached = open.attached.as_ref();
                attached.is_some_and(|hooks| left_free || hooks.include(port))
                    || open.attaching.is_none() && open.refused().is_some()
            }
        }
    }

    /// Whether programs are on their way to being attached.
    pub(super) fn is_attaching(&self) -> bool {
        matches!(self, Self::Open(open) if open.attaching.is_some())
    }

    /// Whether they are so for the first time, so that none carries traffic yet.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self, Self::Open(open) if open.attaching.is_some() && !open.is_attached())
    }
}

/// Detaches what an earlier run left attached.
async fn detach(options: &RuntimeOptions, observed: &Observed) {
    let bpffs = options.bpffs.clone();
    let interfaces: Vec<String> = observed
        .links
        .values()
        .map(|link| link.name.clone())
        .collect();
    let detached =
        tokio::task::spawn_blocking(move || detach_leftovers(&bpffs, &interfaces, false)).await;
    match detached {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::warn!(name: "cannot-detach-programs-earlier-run", %error, "cannot detach programs that an earlier run may have left");
        }
        Err(error) => {
            tracing::warn!(name: "detaching-earlier-programs-ended", %error, "detaching programs of an earlier run ended early")
        }
    }
}

fn entries(changes: FastPathChanges) -> u64 {
    let FastPathChanges {
        added,
        changed,
        removed,
    } = changes;
    [added, changed, removed].into_iter().map(u64::from).sum()
}

/// The fast path's part of the options.
pub(crate) fn fast_path_options(options: &RuntimeOptions) -> FastPathOptions {
    FastPathOptions {
        bpffs: options.bpffs.clone(),
        max_peers: options.max_peers(),
        attach: options.attach,
        log_programs: tracing::enabled!(tracing::Level::DEBUG),
    }
}

impl Reconciler {
    /// Reads the maps, and puts right what somebody else has changed.
    pub(super) fn compare_maps(&mut self) {
        self.compare_maps_from = Instant::now() + MAPS_PACE;
        if let FastPathSlot::Open(open) = &mut self.fast_path
            && let Some(shown) = &open.shown
            && open.unwritten.is_none()
        {
            match open.fast_path.show_maps(shown, true) {
                Ok(changes) if changes == FastPathChanges::default() => {}
                Ok(changes) => {
                    self.account
                        .tally()
                        .repaired(Repaired::MapEntry, entries(changes));
                    tracing::info!(name: "somebody-changed-fast-path-maps",
                        added = changes.added,
                        changed = changes.changed,
                        removed = changes.removed,
                        "somebody changed the fast path's maps: peers written anew"
                    );
                }
                // The next round says what is wrong, and tries again.
                Err(error) => {
                    tracing::debug!(name: "cannot-compare-maps", %error, "cannot compare the maps")
                }
            }
        }
    }

    /// Shows the fast path the result of a round; `anew` has it look at its attachments too.
    pub(super) fn show_fast_path(&mut self, anew: bool) -> Option<Problem> {
        let FastPathSlot::Open(open) = &mut self.fast_path else {
            return None;
        };
        let state = self.desired.fast_path.clone()?;
        let tally = self.account.tally();
        if anew {
            match open.fast_path.restore_pins() {
                Ok(0) => {}
                Ok(pins) => {
                    let pins = u64::try_from(pins).unwrap_or(u64::MAX);
                    tally.repaired(Repaired::Pin, pins);
                    tracing::info!(name: "somebody-removed-pins-maps-links", pins, "somebody removed pins of maps or links: made again");
                }
                Err(error) => {
                    tracing::warn!(name: "cannot-make-pins-maps-links", %error, "cannot make the pins of maps and links again");
                }
            }
        }
        match open.fast_path.show_maps(&state, anew) {
            Ok(changes) => {
                if open.shown.as_ref() == Some(&state) && open.unwritten.is_none() {
                    tally.repaired(Repaired::MapEntry, entries(changes));
                }
                open.shown = Some(state);
                open.unwritten = None;
                open.attach(anew);
            }
            Err(error) => {
                // Programs that go by maps that lag must not carry traffic; they guard.
                if let Err(error) = open.fast_path.stop_forwarding() {
                    tracing::warn!(name: "cannot-programs-leave-forwarding-kernel", %error, "cannot have the programs leave forwarding to the kernel");
                }
                open.unwritten = Some(error.to_string());
            }
        }
        open.problem()
    }

    /// Why no program checks what containers send.
    pub(super) fn unguarded(&self) -> Option<Problem> {
        match &self.fast_path {
            FastPathSlot::Unavailable(reason) => Some(Problem::Unguarded(reason.clone())),
            _ => None,
        }
    }

    /// Takes the result of opening.
    pub(super) async fn note_opened(&mut self, opened: Result<Box<FastPath>, String>) {
        match opened {
            Ok(fast_path) => self.fast_path = FastPathSlot::open(*fast_path),
            Err(reason) => {
                tracing::warn!(name: "no-fast-path", %reason, "no fast path: this node runs on the kernel path");
                self.fast_path = FastPathSlot::Unavailable(reason);
                // Programs of an earlier run would go by maps that nobody keeps up to date. When they go, the rules
                // stand in for them.
                self.round(Dirty::default()).await;
                self.write_rules().await;
                detach(&self.options, &self.observed).await;
            }
        }
        self.adopt_generation();
        self.round(Dirty::default()).await;
    }

    /// Whether our bridge's program is known to stand: ours, or until that is attached an earlier run's.
    pub(super) fn bridge_has_program(&self) -> bool {
        let Some(bridge) = self.observed.link_named(&self.settings.bridge) else {
            return false;
        };
        match &self.fast_path {
            FastPathSlot::Unavailable(_) => false,
            FastPathSlot::Open(open) if open.is_attached() => {
                self.fast_path.has_program(bridge.index)
            }
            _ => stands_at_bridge(&self.options.bpffs, bridge.index),
        }
    }

    /// Takes what became of attaching.
    pub(super) fn note_attached(&mut self, done: Result<AttachDone, JoinError>) {
        let FastPathSlot::Open(open) = &mut self.fast_path else {
            return;
        };
        open.attaching = None;
        match done {
            Ok(done) => {
                let outcome = open.fast_path.attached(done);
                if outcome.attached + outcome.detached > 0 {
                    tracing::info!(name: "fast-path-programs-moved",
                        attached = outcome.attached,
                        detached = outcome.detached,
                        "fast path programs moved"
                    );
                }
                if open.attached.as_ref() == Some(&outcome.wanted) && open.unattached.is_none() {
                    let tally = self.account.tally();
                    tally.repaired(Repaired::Program, outcome.attached.into());
                }
                open.attached = Some(outcome.wanted);
                open.missing = outcome.missing;
                open.unattached = outcome.failure.map(|failure| Unattached {
                    reason: failure.to_string(),
                    partly: outcome.whole,
                });
                // What has come up meanwhile; a failure is tried again by the next round.
                if open.unattached.is_none() {
                    let anew = std::mem::take(&mut open.look_again);
                    open.attach(anew);
                }
            }
            Err(error) => {
                self.fast_path =
                    FastPathSlot::Unavailable(format!("attaching its programs failed: {error}"));
            }
        }
        // The packet filter may let go of what programs have now, or has to judge it again.
        let mut awaiting = self.observed.awaiting_programs.iter();
        self.unplanned |= awaiting.any(|&port| self.fast_path.has_program(port));
        self.unplanned |= self.observed.bridge_has_program != self.bridge_has_program();
        self.note_fast_path_problem();
        self.answer_waiting();
    }

    /// Keeps the problems in step with what became of attaching.
    fn note_fast_path_problem(&mut self) {
        let mut problems = self.problems.clone();
        problems.retain(|problem| !matches!(problem, Problem::FastPath(_)));
        if let FastPathSlot::Open(open) = &self.fast_path {
            problems.extend(open.problem());
        }
        if problems != self.problems {
            self.note_problems(problems);
        }
    }
}
