//! What the runtime finds by asking along the ways to peers.

use std::{collections::BTreeMap, io, time::Duration};

use mesh_client::{
    ClientError, Pinger,
    mesh::{PathFinding, PathResult, ProbePathRequest},
};
use mesh_doctor::{Area, Known};
use mesh_problems::{
    Problem,
    catalog::{self, path::PATH_NOT_FAST},
};
use tokio::time::timeout;

use crate::place::Place;

const NAME: &str = "ways to peers";
/// How many peers are asked at most: as many as the runtime asks at a time. Of more, every so-manieth is asked.
const MOST: usize = 16;
/// By when all have to be asked.
const DEADLINE_MS: u32 = 4_000;
/// How long each answer is waited for.
const ANSWER_MS: u32 = 500;
/// How long the runtime's answer is waited for: its own deadline, and some time to connect and to end a search.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many peers are named in one finding.
const NAMED: usize = 3;

/// Asks, unless there is nobody to ask.
pub(super) async fn ask(place: &Place, known: &Known) -> Area {
    if !known.runtime {
        return Area::not_looked(NAME, "the runtime asks, and does not run or does not tell");
    }
    let total = known.peers.len();
    if total == 0 {
        return Area::looked(NAME, "no peer", Vec::new());
    }
    let targets: Vec<String> = chosen(total)
        .filter_map(|at| known.peers.get(at))
        .map(|peer| peer.subnet.to_string())
        .collect();
    let asked = targets.len();
    let request = ProbePathRequest {
        targets,
        deadline_ms: DEADLINE_MS,
        timeout_ms: ANSWER_MS,
        without_mtu: total > MOST,
    };
    let results = async {
        Pinger::connect(&place.socket)
            .await?
            .probe_path(request)
            .await
    };
    match timeout(PATIENCE, results).await {
        Ok(Ok(results)) => judged(&results, asked, total),
        Ok(Err(ClientError::Connect { reason, .. }))
            if reason.kind() == io::ErrorKind::PermissionDenied =>
        {
            Area::not_looked(NAME, "needs root, or the runtime's --socket-group")
        }
        Ok(Err(error)) => Area::not_looked(NAME, error.to_string()),
        Err(_) => {
            let seconds = PATIENCE.as_secs();
            Area::not_looked(
                NAME,
                format!("the runtime does not answer within {seconds} s"),
            )
        }
    }
}

/// The same where somebody has decided that the kernel path carries everything, of which he needs not be told.
pub(super) fn without_fast_path(mut area: Area) -> Area {
    area.problems
        .retain(|problem| problem.kind.code != PATH_NOT_FAST.code);
    area
}

/// Which of so many peers are asked: all, or evenly spread ones.
fn chosen(total: usize) -> impl Iterator<Item = usize> {
    let count = total.min(MOST);
    (0..count).map(move |at| at * total / count)
}

fn judged(results: &[PathResult], asked: usize, total: usize) -> Area {
    let fine = results.iter().filter(|result| result.ok).count();
    let size = match total > MOST {
        true => "small packets",
        false => "packets of every size",
    };
    let mut said = format!("{fine} of {asked} that were asked take {size}");
    // Such as those that were not asked by the deadline.
    let unasked = || results.iter().filter(|result| !result.error.is_empty());
    if let Some(first) = unasked().next() {
        let count = unasked().count();
        let why = format!("{count} of {asked} could not be asked: {}", first.error);
        if count == asked {
            return Area::not_looked(NAME, why);
        }
        said = format!("{said}; {why}");
    }
    if asked < total {
        said = format!("{said}; of {total}, the others were not asked");
    }
    Area::looked(NAME, said, problems(results))
}

/// One problem of each kind, with the peers that have it.
fn problems(results: &[PathResult]) -> Vec<Problem> {
    let mut by_code: BTreeMap<&str, Vec<&PathFinding>> = BTreeMap::new();
    for finding in results.iter().flat_map(|result| &result.findings) {
        by_code.entry(&finding.code).or_default().push(finding);
    }
    let problem = |(code, findings): (&str, Vec<&PathFinding>)| {
        let first = findings.first()?;
        let mut observed: Vec<String> = Vec::new();
        for finding in &findings {
            if !observed.contains(&finding.observed) {
                observed.push(finding.observed.clone());
            }
        }
        let more = observed.len().saturating_sub(NAMED);
        observed.truncate(NAMED);
        if more > 0 {
            observed.push(format!("and {more} more peers likewise"));
        }
        // A runtime of a later version may find what this program does not know.
        let kind = catalog::find(code)?;
        Some(Problem::new(kind, observed.join("; ")).remedied_by(first.remedy.clone()))
    };
    by_code.into_iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_few_are_asked_and_of_many_a_bounded_number_from_all_over() {
        assert_eq!(chosen(3).collect::<Vec<_>>(), [0, 1, 2]);
        let of_many: Vec<usize> = chosen(254).collect();
        assert_eq!((of_many.len(), of_many[0], of_many[15]), (16, 0, 238));
    }

    #[test]
    fn peers_that_could_not_be_asked_are_told_and_all_of_them_are_no_look() {
        let late = || PathResult {
            error: "not asked by the deadline".to_owned(),
            ..PathResult::default()
        };
        let fine = PathResult {
            ok: true,
            ..PathResult::default()
        };
        let some = judged(&[fine, late()], 2, 2).outcome.unwrap();
        assert!(some.starts_with("1 of 2 that were asked"), "{some}");
        assert!(
            some.ends_with("1 of 2 could not be asked: not asked by the deadline"),
            "{some}"
        );
        judged(&[late(), late()], 2, 2).outcome.unwrap_err();
    }

    #[test]
    fn a_finding_of_many_peers_is_told_once() {
        let result = |number: usize| PathResult {
            findings: vec![PathFinding {
                code: "peer-host-silent".to_owned(),
                observed: format!("host{number} is silent"),
                remedy: "look there".to_owned(),
                ..PathFinding::default()
            }],
            ..PathResult::default()
        };
        let results: Vec<PathResult> = (1..=5).map(result).collect();
        let area = judged(&results, 5, 5);
        assert_eq!(area.problems.len(), 1);
        assert_eq!(
            area.problems[0].observed,
            "host1 is silent; host2 is silent; host3 is silent; and 2 more peers likewise"
        );
        assert_eq!(
            area.outcome,
            Ok("0 of 5 that were asked take packets of every size".to_owned())
        );
    }
}
