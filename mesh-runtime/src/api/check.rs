//! `CheckPeers`: this node's part of a check of all nodes.

use std::time::Duration;

use mesh_proto::mesh::{CheckPeersRequest, CheckPeersResponse};
use tonic::Status;

use super::{
    ask::ask,
    command::{Command, Commands},
    path::{number, result_of, unknown},
};
use crate::probe::path::{Terms, run::look_all};

/// By when all have to be asked, in milliseconds: where the caller names nothing, the shortest, the longest.
const DEADLINES: [u32; 3] = [8_000, 500, 15_000];

/// The most peers that are asked.
const MOST_PEERS: u32 = 1024;

/// How long each answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much is asked, and by when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CheckTerms {
    deadline: Duration,
    most_peers: usize,
}

/// What a check is to do.
pub(super) fn terms(request: &CheckPeersRequest) -> Result<CheckTerms, Status> {
    let [usual, least, most] = DEADLINES;
    let deadline = number("deadline_ms", request.deadline_ms, usual, [least, most])?;
    let peers = number(
        "most_peers",
        request.most_peers,
        MOST_PEERS,
        [1, MOST_PEERS],
    )?;
    Ok(CheckTerms {
        deadline: Duration::from_millis(deadline.into()),
        most_peers: usize::try_from(peers).unwrap_or(usize::MAX),
    })
}

/// Asks this node's own peers.
pub(super) async fn check(
    commands: &Commands,
    terms: CheckTerms,
) -> Result<CheckPeersResponse, Status> {
    let list = ask(commands, |reply| Command::ListPeers { reply }).await?;
    let asked = list.peers.keys().take(terms.most_peers);
    let targets: Vec<String> = asked.map(ToString::to_string).collect();
    let left_out = list.peers.len() - targets.len();
    // No targets would be all peers, of which there may be some by now.
    let results = match targets.is_empty() {
        true => Vec::new(),
        false => {
            let how = Terms {
                timeout: PATIENCE,
                search: true,
            };
            look_all(commands, targets, how, terms.deadline).await?
        }
    };
    let results = results.into_iter().map(|(target, result)| match result {
        Ok(result) => result_of(&result),
        Err(reason) => unknown(target, reason),
    });
    Ok(CheckPeersResponse {
        results: results.collect(),
        left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_within_bounds_whatever_the_caller_says() {
        let of = |deadline_ms, most_peers| {
            terms(&CheckPeersRequest {
                deadline_ms,
                most_peers,
            })
        };
        let usual = of(0, 0).unwrap();
        assert_eq!(usual.deadline, Duration::from_secs(8));
        assert_eq!(usual.most_peers, 1024);
        assert_eq!(of(15_000, 1).unwrap().most_peers, 1);
        for (deadline_ms, most_peers) in [(499, 0), (15_001, 0), (0, 1025)] {
            let refusal = of(deadline_ms, most_peers).unwrap_err();
            assert!(refusal.message().contains("is not between"), "{refusal}");
        }
    }
}
