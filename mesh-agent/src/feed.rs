//! The feed task: keeps the copy of the node list equal to the control plane's.
//!
//! It asks for what changed and lets the control plane wait for it, so that a change arrives
//! when it happens and ten thousand nodes cost nothing while none does. A control plane that
//! has no feed is asked for the whole list every interval.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use mesh_problems::catalog::agent::{NO_NODE_LIST, NODE_LIST_DIVERGES};
use mesh_rest::{
    client::CallError, feed_query::LONGEST_WAIT_SECONDS, node_list::NodesAnswer, overlay::Overlay,
    timing::pause_after_news,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    control_plane::{ControlPlane, ControlPlaneError, LINE_PATIENCE},
    measured::Measured,
    node::{Node, Registered},
    node_list::{NodeList, Outcome, Question},
    problems::Problems,
    reasons::Reasons,
    register::{Revocation, note},
    retry,
};

/// Time between two questions at least: under a storm of changes several come in one answer,
/// and a control plane that answers nonsense is not asked as fast as it answers.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// A control plane waits no longer than this for news.
const LONGEST_WAIT: Duration = Duration::from_secs(LONGEST_WAIT_SECONDS);

/// Time between two questions to a replica that has not caught up.
const CATCH_UP_INTERVAL: Duration = Duration::from_secs(1);

/// How the list is kept.
#[derive(Debug, Clone)]
pub struct FeedSettings {
    /// How long the control plane may wait for news, and the time between two lists of one
    /// that does not.
    pub interval: Duration,
    /// How long lists older than the copy are taken for those of a replica that lags.
    pub replica_lag: Duration,
}

/// The node list as the control plane said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The latest registration of this node that the control plane knew of when it answered.
    pub epoch: u64,
    /// The nodes by id.
    pub nodes: Arc<BTreeMap<String, Node>>,
    /// The ids of nodes that were taken out of the cluster.
    pub removed: Arc<BTreeSet<String>>,
    /// Where it stands in the control plane's feed, if there is one.
    pub revision: Option<i64>,
    /// When the control plane said so.
    pub at: Instant,
}

/// What the feed task learns from others.
#[derive(Debug)]
pub struct Sources {
    /// The node as registered.
    pub registration: watch::Receiver<Option<Registered>>,
    /// When the next heartbeat is due.
    pub beats_due: watch::Receiver<Instant>,
}

/// What the feed task tells others.
#[derive(Debug)]
pub struct Results {
    /// Whether the control plane forgot this node.
    pub revocation: Revocation,
    /// What all nodes have in common.
    pub overlay: watch::Sender<Overlay>,
    /// The node list.
    pub listed: watch::Sender<Option<Listed>>,
    /// What is wrong.
    pub problems: Problems,
    /// What is measured.
    pub measured: Measured,
}

/// What woke the task up.
enum Woken {
    Stopped,
    /// The control plane answered, or failed to.
    Answered(Box<(Asked, Result<NodesAnswer<'static>, ControlPlaneError>)>),
    /// Calls go to another replica, or over new connections.
    Moved,
    /// The node is registered, perhaps anew.
    Registered,
    /// It is time for the next question.
    Due,
}

/// Follows the list while the node is registered, until `stop`. Publishes after every answer,
/// also when nothing changed, and what the answer says that all nodes have in common.
pub async fn run(
    control_plane: ControlPlane,
    settings: FeedSettings,
    sources: Sources,
    results: Results,
    stop: CancellationToken,
) {
    let Sources {
        mut registration,
        mut beats_due,
    } = sources;
    let wait = settings.interval.min(LONGEST_WAIT);
    let mut feed = Feed::new(settings, results);
    let mut moves = control_plane.moves();
    let mut under_way: Option<UnderWay> = None;
    let mut next = Instant::now();
    let mut gives_way = false;
    loop {
        let asking = under_way.is_some();
        let woken = tokio::select! {
            biased;
            () = stop.cancelled() => Woken::Stopped,
            answered = answered(&mut under_way) => Woken::Answered(Box::new(answered)),
            changed = moves.changed(), if asking => heard(changed, Woken::Moved),
            changed = registration.changed() => heard(changed, Woken::Registered),
            changed = beats_due.changed(), if gives_way => heard(changed, Woken::Due),
            () = sleep_until(next), if !asking => Woken::Due,
        };
        // Whatever it is, a question that is under way is over.
        let given_up = under_way.take();
        match woken {
            Woken::Stopped => return,
            Woken::Answered(answered) => {
                let (asked, answer) = *answered;
                let then = feed.take(&asked, answer);
                next = then.unwrap_or_else(|| asked.at + retry::next_round(wait));
                continue;
            }
            // What waits at a replica that another task gave up waits for nothing.
            Woken::Moved => {
                let asked = given_up.map_or_else(Instant::now, |question| question.asked.at);
                next = asked + SHORTEST_INTERVAL;
                continue;
            }
            // A list asked for before a registration says nothing about it.
            Woken::Registered | Woken::Due => {}
        }
        let Some(registered) = registration.borrow_and_update().clone() else {
            next = Instant::now() + wait;
            continue;
        };
        moves.borrow_and_update();
        let now = Instant::now();
        let due = *beats_due.borrow_and_update();
        // There is one connection for both. A heartbeat that takes long does not hold the feed up.
        gives_way = due <= now && !gives_way;
        if gives_way {
            next = now + LINE_PATIENCE;
            continue;
        }
        let asked = Asked {
            at: now,
            epoch: registered.epoch,
            question: feed.list.question(),
            wait: until_the_beat(wait, due, now),
        };
        let node_id = registered.node_id;
        under_way = Some(UnderWay::ask(control_plane.clone(), node_id, asked));
    }
}

/// How long a question may wait so that the heartbeat has its turn when it is due; one that is
/// overdue takes long.
fn until_the_beat(wait: Duration, due: Instant, now: Instant) -> Duration {
    match due.saturating_duration_since(now) {
        Duration::ZERO => wait,
        left => left.min(wait),
    }
}

/// Whoever tells of changes ends with the agent.
fn heard(changed: Result<(), watch::error::RecvError>, woken: Woken) -> Woken {
    match changed {
        Ok(()) => woken,
        Err(_) => Woken::Stopped,
    }
}

/// A question to the control plane.
#[derive(Debug, Clone)]
struct Asked {
    at: Instant,
    /// The registration that was the latest then.
    epoch: u64,
    question: Question,
    /// How long the control plane may wait for news.
    wait: Duration,
}

/// One that is not answered yet. Dropping it gives it up.
struct UnderWay {
    asked: Asked,
    answer: Pin<Box<dyn Future<Output = Result<NodesAnswer<'static>, ControlPlaneError>> + Send>>,
}

impl UnderWay {
    fn ask(control_plane: ControlPlane, node_id: String, asked: Asked) -> Self {
        let (question, wait) = (asked.question.clone(), asked.wait);
        let answer = async move { control_plane.nodes(&node_id, &question, wait).await };
        Self {
            asked,
            answer: Box::pin(answer),
        }
    }
}

/// Waits for the answer, if there is one to wait for.
async fn answered(
    under_way: &mut Option<UnderWay>,
) -> (Asked, Result<NodesAnswer<'static>, ControlPlaneError>) {
    match under_way {
        Some(question) => {
            let answer = question.answer.as_mut().await;
            (question.asked.clone(), answer)
        }
        None => std::future::pending().await,
    }
}

struct Feed {
    settings: FeedSettings,
    list: NodeList,
    pace: Pace,
    log: FeedLog,
    results: Results,
}

impl Feed {
    fn new(settings: FeedSettings, results: Results) -> Self {
        Self {
            settings,
            list: NodeList::default(),
            pace: Pace::default(),
            log: FeedLog {
                problems: results.problems.clone(),
                ..FeedLog::default()
            },
            results,
        }
    }

    /// Takes an answer over and publishes it. When the next question follows; `None` if this one failed.
    fn take(
        &mut self,
        asked: &Asked,
        answer: Result<NodesAnswer<'static>, ControlPlaneError>,
    ) -> Option<Instant> {
        if let Err(ControlPlaneError::Call(CallError::UnknownNode { .. })) = &answer {
            info!(name: "control-plane-not-know-node", "the control plane does not know this node any more");
            self.results.revocation.revoke(asked.epoch);
            return None;
        }
        let told = answer
            .map_err(|error| error.to_string())
            .and_then(|answer| {
                let told = Overlay::told(answer.vxlan_port, answer.vni);
                Ok((answer, told.map_err(|error| error.to_string())?))
            });
        let (answer, told) = match told {
            Ok(told) => told,
            Err(error) => {
                self.log.failed(&error);
                return None;
            }
        };
        let now = Instant::now();
        let replica_lag = self.settings.replica_lag;
        let outcome = self.list.apply(answer, now.into_std(), replica_lag);
        self.log.answered(&asked.question, outcome);
        if let Outcome::Current { .. } = outcome {
            note(&self.results.overlay, told);
            self.results.measured.listed();
            self.results.listed.send_replace(Some(Listed {
                epoch: asked.epoch,
                nodes: self.list.nodes(),
                removed: self.list.removed(),
                revision: self.list.revision(),
                at: now,
            }));
        }
        let regular = match asked.question {
            // Who waited for news has used the time up already.
            Question::News { .. } if now >= asked.at + asked.wait => asked.wait,
            Question::News { .. } | Question::Whole => self.settings.interval.min(LONGEST_WAIT),
        };
        let advanced = self.list.question() != asked.question;
        let next = asked.at + self.pace.next(now, outcome, advanced, regular);
        let earliest = match (&asked.question, outcome) {
            (Question::News { .. }, Outcome::Current { .. }) if advanced => {
                let pause = rand::random_range(pause_after_news(self.list.nodes().len()));
                now + pause.min(regular)
            }
            _ => next,
        };
        Some(next.max(earliest))
    }
}

/// How long after a question the next one follows.
#[derive(Debug, Default)]
struct Pace {
    diverged: Option<Instant>,
}

impl Pace {
    /// After an answer at `now`. `advanced`: the next question is another one. `regular`: the
    /// time between two questions when there is no reason for another.
    fn next(
        &mut self,
        now: Instant,
        outcome: Outcome,
        advanced: bool,
        regular: Duration,
    ) -> Duration {
        let soon = SHORTEST_INTERVAL.min(regular);
        match outcome {
            Outcome::Current { .. } if advanced => soon,
            Outcome::Current { .. } => regular,
            Outcome::Lagging => CATCH_UP_INTERVAL.min(regular),
            Outcome::Diverged => {
                // Once at once. What diverges again and again is not worth whole lists at
                // the speed of the network.
                let before = self.diverged.replace(now);
                match before {
                    Some(before) if now < before + regular => regular,
                    _ => soon,
                }
            }
        }
    }
}

/// Writes a line when the feed fails, works again, or makes a difference.
#[derive(Debug, Default)]
struct FeedLog {
    problems: Problems,
    failure: Reasons<()>,
    lagging: bool,
    diverged: bool,
}

impl FeedLog {
    fn failed(&mut self, error: &str) {
        if self.failure.note((), error) {
            warn!(name: "no-node-list",
                code = NO_NODE_LIST.code,
                error, "no node list; the peers stay as they are"
            );
            self.problems.raise(&NO_NODE_LIST, error);
        }
    }

    fn answered(&mut self, question: &Question, outcome: Outcome) {
        if self.failure.resolve(&()) {
            info!(name: "node-lists-arrive-again", "node lists arrive again");
        }
        self.problems.clear(&NO_NODE_LIST);
        match outcome {
            Outcome::Current { changed } => {
                debug!(name: "node-list", ?question, changed, "node list")
            }
            Outcome::Diverged if !self.diverged => {
                warn!(name: "copy-node-list-not-control", "the copy of the node list is not the control plane's; fetching all of it");
            }
            // Once may be: a replica that is behind, or an answer that was lost.
            Outcome::Diverged => {
                debug!(name: "copy-node-list-diverged-again",
                    code = NODE_LIST_DIVERGES.code,
                    "the copy of the node list diverged again"
                );
                let observed =
                    "changes did not lead to what the list is proved to be, several times in a row";
                self.problems.raise(&NODE_LIST_DIVERGES, observed);
            }
            Outcome::Lagging if !self.lagging => info!(name: "control-plane-replica-older-node",
                "this control plane replica has an older node list than was seen already; \
                 waiting for it to catch up"
            ),
            Outcome::Lagging => {}
        }
        self.lagging = outcome == Outcome::Lagging;
        // A whole list alone does not show that changes add up again.
        let followed = matches!(question, Question::News { .. });
        self.diverged = outcome == Outcome::Diverged || self.diverged && !followed;
        if !self.diverged {
            self.problems.clear(&NODE_LIST_DIVERGES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn news_are_followed_by_a_question_at_once_and_nothing_new_by_a_pause() {
        let mut pace = Pace::default();
        let mut next = |changed, advanced| {
            let outcome = Outcome::Current { changed };
            pace.next(Instant::now(), outcome, advanced, INTERVAL)
        };
        assert_eq!(next(true, true), SHORTEST_INTERVAL);
        assert_eq!(next(false, true), SHORTEST_INTERVAL);
        assert_eq!(next(false, false), INTERVAL);
        assert_eq!(
            next(true, false),
            INTERVAL,
            "a list without a feed is polled"
        );
    }

    #[test]
    fn the_whole_list_is_fetched_at_once_but_not_again_and_again() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let mut diverge = |now| pace.next(now, Outcome::Diverged, true, INTERVAL);
        assert_eq!(diverge(start), SHORTEST_INTERVAL);
        assert_eq!(diverge(start + INTERVAL / 2), INTERVAL);
        assert_eq!(diverge(start + INTERVAL * 2), SHORTEST_INTERVAL);
    }

    #[test]
    fn who_was_told_news_lets_the_others_have_theirs_before_it_asks_again() {
        let results = Results {
            revocation: Revocation::new(),
            overlay: watch::Sender::new(Overlay::default()),
            listed: watch::Sender::new(None),
            problems: Problems::default(),
            measured: Measured::default(),
        };
        let settings = FeedSettings {
            interval: INTERVAL,
            replica_lag: INTERVAL,
        };
        let mut feed = Feed::new(settings, results);
        let answer = |revision, full| NodesAnswer {
            revision,
            full: Some(full),
            database: "a".into(),
            digest: Some("0".repeat(16)),
            ..NodesAnswer::default()
        };
        let mut tell = |revision, full| {
            let asked = Asked {
                at: Instant::now() - INTERVAL / 2,
                epoch: 1,
                question: feed.list.question(),
                wait: INTERVAL,
            };
            feed.take(&asked, Ok(answer(revision, full))).unwrap()
        };
        // The whole list is no news: what was published meanwhile is asked for at once.
        assert!(tell(1, true) < Instant::now());
        for revision in 2..20 {
            let pause = pause_after_news(0);
            let (before, next, after) = (Instant::now(), tell(revision, false), Instant::now());
            assert!(before + *pause.start() <= next && next <= after + *pause.end());
        }
    }
}
