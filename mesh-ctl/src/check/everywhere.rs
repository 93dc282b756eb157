//! Every node to every other.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use mesh_rest::{
    check::CheckState,
    client::{CallError, Client},
    problem_kind::Kind,
};
use tokio::time::{Instant, sleep};

use super::{
    Options,
    pairs::{all_rows, silent, together},
    report::Report,
};
use crate::{Verdict, control_door, place::Place};

/// How long nodes are waited for: they are told within a second, ask for eight at most, and a large cluster begins over three.
const PATIENCE: Duration = Duration::from_secs(14);

/// Between two looks at what has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);

/// How long is waited where a check was made a moment ago.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Has all nodes asked, and prints what came of it.
pub(super) async fn run(place: &Place, options: &Options) -> anyhow::Result<Verdict> {
    let door = control_door::open(place, &options.control).await?;
    let replicas = door.clients()?;
    let id = order(&replicas).await?;
    let begun = Instant::now();
    let state = loop {
        let state = look(&replicas, &id).await?;
        let over = begun.elapsed() >= PATIENCE;
        if over || !state.nodes.is_empty() && silent(&state).next().is_none() {
            break state;
        }
        sleep(LOOK_INTERVAL).await;
    };
    let report = Report::of(all_rows(&state));
    report.print(options.json, options.verbose)?;
    Ok(report.verdict())
}

/// Orders a check of the first replica that takes it; if one was made a moment ago, when there may be another.
async fn order(replicas: &[Client]) -> anyhow::Result<String> {
    let give_up = Instant::now() + LONGEST_WAIT;
    loop {
        let mut last = None;
        for replica in replicas {
            match replica.order_check().await {
                Ok(ordered) => return Ok(ordered.id),
                Err(error) => {
                    let early = error.kind() == Some(Kind::SlowDown);
                    last = Some(error);
                    if early {
                        break;
                    }
                }
            }
        }
        let error = last.context("there is no control plane to ask")?;
        match error.retry_after() {
            Some(wait) if Instant::now() + wait < give_up => sleep(wait).await,
            _ => return Err(anyhow!(error).context("cannot have all nodes checked")),
        }
    }
}

/// What all replicas together know of it.
async fn look(replicas: &[Client], id: &str) -> anyhow::Result<CheckState> {
    let mut states = Vec::new();
    let mut last = None;
    for replica in replicas {
        match replica.check(id).await {
            Ok(state) => states.push(state),
            Err(error) => last = Some(error),
        }
    }
    // One that has not heard of it yet knows nothing of it, and neither does one that is down.
    match (together(states), last) {
        (Some(state), _) => Ok(state),
        (None, Some(error)) => Err(explained(error)),
        (None, None) => Err(anyhow!("there is no control plane to ask")),
    }
}

fn explained(error: CallError) -> anyhow::Error {
    let gone = error.kind() == Some(Kind::NoSuchCheck);
    let error = anyhow!(error);
    match gone {
        true => error.context("the control plane has forgotten the check: was it started anew?"),
        false => error,
    }
}
