//! A round: reads the kernel, computes what is missing, makes the changes, and keeps what went wrong.

use std::time::{SystemTime, UNIX_EPOCH};

use mesh_problems::{Changes, Severity};
use tokio::time::Instant;

use super::{Reconciler, tally::Basis};
use crate::{
    apply::Applier,
    desired::desired,
    diff::{
        change::{Change, Stage},
        diff,
    },
    netlink::NetlinkError,
    observed::dirty::Dirty,
    problem::Problem,
};

impl Reconciler {
    /// Reads what may have changed and at least `dirty`, and makes the kernel and the fast
    /// path show what is wanted.
    pub(super) async fn round(&mut self, dirty: Dirty) {
        let began = Instant::now();
        let mut problems = match self.reconcile_kernel(dirty).await {
            Ok(failed) => {
                let mut problems = self.desired.problems.clone();
                problems.extend(failed);
                let anew = std::mem::take(&mut self.look_at_programs);
                problems.extend(self.show_fast_path(anew));
                self.show_firewall();
                problems.extend(self.unguarded());
                self.keep_probe_endpoint().await;
                problems.extend(self.probe_endpoint.problem());
                problems
            }
            Err(error) => {
                self.reconnect(&error);
                // All is read again, at the pace of attempts.
                self.unplanned = false;
                vec![Problem::Observe(error.to_string())]
            }
        };
        problems.extend(self.state_writer.problem());
        problems.extend(self.firewall_problems());
        problems.extend(self.swallowed_problem());
        problems.extend(self.registered.drained());
        self.note_problems(problems);
        self.account.tally().rounds.observe(began.elapsed());
    }

    /// Makes the kernel's network show what is wanted, and says what it refused.
    pub(super) async fn reconcile_kernel(
        &mut self,
        dirty: Dirty,
    ) -> Result<Vec<Problem>, NetlinkError> {
        self.read(dirty).await?;
        let changes = self.compare();
        self.unplanned = false;
        let basis = Basis::of(&self.wanted, &self.desired);
        if changes.is_empty() {
            self.account.made(&[], 0, basis);
            return Ok(Vec::new());
        }
        let failed = Applier::new(&self.netlink, &self.settings, &self.observed)
            .apply(&changes)
            .await;
        self.account.made(&changes, failed.len(), basis);
        let of_devices = |change: &Change| change.stage() == Stage::Devices;
        if !failed.is_empty() {
            self.outdated = Dirty::all();
        } else if !changes.iter().any(of_devices) {
            let overlay = self.observed.link_named(&self.settings.overlay);
            if let Some(overlay) = overlay.map(|link| link.index) {
                for change in &changes {
                    self.observed.note(overlay, change);
                }
            }
        }
        if changes.iter().any(of_devices) {
            // The fast path needs the devices as they are now.
            self.read(Dirty::default()).await?;
            let left = self.compare();
            // Somebody may have changed something in between. What failed has its own pace.
            self.unplanned = !left.is_empty() && failed.is_empty();
        }
        Ok(failed)
    }

    /// Computes what the kernel is to show, and what has to be changed for it.
    pub(super) fn compare(&mut self) -> Vec<Change> {
        self.observed.has_programs = self.fast_path.has_programs();
        self.observed.bridge_has_program = self.bridge_has_program();
        self.note_new_ports();
        let before = &self.desired.entries;
        self.desired = desired(&self.settings, &self.wanted, &self.observed, Some(before));
        self.events.watch_routes_to(&self.desired.entries.vteps);
        diff(
            &self.settings,
            &self.desired,
            &self.observed,
            &mut self.settled,
        )
    }

    /// Keeps what went wrong for the status, tells it once, and plans the next attempt.
    pub(super) fn note_problems(&mut self, problems: Vec<Problem>) {
        if problems != self.problems {
            let told = problems.iter().map(Problem::told).collect();
            log(&self.standing.note(told, unix_seconds()));
        }
        self.schedule
            .round_done(Instant::now(), problems.iter().any(Problem::may_pass));
        self.problems = problems;
        self.account.note_health(self.health().is_ok());
        if self.events.is_closed() {
            self.reconnect(&NetlinkError::Closed);
        }
    }
}

/// Says what is new among the problems, and what is over.
fn log(changes: &Changes) {
    for problem in &changes.new {
        let code = problem.kind.code;
        match problem.kind.severity {
            Severity::Notice => tracing::info!(name: "problem", code, "{problem}"),
            Severity::Warning => tracing::warn!(name: "problem", code, "{problem}"),
            Severity::Error => tracing::error!(name: "problem", code, "{problem}"),
        }
    }
    for problem in &changes.gone {
        tracing::info!(name: "problem-ended", code = problem.kind.code, "no longer: {}", problem.observed);
    }
}

/// The wall clock, in Unix seconds; 0 for one that stands before 1970.
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
