//! `meshctl peers --probe`: the other nodes, each asked once.

use anyhow::Context as _;
use mesh_client::{
    Pinger,
    mesh::{PathLeg, PathResult, ProbePathRequest},
};
use serde::Serialize;

use super::{Peer, peer};
use crate::{
    Verdict,
    output::{Table, say, say_json},
    place::{NoRuntime, Place},
};

/// By when all have to be asked: a hundred milliseconds and a batch of silent ones for each hundred.
const DEADLINE_MS: u32 = 30_000;

/// A peer with what came of asking along the way to it, as a document.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ProbedPeer {
    #[serde(flatten)]
    peer: Peer,
    probe: Probe,
}

/// What came of asking.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Probe {
    /// Whether nothing was found that is an error.
    ok: bool,
    /// Why it was not asked.
    error: Option<String>,
    /// As containers send, or, where this node has no endpoint for probes, by the kernel path.
    sent: u32,
    answered: u32,
    round_trip_us: Option<f64>,
    findings: Vec<Found>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Found {
    code: String,
    severity: String,
    observed: String,
    remedy: String,
}

/// Prints the peers, and what came of asking them.
pub(super) async fn run(place: &Place, json: bool) -> anyhow::Result<Verdict> {
    let mut inspector = place.runtime().await.map_err(NoRuntime::into_error)?;
    let peers: Vec<Peer> = inspector
        .peers()
        .await?
        .peers
        .into_iter()
        .map(peer)
        .collect();
    let mut pinger = Pinger::connect(&place.socket)
        .await
        .context("peers are asked by the runtime's socket alone")?;
    let request = ProbePathRequest {
        targets: peers.iter().map(|peer| peer.subnet.clone()).collect(),
        deadline_ms: DEADLINE_MS,
        without_mtu: true,
        ..ProbePathRequest::default()
    };
    let results = match peers.is_empty() {
        // No targets are all peers, which there may be one of by now.
        true => Vec::new(),
        false => pinger.probe_path(request).await?,
    };
    let probed: Vec<ProbedPeer> = peers
        .into_iter()
        .zip(results.iter().map(probe))
        .map(|(peer, probe)| ProbedPeer { peer, probe })
        .collect();
    match json {
        true => say_json(&probed)?,
        false => say(table(&probed))?,
    }
    Ok(verdict(&probed))
}

fn verdict(probed: &[ProbedPeer]) -> Verdict {
    if probed
        .iter()
        .any(|it| it.probe.error.is_none() && !it.probe.ok || it.peer.state != "up")
    {
        return Verdict::Wrong;
    }
    match probed.iter().all(|it| it.probe.ok) {
        true => Verdict::Fine,
        false => Verdict::Unknown,
    }
}

fn probe(result: &PathResult) -> Probe {
    let [container, kernel] =
        [&result.container, &result.kernel].map(|leg| leg.clone().unwrap_or_default());
    let leg: PathLeg = match container.sent {
        0 => kernel,
        _ => container,
    };
    let findings: Vec<Found> = result
        .findings
        .iter()
        .map(|finding| Found {
            code: finding.code.clone(),
            severity: finding.severity.clone(),
            observed: finding.observed.clone(),
            remedy: finding.remedy.clone(),
        })
        .collect();
    let error = (!result.error.is_empty()).then(|| result.error.clone());
    Probe {
        ok: error.is_none() && findings.iter().all(|it| it.severity != "error"),
        error,
        sent: leg.sent,
        answered: leg.answered,
        round_trip_us: (leg.answered > 0).then(|| leg.round_trip_median_ns as f64 / 1e3),
        findings,
    }
}

fn table(probed: &[ProbedPeer]) -> String {
    if probed.is_empty() {
        return "this node has no peers yet".to_owned();
    }
    let mut table = Table::new([
        "PEER", "ADDRESS", "SUBNET", "STATE", "PATH", "RTT", "LOSS", "WRONG",
    ]);
    for ProbedPeer { peer, probe } in probed {
        table.row([
            peer.hostname.clone(),
            peer.host_address.clone(),
            peer.subnet.clone(),
            peer.state.clone(),
            peer.path.clone(),
            probe
                .round_trip_us
                .map_or_else(|| "-".to_owned(), |it| format!("{:.2} ms", it / 1e3)),
            loss(probe),
            wrong(probe),
        ]);
    }
    let mut lines = vec![table.text()];
    for ProbedPeer { probe, .. } in probed {
        let grave = probe.findings.iter().filter(|it| it.severity != "notice");
        lines.extend(grave.map(|it| {
            crate::output::printable(&format!("{}: {}; {}", it.severity, it.observed, it.remedy))
        }));
    }
    lines.join("\n")
}

fn loss(probe: &Probe) -> String {
    match probe.sent {
        0 => "-".to_owned(),
        sent => format!(
            "{} %",
            sent.saturating_sub(probe.answered).saturating_mul(100) / sent
        ),
    }
}

/// The codes of what is wrong, or why that cannot be told.
fn wrong(probe: &Probe) -> String {
    if let Some(error) = &probe.error {
        return error.clone();
    }
    let codes: Vec<&str> = probe.findings.iter().map(|it| &*it.code).collect();
    codes.join(", ")
}

#[cfg(test)]
mod tests {
    use mesh_client::mesh::{PathFinding, PeerStatus};

    use super::*;
    use crate::output::held;

    fn probed(hostname: &str, result: &PathResult) -> ProbedPeer {
        let told = PeerStatus {
            peer: Some(mesh_client::mesh::Peer {
                subnet: "10.42.2.0/24".to_owned(),
                host_address: "192.0.2.2".to_owned(),
                hostname: hostname.to_owned(),
                ..mesh_client::mesh::Peer::default()
            }),
            kernel_path_ready: true,
            fast_path_ready: true,
            ..PeerStatus::default()
        };
        ProbedPeer {
            peer: peer(told),
            probe: probe(result),
        }
    }

    fn answered() -> PathResult {
        PathResult {
            container: Some(PathLeg {
                sent: 1,
                answered: 1,
                round_trip_median_ns: 210_000,
                ..PathLeg::default()
            }),
            ..PathResult::default()
        }
    }

    fn silent() -> PathResult {
        PathResult {
            container: Some(PathLeg {
                sent: 3,
                ..PathLeg::default()
            }),
            findings: vec![PathFinding {
                code: "vxlan-not-through".to_owned(),
                severity: "error".to_owned(),
                observed: "nothing comes back".to_owned(),
                remedy: "let it through".to_owned(),
                ..PathFinding::default()
            }],
            ..PathResult::default()
        }
    }

    #[test]
    fn a_row_says_how_fast_a_peer_answers_or_why_it_does_not() {
        let text = table(&[probed("host2", &answered()), probed("host3", &silent())]);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|it| it.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1].join(" "),
            "host2 192.0.2.2 10.42.2.0/24 up fast 0.21 ms 0 %"
        );
        assert_eq!(
            lines[2].join(" "),
            "host3 192.0.2.2 10.42.2.0/24 up fast - 100 % vxlan-not-through"
        );
        assert!(text.ends_with("error: nothing comes back; let it through"));
    }

    #[test]
    fn one_that_was_not_asked_is_not_known_and_one_that_is_silent_is_wrong() {
        let unasked = PathResult {
            error: "there is no such peer".to_owned(),
            ..PathResult::default()
        };
        let of = |results: &[PathResult]| {
            let all: Vec<ProbedPeer> = results.iter().map(|it| probed("host2", it)).collect();
            verdict(&all)
        };
        assert_eq!(of(&[]), Verdict::Fine);
        assert_eq!(of(&[answered()]), Verdict::Fine);
        assert_eq!(of(&[answered(), unasked.clone()]), Verdict::Unknown);
        assert_eq!(of(&[unasked, silent()]), Verdict::Wrong);
    }

    #[test]
    fn the_document_for_machines_is_as_it_was() {
        held::is_as_it_was(
            "peers_probe",
            &[probed("host2", &answered()), probed("host3", &silent())],
        );
    }
}
