//! What agents cost while nothing happens but heartbeats and waiting.
//!
//! Both ways are measured in the same seconds: on a machine that others use as well, a second differs from the next by more
//! than the two ways do.

use std::time::Duration;

use tokio::time::sleep;

use super::{Cluster, ROUNDS, agents_of, companion::Companion, list_of};
use crate::{control::measure::all_wait, usage::Usage};

/// A round of heartbeats, so that every buffer has the size it will keep, and what a rush left is given back.
const SETTLES: Duration = Duration::from_secs(12);

/// What one round showed of one way.
#[derive(Debug, Clone)]
pub(super) struct Idle {
    pub(super) cores: f64,
    /// Resident bytes with all agents waiting.
    pub(super) resident: u64,
}

impl Idle {
    fn between(before: &Usage, after: &Usage) -> Self {
        Self {
            cores: after.cores_since(before),
            resident: after.resident,
        }
    }
}

/// Has all agents of both wait, and watches for so long in each round.
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
    // One process has not enough open files for the agents of both.
    let beside = Companion::start(plain.server.address, &plain.nodes).await?;
    let agents = agents_of(&over_tls.nodes).await?;
    all_wait(&agents, over_tls.nodes.len()).await?;
    sleep(SETTLES).await;
    let failed = agents.counts().1;
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
    let failed = agents.counts().1 - failed;
    anyhow::ensure!(failed == 0, "{failed} requests over TLS failed");
    beside.stop().await
}
