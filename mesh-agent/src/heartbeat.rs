//! The heartbeat task.

use std::time::Duration;

use mesh_problems::{
    Finding,
    catalog::agent::{HEARTBEAT_FAILED, HELD_OFF_AS_COPY, REPORT_REFUSED},
};
use mesh_rest::{client::CallError, heartbeat::Heartbeat};
use mesh_ticker::Ticker;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::{
    check::Answer,
    control_plane::{ControlPlane, ControlPlaneError},
    measured::Measured,
    node::Registered,
    problems::Problems,
    reasons::Reasons,
    register::Revocation,
    report::{Reporter, with_findings},
};

/// Time between two heartbeats where the control plane does not tell and the operator neither.
const INTERVAL: Duration = Duration::from_secs(10);

/// A control plane may tell no shorter and no longer one.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(20);
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Most time that the runtime has to say what a heartbeat shall carry.
const LONGEST_REPORT: Duration = Duration::from_secs(1);

/// A heartbeat that carries more peers than this may fail because of what it carries: in bytes
/// it is more than many a server or proxy takes, or a slow link carries in time.
const FEW_PEERS: usize = 150;

/// How many heartbeats carry nothing after one got through only without what it carried.
const REFUSED_BEATS: u32 = 60;

/// What the heartbeat task learns from others.
#[derive(Debug)]
pub struct Sources {
    /// The node as registered.
    pub registration: watch::Receiver<Option<Registered>>,
    /// What came of a check, which a heartbeat is made for.
    pub answers: watch::Receiver<Answer>,
}

/// What the heartbeat task tells others.
#[derive(Debug)]
pub struct Results {
    /// Whether the control plane forgot this node.
    pub revocation: Revocation,
    /// When the next heartbeat is due.
    pub due: watch::Sender<Instant>,
    /// What is wrong, which heartbeats tell.
    pub problems: Problems,
    /// What is measured.
    pub measured: Measured,
}

/// Beats every `own_interval`, or as often as the control plane told where there is none, while
/// the node is registered, until `stop`. The registration itself counts as a beat. When the next
/// one is due it publishes, so that questions to the control plane are answered by then.
///
/// An answer to a check is told at once, which is a beat as well.
///
/// When a beat is due, the runtime is asked first, and what it has not said soon is left out: what a heartbeat carries
/// makes it late by no more than that.
pub async fn run(
    control_plane: ControlPlane,
    own_interval: Option<Duration>,
    mut ticker: Ticker,
    mut reporter: Reporter,
    Sources {
        mut registration,
        mut answers,
    }: Sources,
    Results {
        revocation,
        due,
        problems,
        measured,
    }: Results,
    stop: CancellationToken,
) {
    let mut longest_report = LONGEST_REPORT;
    let mut interval = own_or_told(own_interval, None);
    let mut heart = Heart {
        control_plane,
        revocation,
        problems,
        measured,
        failure: Reasons::default(),
        silent_beats: 0,
        told: Some(Vec::new()),
        answer: None,
    };
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = registration.changed() => {
                if changed.is_err() {
                    return;
                }
                let told = registration
                    .borrow_and_update()
                    .as_ref()
                    .and_then(|registration| registration.heartbeat_interval);
                interval = own_or_told(own_interval, told);
                // It may be another node now, of which nothing was told yet.
                heart.told = heart.told.filter(Vec::is_empty);
                last = Instant::now();
                due.send_replace(last + interval);
                longest_report = LONGEST_REPORT.min(interval / 2);
                if let Err(error) = ticker.restart_every(interval) {
                    debug!(name: "clock-steady-again", %error, "the clock goes on as it did");
                }
                continue;
            }
            () = ticker.tick() => {}
            Ok(()) = answers.changed() => {
                heart.answer = answers.borrow_and_update().clone();
                // The next one is an interval after this one.
                if let Err(error) = ticker.restart_every(interval) {
                    debug!(name: "clock-steady-again-2", %error, "the clock goes on as it did");
                }
            }
        }
        let now = Instant::now();
        let (before, next) = (std::mem::replace(&mut last, now), now + interval);
        let report = tokio::select! {
            () = stop.cancelled() => return,
            report = timeout(longest_report, reporter.report()) => report.ok().flatten(),
        };
        let Some(current) = registration.borrow().clone() else {
            continue;
        };
        reporter.look_again();
        let (report, findings) = heart.gather(report);
        // Not since an interval ago: this moment may be late, and the question have been asked right after the last beat.
        if report.is_none() && heart.control_plane.counted_since(before).await {
            debug!(name: "nothing-tell", "nothing to tell; the question counted as the heartbeat");
            heart.lives();
            due.send_replace(next);
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = heart.beat(&current, report, findings) => {}
        }
        // Not before: until then a question would be in its way.
        due.send_replace(next);
    }
}

/// How often to beat: what a control plane tells that has gone astray is kept within reason.
#[must_use]
pub fn own_or_told(own: Option<Duration>, told: Option<Duration>) -> Duration {
    let told = told.map(|told| told.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL));
    own.or(told).unwrap_or(INTERVAL)
}

struct Heart {
    control_plane: ControlPlane,
    revocation: Revocation,
    problems: Problems,
    measured: Measured,
    failure: Reasons<()>,
    /// So many beats carry nothing yet.
    silent_beats: u32,
    /// The findings of this agent's that the control plane was told last, unless it may have forgotten them.
    told: Option<Vec<Finding>>,
    /// To a check, until it is told.
    answer: Answer,
}

/// What is over as soon as a heartbeat arrives that tells it.
const DISPROVED: [&str; 3] = [
    HEARTBEAT_FAILED.code,
    HELD_OFF_AS_COPY.code,
    REPORT_REFUSED.code,
];

impl Heart {
    /// What the beat that is due is to tell, given what the runtime said, and which findings of this agent's are in that.
    /// Nothing, if the runtime said nothing and the findings were told already.
    fn gather(&mut self, runtime: Option<Heartbeat>) -> (Option<Heartbeat>, Vec<Finding>) {
        self.silent_beats = self.silent_beats.saturating_sub(1);
        let mut findings = self.problems.findings();
        findings.retain(|finding| !DISPROVED.contains(&&*finding.code));
        let is_news = runtime.is_some() || self.told.as_ref() != Some(&findings);
        let is_news = is_news || self.answer.is_some();
        let report = (is_news && self.silent_beats == 0).then(|| Heartbeat {
            check: self.answer.as_deref().cloned(),
            ..with_findings(runtime, findings.clone())
        });
        (report, findings)
    }

    /// The control plane knows that this node lives.
    fn lives(&mut self) {
        if self.failure.resolve(&()) {
            info!(name: "heartbeats-arrive-again", "heartbeats arrive again");
        }
        self.problems.clear(&HEARTBEAT_FAILED);
        self.problems.clear(&HELD_OFF_AS_COPY);
        if self.silent_beats == 0 {
            self.problems.clear(&REPORT_REFUSED);
        }
    }

    async fn beat(
        &mut self,
        current: &Registered,
        mut report: Option<Heartbeat>,
        findings: Vec<Finding>,
    ) {
        let carries = report.is_some();
        let node_id = &current.node_id;
        let mut beat = self.control_plane.heartbeat(node_id, report.as_ref()).await;
        if let (Err(error), Some(told)) = (&beat, &mut report)
            && (error.is_refusal() || error.is_transient())
            && told.check.take().is_some()
        {
            // The answer to a check is the least of what is told: without it the rest may be taken.
            beat = self.control_plane.heartbeat(node_id, report.as_ref()).await;
        }
        if let (Err(error), Some(report)) = (&beat, report)
            && (error.is_refusal() || error.is_transient() && carried(&report) > FEW_PEERS)
        {
            let bare = self.control_plane.heartbeat(node_id, None).await;
            if bare.is_ok() {
                warn!(name: "control-plane-not-take-what",
                    code = REPORT_REFUSED.code, %error, peers = report.peers.len(), beats = REFUSED_BEATS,
                    "the control plane does not take what the heartbeat carries; the next ones carry nothing"
                );
                let peers = report.peers.len();
                self.problems
                    .raise(&REPORT_REFUSED, format!("with {peers} peers: {error}"));
                self.silent_beats = REFUSED_BEATS;
            }
            beat = bare;
        }
        self.measured.beat(beat.is_ok());
        match beat {
            Ok(()) => {
                debug!(name: "heartbeat", "heartbeat");
                // To a check that is over by the next one, where it did not get through.
                self.answer = None;
                if carries && self.silent_beats == 0 {
                    self.told = Some(findings);
                }
                self.lives();
            }
            Err(ControlPlaneError::Call(CallError::UnknownNode { .. })) => {
                warn!(name: "control-plane-not-know-node",
                    node_id,
                    "the control plane does not know this node any more"
                );
                // That was an answer.
                self.problems.clear(&HEARTBEAT_FAILED);
                self.problems.clear(&HELD_OFF_AS_COPY);
                self.revocation.revoke(current.epoch);
            }
            Err(ControlPlaneError::Call(CallError::Copy { detail, .. })) => {
                if self.failure.note((), &detail) {
                    error!(name: "host-held-off",
                        code = HELD_OFF_AS_COPY.code,
                        reason = detail.trim(),
                        "this host is held off: another one is this node; its peers stay as they are"
                    );
                    self.problems.raise(&HELD_OFF_AS_COPY, said(&detail));
                    self.problems.clear(&HEARTBEAT_FAILED);
                }
            }
            Err(error) => {
                let error = error.to_string();
                if self.failure.note((), &error) {
                    warn!(name: "heartbeat-failed",
                        code = HEARTBEAT_FAILED.code,
                        error, "heartbeat failed; the next one follows"
                    );
                    self.problems.raise(&HEARTBEAT_FAILED, error);
                }
            }
        }
    }
}

/// About how many peers a heartbeat tells.
fn carried(report: &Heartbeat) -> usize {
    let checked = report.check.as_ref().map_or(0, |check| check.peers.len());
    report.peers.len() + checked
}

/// What was answered, without what leads over to it.
fn said(detail: &str) -> &str {
    let detail = detail.trim();
    let inside = detail
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'));
    inside.unwrap_or(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_interval_goes_before_the_control_planes_which_is_kept_within_reason() {
        let (own, told) = (Some(Duration::from_secs(2)), Some(Duration::from_secs(5)));
        assert_eq!(own_or_told(own, told), Duration::from_secs(2));
        assert_eq!(own_or_told(None, told), Duration::from_secs(5));
        assert_eq!(own_or_told(None, None), INTERVAL);
        assert_eq!(own_or_told(None, Some(Duration::ZERO)), SHORTEST_INTERVAL);
        assert_eq!(own_or_told(None, Some(Duration::MAX)), LONGEST_INTERVAL);
    }
}
