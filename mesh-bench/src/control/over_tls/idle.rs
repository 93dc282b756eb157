//! What agents cost while nothing happens but heartbeats and waiting.
//!
//! Both ways are measured in the same seconds: on a machine that others use as well, a second differs from the next by more
//! than the two ways do.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{Cluster, ROUNDS, agents_of, companion::Companion, list_of};
use crate::{control::measure::all_wait, usage::Usage};

/// A round of heartbeats, so that every buffer has the size it will keep, and what a rush left is given back.
const SETTLES: Duration = Duration::from_secs(12);

/// By how much the agents of one way may do more than those of the other: who is asked more has more to do.
const ALIKE: f64 = 0.02;

/// What one round showed of one way.
#[derive(Debug, Clone)]
pub(super) struct Idle {
    pub(super) cores: f64,
    /// Resident bytes with all agents waiting.
    pub(super) resident: u64,
}

/// What all agents of one way did.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Activity {
    pub(super) heartbeats_per_second: f64,
    pub(super) failed: u64,
}

impl Idle {
    fn between(before: &Usage, after: &Usage) -> Self {
        Self {
            cores: after.cores_since(before),
            resident: after.resident,
        }
    }
}

impl Activity {
    /// From heartbeats and failures then, and now.
    pub(super) fn since(began: Instant, before: (u64, u64), now: (u64, u64)) -> Self {
        let heartbeats = u32::try_from(now.0 - before.0).unwrap_or(u32::MAX);
        Self {
            heartbeats_per_second: f64::from(heartbeats) / began.elapsed().as_secs_f64(),
            failed: now.1 - before.1,
        }
    }
}

/// Has all agents wait, first the plain ones alone, then both, and watches for so long in each round.
pub(super) async fn side_by_side(
    plain: &mut Cluster,
    over_tls: &mut Cluster,
    watched: Duration,
) -> anyhow::Result<()> {
    for cluster in [&mut *plain, &mut *over_tls] {
        cluster.anew().await?;
        list_of(&cluster.nodes).await?;
        cluster.without_agents = cluster.server.usage()?.resident;
    }
    // A process of their own: the usual limit of open files is not enough for the agents of both.
    let beside = Companion::start(plain.server.address, &plain.nodes).await?;
    sleep(SETTLES).await;
    let before = plain.server.usage()?;
    sleep(watched).await;
    let alone = Idle::between(&before, &plain.server.usage()?);
    eprintln!("{} alone: {alone:?}", plain.name);
    plain.alone = Some(alone);
    let agents = agents_of(&over_tls.nodes).await?;
    all_wait(&agents, over_tls.nodes.len()).await?;
    let (began, counts) = (Instant::now(), agents.counts());
    sleep(SETTLES).await;
    for _ in 0..ROUNDS {
        let before = (plain.server.usage()?, over_tls.server.usage()?);
        sleep(watched).await;
        let after = (plain.server.usage()?, over_tls.server.usage()?);
        plain.idle.push(Idle::between(&before.0, &after.0));
        over_tls.idle.push(Idle::between(&before.1, &after.1));
        for cluster in [&*plain, &*over_tls] {
            eprintln!("{}: {:?}", cluster.name, cluster.idle.last());
        }
    }
    let over_tls = Activity::since(began, counts, agents.counts());
    let plain = beside.stop().await?;
    eprintln!("what the agents did, plain: {plain:?}, over TLS: {over_tls:?}");
    let more = over_tls.heartbeats_per_second / plain.heartbeats_per_second - 1.0;
    ensure!(
        more.abs() <= ALIKE && plain.failed + over_tls.failed == 0,
        "the agents of both ways did not do the same, or requests failed"
    );
    Ok(())
}
