//! What replicas tell each other: which heartbeats they received, fences, and who has the authority's key.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mesh_rest::node_id::NodeId;
use tokio_util::sync::CancellationToken;

use super::Replica;
use crate::cluster::liveness::Untold;
use crate::cluster::succession::Succession;
use crate::registry::{Registry, unix_seconds};
use crate::store::{LONGEST_PAYLOAD, Message};
use crate::write::batch::{BATCH_DEADLINE, within};

/// How often heartbeats are told to the other replicas.
const TELL_INTERVAL: Duration = Duration::from_millis(250);

/// What a payload says: who sent it, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told<'a> {
    Fence(u64),
    /// Node ids with the Unix seconds of their last heartbeat, by the sender's clock.
    Beats(Vec<(&'a str, i64)>),
    /// Node ids with the tokens that they have by now.
    Tokens(Vec<(&'a str, Succession)>),
    /// Nodes are to be told of the check with that id.
    Check(&'a str),
    /// Whoever hears it shall say whether it has the key of the authority that signs.
    WhoSigns,
    /// That it has it, or not.
    Signs(bool),
}

/// Reads a payload; what it does not understand is of a newer version.
pub(super) fn read(payload: &str) -> Option<(&str, Told<'_>)> {
    let mut words = payload.split(' ');
    let (sender, kind) = (words.next()?, words.next()?);
    let told = match kind {
        "fence" => Told::Fence(words.next()?.parse().ok()?),
        "beats" => Told::Beats(pairs(words)),
        "tokens" => Told::Tokens(pairs(words)),
        "check" => Told::Check(words.next()?),
        "who-signs" => Told::WhoSigns,
        "signs" => Told::Signs(true),
        "cannot-sign" => Told::Signs(false),
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
    /// Whether it says that there is something to read.
    pub(super) fn take_message(&self, replica: &Replica, message: Message) -> bool {
        let payload = match message {
            Message::Changed => return true,
            Message::Beats(payload) => payload,
        };
        match read(&payload) {
            Some((sender, Told::Fence(number))) if sender == replica.name => {
                replica.fence.send_replace(number);
            }
            Some((sender, Told::WhoSigns)) if sender != replica.name => {
                replica.asked_who_signs.store(true, Ordering::Relaxed);
            }
            Some((sender, Told::Check(id))) if sender != replica.name => {
                self.checks.hear(id, self.who_is_up());
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

    /// What tells the other replicas of a check; `None`: there can be none.
    pub(crate) fn check_told(&self, id: &str) -> Option<String> {
        let replica = self.replica.as_ref()?;
        Some(format!("{} check {id}", replica.name))
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
            if replica.asked_who_signs.swap(false, Ordering::Relaxed) {
                self.say_whether_it_signs(replica).await;
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
        assert_eq!(read("me check 5eed"), Some(("me", Told::Check("5eed"))));
        assert_eq!(read("me check"), None);
        assert_eq!(read("me fence"), None);
        assert_eq!(read("me moat 7"), None);
        assert_eq!(read(""), None);
    }
}
