//! The check task: answers the control plane's checks of the ways between all nodes.
//!
//! The control plane names the newest check with its answers. When that is another one than before, the runtime is asked to ask
//! its own peers, once; what came of it goes with a heartbeat that is made for it. Whom to ask, how many, how long and how
//! often is decided here and in the runtime: whatever the control plane says, it has this node do no more than that.

use std::{collections::HashMap, sync::Arc, time::Duration};

use mesh_proto::{
    mesh::{CheckPeersRequest, CheckPeersResponse, ListPeersResponse},
    way::checked,
};
use mesh_rest::check::{CheckReport, MOST_PEERS};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    control_plane::ControlPlane,
    runtime_client::{CallError, RuntimeAddress},
};

/// Between the beginnings of two checks at least.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(5);

/// By when all peers have to be asked.
const DEADLINE: Duration = Duration::from_secs(8);

/// So that not all nodes ask at once, each waits for a part of this for each peer that there is.
const SPREAD_FOR_EACH: Duration = Duration::from_millis(10);

/// And of no more than this.
const LONGEST_SPREAD: Duration = Duration::from_secs(3);

/// The longest id of a check that is answered, in bytes.
const LONGEST_ID: usize = 64;

/// What is to be told with the next heartbeat.
pub type Answer = Option<Arc<CheckReport>>;

/// Answers each new check, until `stop`. `peers` tells how many there are.
pub async fn run(
    control_plane: ControlPlane,
    runtime: RuntimeAddress,
    peers: impl Fn() -> usize,
    answers: watch::Sender<Answer>,
    stop: CancellationToken,
) {
    let mut heard = control_plane.heard();
    let mut last: Option<String> = None;
    let mut next = Instant::now();
    loop {
        let id = heard.borrow_and_update().check.clone();
        let id = id.filter(|id| id.len() <= LONGEST_ID && last.as_ref() != Some(id));
        let Some(id) = id else {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = heard.changed() => if changed.is_err() { return },
            }
            continue;
        };
        // Meanwhile there may be a newer one, which is answered instead.
        if Instant::now() < next {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(next) => {}
            }
            continue;
        }
        next = Instant::now() + SHORTEST_INTERVAL;
        last = Some(id.clone());
        let answered = async {
            sleep(spread(peers()).mul_f64(rand::random())).await;
            answer(&runtime, id).await
        };
        let report = tokio::select! {
            () = stop.cancelled() => return,
            report = answered => report,
        };
        info!(name: "asked-peers-check-all-nodes",
            check = report.id,
            ways = report.peers.len(),
            error = report.error,
            "asked the peers, for a check of all nodes"
        );
        answers.send_replace(Some(Arc::new(report)));
    }
}

/// Over how much time nodes of a cluster with so many peers begin.
fn spread(peers: usize) -> Duration {
    let peers = u32::try_from(peers).unwrap_or(u32::MAX);
    SPREAD_FOR_EACH.saturating_mul(peers).min(LONGEST_SPREAD)
}

/// What the runtime says of its ways. Over a connection of its own, so that nothing else waits for it.
async fn answer(runtime: &RuntimeAddress, id: String) -> CheckReport {
    match ask(runtime).await {
        Ok((ways, peers)) => report(id, &ways, &peers),
        Err(failure) => {
            debug!(name: "runtime-not-ask-peers", reason = %failure, "the runtime does not ask its peers");
            CheckReport {
                id,
                error: Some(failure.to_string()),
                ..CheckReport::default()
            }
        }
    }
}

async fn ask(
    runtime: &RuntimeAddress,
) -> Result<(CheckPeersResponse, ListPeersResponse), CallError> {
    let request = CheckPeersRequest {
        deadline_ms: u32::try_from(DEADLINE.as_millis()).unwrap_or(u32::MAX),
        most_peers: u32::try_from(MOST_PEERS).unwrap_or(u32::MAX),
    };
    let mut connection = runtime.connect().await?;
    let mut ways = connection.check_peers(request).await;
    // As for the data plane's task, which finds out the same.
    if let Err(failure) = &ways
        && runtime.is_elsewhere(&connection, failure)
    {
        connection = runtime.connect().await?;
        ways = connection.check_peers(request).await;
    }
    Ok((ways?, connection.list_peers().await?))
}

/// What is known of the ways, with when each peer was heard last.
fn report(id: String, ways: &CheckPeersResponse, peers: &ListPeersResponse) -> CheckReport {
    let heard: HashMap<&str, u64> = peers
        .peers
        .iter()
        .filter_map(|status| {
            let peer = status.peer.as_ref()?;
            Some((&*peer.subnet, status.last_packet_age_ms?))
        })
        .collect();
    let mut told: Vec<_> = ways.results.iter().filter_map(checked).collect();
    for way in &mut told {
        way.heard_ms = heard.get(&*way.subnet.to_string()).copied();
    }
    told.sort_by_key(|way| way.subnet);
    CheckReport {
        id,
        error: None,
        peers: told,
        left_out: ways.left_out,
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::mesh::{PathResult, PathSubject, Peer, PeerStatus};

    use super::*;

    #[test]
    fn each_way_is_told_with_when_its_peer_was_heard() {
        let way = |subnet: &str| PathResult {
            subject: Some(PathSubject {
                subnet: subnet.to_owned(),
                ..PathSubject::default()
            }),
            ..PathResult::default()
        };
        let ways = CheckPeersResponse {
            results: vec![way("10.42.3.0/24"), way("10.42.2.0/24"), way("nonsense")],
            left_out: 4,
        };
        let peers = ListPeersResponse {
            generation: 1,
            peers: vec![PeerStatus {
                peer: Some(Peer {
                    subnet: "10.42.3.0/24".to_owned(),
                    ..Peer::default()
                }),
                last_packet_age_ms: Some(7),
                ..PeerStatus::default()
            }],
        };
        let report = report("1".to_owned(), &ways, &peers);
        let told: Vec<_> = report
            .peers
            .iter()
            .map(|way| (way.subnet.to_string(), way.heard_ms))
            .collect();
        assert_eq!(
            told,
            [
                ("10.42.2.0/24".to_owned(), None),
                ("10.42.3.0/24".to_owned(), Some(7))
            ]
        );
        assert_eq!((report.left_out, report.error), (4, None));
    }

    #[test]
    fn nodes_of_a_large_cluster_begin_over_a_few_seconds() {
        assert_eq!(spread(0), Duration::ZERO);
        assert_eq!(spread(9), Duration::from_millis(90));
        assert_eq!(spread(usize::MAX), LONGEST_SPREAD);
    }
}
