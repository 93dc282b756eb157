//! What callers ask for: one way again and again, or many ways once.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{PathResult, Terms, ask::Asker, seen::Answer};
use crate::api::{
    ask::ask,
    command::{Command, Commands},
};

/// Ways that are asked along at a time by one call.
const AT_A_TIME: usize = 16;

/// What a ping is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PingTerms {
    pub(crate) count: u32,
    pub(crate) interval: Duration,
    /// Of the IPv4 packets, in bytes.
    pub(crate) size: u32,
    pub(crate) timeout: Duration,
}

/// What a ping tells.
#[derive(Debug)]
pub(crate) enum PingEvent {
    /// What became of one question.
    Pong {
        sequence: u32,
        answer: Result<Option<Answer>, String>,
    },
    /// The last.
    Result(Box<PathResult>),
}

/// Opens the way to a target.
///
/// # Errors
///
/// That nobody is meant, in the inner result, or a runtime that is shutting down.
pub(crate) async fn open(
    commands: &Commands,
    target: String,
) -> Result<Result<Asker, String>, Status> {
    let command = |reply| Command::PathGround { target, reply };
    let ground = ask(commands, command).await?;
    Ok(ground.map(|ground| Asker::new(commands.clone(), *ground)))
}

/// Asks again and again, and tells each answer. Ends early when nobody listens any more.
pub(crate) async fn ping(mut asker: Asker, terms: PingTerms, events: mpsc::Sender<PingEvent>) {
    let mut answered = 0;
    for sequence in 1..=terms.count {
        let sent = Instant::now();
        let answer = asker.ping(terms.size, terms.timeout).await;
        answered += u32::from(matches!(answer, Ok(Some(_))));
        let event = PingEvent::Pong { sequence, answer };
        if events.send(event).await.is_err() {
            return;
        }
        if sequence < terms.count {
            // Whoever is late does not catch up: the rate is what is bounded.
            tokio::select! {
                () = tokio::time::sleep_until(sent + terms.interval) => {}
                () = events.closed() => return,
            }
        }
    }
    let look = Terms {
        timeout: terms.timeout,
        search: true,
    };
    let result = asker.look(look, Some((terms.count, answered))).await;
    // Nobody may listen any more.
    let _ = events.send(PingEvent::Result(Box::new(result))).await;
}

/// Asks along many ways once, a few at a time, and answers for each in their order: what is known of it, or why nothing is.
///
/// # Errors
///
/// A runtime that is shutting down.
pub(crate) async fn look_all(
    commands: &Commands,
    targets: Vec<String>,
    terms: Terms,
    deadline: Duration,
) -> Result<Vec<(String, Result<Box<PathResult>, String>)>, Status> {
    let until = Instant::now() + deadline;
    let targets = match targets.is_empty() {
        false => targets,
        true => {
            let list = ask(commands, |reply| Command::ListPeers { reply }).await?;
            list.peers.keys().map(ToString::to_string).collect()
        }
    };
    let look = |target: String| async move {
        let name = target.clone();
        let looked = tokio::time::timeout_at(until, look(commands, target, terms)).await;
        let result = looked.unwrap_or_else(|_| {
            Ok(Err(format!(
                "it was not asked, or not to the end, within {:.1} s: ask fewer at a time, or give more time",
                deadline.as_secs_f64()
            )))
        });
        Ok((name, result?))
    };
    let all = stream::iter(targets).map(look).buffered(AT_A_TIME);
    let results: Vec<Result<_, Status>> = all.collect().await;
    results.into_iter().collect()
}

async fn look(
    commands: &Commands,
    target: String,
    terms: Terms,
) -> Result<Result<Box<PathResult>, String>, Status> {
    Ok(match open(commands, target).await? {
        Ok(asker) => Ok(Box::new(asker.look(terms, None).await)),
        Err(reason) => Err(reason),
    })
}
