//! One of several control planes on one PostgreSQL database.
//!
//! They are equal, and keep nothing that another needs. Allocations follow one another by the lock of
//! the row `cluster`. What changed is told by NOTIFY, and read every second whatever was told.
//!
//! Heartbeats arrive at any replica, which tells the others within [`TELL_INTERVAL`]; each keeps them in
//! memory, by its own monotonic clock, so that no machine's wall clock matters. Whoever finds a node
//! silent turns it down only after a *fence*: a message that it sends and gets back through the database.
//! PostgreSQL delivers messages in the order of their commits, so by then it has heard every heartbeat
//! that any replica told of before. Without the database there is no fence, and nobody is turned down; and
//! after a gap in what was told everybody has a full timeout again.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mesh_rest::overlay::Overlay;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::cluster::liveness::Untold;
use crate::cluster::node::NodeId;
use crate::cluster::succession::Succession;
use crate::registry::{ChangeError, Registry, unix_seconds};
use crate::store::{LONGEST_PAYLOAD, Listener, Message, StoreError};
use crate::write::batch::{BATCH_DEADLINE, within};

/// How often heartbeats are told to the other replicas.
const TELL_INTERVAL: Duration = Duration::from_millis(250);

/// How much longer than its timeout a node may be silent: so long may the last heartbeat be on its way
/// from another replica. Together with [`TELL_INTERVAL`] it leaves a node down within a second.
pub(crate) const GRACE: Duration = Duration::from_millis(450);

/// How often what changed is read, although nobody told of it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// After so long without an answer of the database, clients are sent to another replica.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// How long a fence may take.
const FENCE_DEADLINE: Duration = Duration::from_secs(2);

/// Between attempts to reach the database.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Messages that were received and not yet taken in.
const MOST_MESSAGES: usize = 1024;

/// What a replica knows of its connection to the others.
#[derive(Debug)]
pub(crate) struct Replica {
    /// Its name in messages: random, made at its start.
    name: String,
    /// When the database answered last.
    contact: Mutex<Instant>,
    fences: AtomicU64,
    /// The last fence that came back.
    fence: watch::Sender<u64>,
    /// Other settings than this replica's, if another was started with them since.
    outvoted: Mutex<Option<Overlay>>,
}

impl Replica {
    pub(crate) fn new() -> Self {
        Self {
            name: uuid::Uuid::new_v4().simple().to_string(),
            contact: Mutex::new(Instant::now()),
            fences: AtomicU64::new(0),
            fence: watch::Sender::new(0),
            outvoted: Mutex::default(),
        }
    }

    /// Takes note of the settings that the database has: those of whoever started last.
    pub(crate) fn compare(&self, given: Overlay, current: Overlay) {
        let other = Some(current).filter(|current| *current != given);
        let mut outvoted = self.outvoted.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *outvoted, other) != other
            && let Some(current) = other
        {
            let error = StoreError::OtherOverlay { given, current };
            error!(%error, "this replica refuses its clients, so that they ask another one");
        }
    }

    fn outvoted(&self) -> Option<Overlay> {
        *self.outvoted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_contact(&self) {
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_lost(&self) -> bool {
        let contact = *self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        contact.elapsed() > LOST_AFTER
    }
}

/// What a payload says: who sent it, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told<'a> {
    Fence(u64),
    /// Node ids with the Unix seconds of their last heartbeat, by the sender's clock.
    Beats(Vec<(&'a str, i64)>),
    /// Node ids with the tokens that they have by now.
    Tokens(Vec<(&'a str, Succession)>),
}

/// Reads a payload; what it does not understand is of a newer version.
fn read(payload: &str) -> Option<(&str, Told<'_>)> {
    let mut words = payload.split(' ');
    let (sender, kind) = (words.next()?, words.next()?);
    let told = match kind {
        "fence" => Told::Fence(words.next()?.parse().ok()?),
        "beats" => Told::Beats(pairs(words)),
        "tokens" => Told::Tokens(pairs(words)),
        _ => return None,
    };
    Some((sender, told))
}

fn pairs<'a, T: FromStr>(words: impl Iterator<Item = &'a str>) -> Vec<(&'a str, T)> {
    let pair = |word: &'a str| {
        let (node_id, value) = word.split_once('=')?;
        Some((node_id, value.parse().ok()?))
    };
    words.filter_map(pair).collect()
}

/// Payloads that tell of these heartbeats, none too long, each with the heartbeats it has. Tokens first, in payloads
/// of their own, which replicas of an earlier version do not understand.
fn payloads<'a>(sender: &str, untold: &'a [Untold]) -> Vec<(String, &'a [Untold])> {
    let tokens = |untold: &Untold| {
        let succession = untold.succession.as_ref()?;
        Some(format!(" {}={succession}", untold.node_id))
    };
    let beats = |untold: &Untold| Some(format!(" {}={}", untold.node_id, untold.last_heartbeat));
    let mut payloads = packed(&format!("{sender} tokens"), untold, tokens);
    payloads.extend(packed(&format!("{sender} beats"), untold, beats));
    payloads
}

fn packed<'a>(
    head: &str,
    mut untold: &'a [Untold],
    word: impl Fn(&Untold) -> Option<String>,
) -> Vec<(String, &'a [Untold])> {
    let mut payloads = Vec::new();
    while !untold.is_empty() {
        let mut payload = head.to_owned();
        let mut taken = 0;
        for entry in untold {
            let word = word(entry).unwrap_or_default();
            if taken > 0 && payload.len() + word.len() > LONGEST_PAYLOAD {
                break;
            }
            payload.push_str(&word);
            taken += 1;
        }
        let (told, rest) = untold.split_at(taken);
        if payload.len() > head.len() {
            payloads.push((payload, told));
        }
        untold = rest;
    }
    payloads
}

impl Registry {
    /// Follows what the other replicas do, until `stop`. Does nothing where there are none.
    pub async fn follow_replicas(self: Arc<Self>, stop: CancellationToken) {
        let Some(replica) = &self.replica else {
            return stop.cancelled().await;
        };
        let mut reported = false;
        loop {
            let followed = tokio::select! {
                () = stop.cancelled() => return,
                followed = self.follow(replica, &mut reported) => followed,
            };
            if !std::mem::replace(&mut reported, true) {
                let error = followed.err().map(|error| error.to_string());
                warn!(
                    error,
                    "the connection to PostgreSQL is lost; no node is turned down meanwhile"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY_INTERVAL) => {}
            }
        }
    }

    /// Ends when the connection does.
    async fn follow(&self, replica: &Replica, reported: &mut bool) -> Result<(), Arc<StoreError>> {
        let Some(listener) = within(BATCH_DEADLINE, self.store.listen()).await? else {
            return Ok(());
        };
        // In this order: what is told from here on is heard, what was told before is read.
        self.try_catch_up().await?;
        self.copy
            .memory()
            .liveness
            .give_full_timeout(Instant::now());
        replica.has_contact();
        if std::mem::take(reported) {
            info!("connected to PostgreSQL again; every node has a full timeout from now");
        }
        let (sender, mut messages) = mpsc::channel(MOST_MESSAGES);
        // Its own task, because a message half received must not be given up for the poll.
        let mut receiving = JoinSet::new();
        receiving.spawn(receive(listener, sender));
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut changed = false;
            tokio::select! {
                message = messages.recv() => {
                    let Some(message) = message else { return Ok(()) };
                    changed |= self.take_message(replica, message);
                    while let Ok(message) = messages.try_recv() {
                        changed |= self.take_message(replica, message);
                    }
                }
                _ = poll.tick() => changed = true,
            }
            if changed {
                self.try_catch_up().await?;
                replica.has_contact();
            }
        }
    }

    /// Whether it says that there is something to read.
    fn take_message(&self, replica: &Replica, message: Message) -> bool {
        let payload = match message {
            Message::Changed => return true,
            Message::Beats(payload) => payload,
        };
        match read(&payload) {
            Some((sender, Told::Fence(number))) if sender == replica.name => {
                replica.fence.send_replace(number);
            }
            Some((sender, Told::Beats(beats))) if sender != replica.name => {
                // Times are shown by this replica's clock, which the sender's need not agree with.
                let (now, unix_seconds) = (Instant::now(), unix_seconds());
                let mut memory = self.copy.memory();
                for (node_id, _) in beats {
                    memory.liveness.hear(node_id, now, unix_seconds);
                }
            }
            Some((sender, Told::Tokens(tokens))) if sender != replica.name => {
                let liveness = &mut self.copy.memory().liveness;
                for (node_id, succession) in tokens {
                    if liveness.status(node_id).is_some() {
                        liveness.learn(&NodeId::from(node_id.to_owned()), &succession);
                    }
                }
            }
            _ => {}
        }
        false
    }

    /// Tells the other replicas which heartbeats were received, until `stop`.
    pub async fn tell_replicas(self: Arc<Self>, stop: CancellationToken) {
        let Some(replica) = &self.replica else {
            return stop.cancelled().await;
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TELL_INTERVAL) => {}
            }
            let untold = self.copy.memory().liveness.take_untold();
            for (payload, told) in payloads(&replica.name, &untold) {
                let telling = within(BATCH_DEADLINE, self.store.tell_beats(&payload));
                // The follower reports that the database does not answer.
                if telling.await.is_err() {
                    self.copy.memory().liveness.put_back_untold(told);
                }
            }
        }
    }

    /// Turns down who is silent although every heartbeat that was told of is heard.
    pub(crate) async fn turn_down_together(&self, replica: &Replica) {
        if self
            .copy
            .memory()
            .liveness
            .silent(Instant::now(), GRACE)
            .is_empty()
        {
            return;
        }
        let turned = async {
            self.fence(replica).await?;
            let silent = self.copy.memory().liveness.silent(Instant::now(), GRACE);
            if silent.is_empty() {
                return Ok(silent);
            }
            let _turn = self.turn.lock().await;
            within(BATCH_DEADLINE, async {
                let mut change = self.store.begin_change().await?;
                change.turn_down(&silent).await?;
                change.finish().await
            })
            .await?;
            self.try_catch_up().await?;
            Ok::<_, Arc<StoreError>>(silent)
        };
        match turned.await {
            Ok(silent) => {
                for node_id in silent {
                    warn!(%node_id, "node is down: no heartbeat within the node timeout");
                }
            }
            // They stay up, and it is tried again.
            Err(error) => warn!(%error, "silent nodes cannot be turned down now"),
        }
    }

    async fn fence(&self, replica: &Replica) -> Result<(), StoreError> {
        let number = 1 + replica.fences.fetch_add(1, Ordering::Relaxed);
        let mut fence = replica.fence.subscribe();
        within(FENCE_DEADLINE, async {
            let payload = format!("{} fence {number}", replica.name);
            self.store.tell_beats(&payload).await?;
            // Fails only without a sender, which the replica has.
            let _ = fence.wait_for(|seen| *seen >= number).await;
            Ok(())
        })
        .await
    }

    /// Refuses when this replica tells nodes other settings than the one that started last, so that its clients ask
    /// that one.
    fn check_settings(&self) -> Result<(), ChangeError> {
        let Some(current) = self.replica.as_ref().and_then(Replica::outvoted) else {
            return Ok(());
        };
        let given = self.store.overlay();
        let error = StoreError::OtherOverlay { given, current };
        Err(ChangeError::Store(Arc::new(error)))
    }

    /// Refuses when this replica has lost the database, or has other settings than the one that started last.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Store`].
    pub(crate) fn check_contact(&self) -> Result<(), ChangeError> {
        self.check_settings()?;
        let lost = self.replica.as_ref().is_some_and(Replica::is_lost);
        if lost {
            let why = "no answer for some seconds; ask another replica meanwhile".to_owned();
            return Err(ChangeError::Store(Arc::new(StoreError::Unreachable(why))));
        }
        Ok(())
    }

    /// Reads what other replicas may have changed a moment ago; where there are none, there is nothing.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Store`], when this replica has lost the database, or has other settings than others. If it does not answer just
    /// now, what is in memory is at most some seconds old.
    pub async fn refresh(&self) -> Result<(), ChangeError> {
        let Some(replica) = &self.replica else {
            return Ok(());
        };
        if !replica.is_lost() && self.try_catch_up().await.is_ok() {
            return self.check_settings();
        }
        self.check_contact()
    }
}

async fn receive(mut listener: Listener, messages: mpsc::Sender<Message>) {
    while let Some(message) = listener.next().await {
        if messages.send(message).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_told_is_what_is_read(
            seconds in prop::collection::vec((any::<i64>(), any::<Option<(u32, u64)>>()), 0..600),
        ) {
            let told: Vec<_> = seconds.iter()
                .map(|(seconds, token)| Untold {
                    node_id: NodeId::from(format!("00000000-0000-4000-8000-{seconds:020}")),
                    last_heartbeat: *seconds,
                    succession: token.map(|(number, nonce)| format!("{number}.{nonce:016x},7.{nonce:016x}")),
                })
                .collect();
            let (mut heard, mut learned) = (Vec::new(), Vec::new());
            let mut covered = 0;
            for (payload, part) in payloads("me", &told) {
                prop_assert!(payload.len() <= LONGEST_PAYLOAD && !part.is_empty());
                match read(&payload) {
                    Some(("me", Told::Beats(beats))) => {
                        covered += part.len();
                        heard.extend(beats.into_iter().map(|(id, at)| (id.to_owned(), at)));
                    }
                    Some(("me", Told::Tokens(tokens))) => {
                        prop_assert!(heard.is_empty(), "tokens come first");
                        learned.extend(tokens.into_iter().map(|(id, tokens)| (id.to_owned(), tokens)));
                    }
                    _ => return Err(TestCaseError::fail(payload)),
                }
            }
            prop_assert_eq!(covered, told.len());
            let beats = told.iter().map(|it| (it.node_id.to_string(), it.last_heartbeat));
            prop_assert_eq!(heard, beats.collect::<Vec<_>>());
            let tokens = told.iter().filter_map(|it| {
                Some((it.node_id.to_string(), it.succession.as_ref()?.parse().unwrap()))
            });
            prop_assert_eq!(learned, tokens.collect::<Vec<(String, Succession)>>());
        }
    }

    #[test]
    fn a_fence_names_its_sender() {
        assert_eq!(read("me fence 7"), Some(("me", Told::Fence(7))));
        assert_eq!(read("me fence"), None);
        assert_eq!(read("me moat 7"), None);
        assert_eq!(read(""), None);
    }
}
