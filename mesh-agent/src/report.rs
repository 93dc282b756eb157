//! What a heartbeat carries: how the node's data plane fares, as the runtime tells.

use std::{cmp::Reverse, sync::Arc};

use mesh_problems::Finding;
use mesh_proto::mesh::{
    GetStatusResponse, ListPeersResponse, PeerStatus, TrafficCounters, fast_path_status::State,
};
use mesh_rest::{
    heartbeat::{DataPlane, Heartbeat, PeerTraffic},
    mtu::mtu,
};

use crate::{
    credentials::own::OwnIdentity,
    problems::together,
    runtime_client::{CallError, RuntimeAddress, RuntimeConnection},
};

/// Most peers that one heartbeat tells about, those with the most traffic first: as many as
/// the data plane has room for, and the control plane takes.
const PEERS_LIMIT: usize = 65_536;

/// Most findings that it tells about, the gravest first.
const FINDINGS_LIMIT: usize = 64;

/// Where the fast path stands, of a runtime that does not tell.
const UNKNOWN: &str = "unknown";

/// Asks the runtime what to report. It has a connection of its own, so that a runtime that
/// hangs keeps nothing else waiting.
#[derive(Debug)]
pub struct Reporter {
    runtime: RuntimeAddress,
    connection: Option<RuntimeConnection>,
    own_certificate: Option<Arc<OwnIdentity>>,
}

impl Reporter {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(runtime: RuntimeAddress, own_certificate: Option<Arc<OwnIdentity>>) -> Self {
        Self {
            runtime,
            connection: None,
            own_certificate,
        }
    }

    /// Looks again at what is found wrong only when it is used, and may not be used for long.
    pub fn look_again(&self) {
        if let Some(own) = &self.own_certificate {
            own.look_again();
        }
    }

    /// The report, if the runtime is there and knows the calls. Dropped half way, it leaves
    /// nothing behind.
    pub async fn report(&mut self) -> Option<Heartbeat> {
        let runtime = match self.connection.take() {
            Some(connection) if !self.runtime.has_better_than(&connection).await => connection,
            _ => self.runtime.connect().await.ok()?,
        };
        let (mut other, mut same) = (runtime.clone(), runtime.clone());
        let (status, peers) = tokio::join!(other.get_status(), same.list_peers());
        let lost = |error: Option<&CallError>| matches!(error, Some(CallError::Lost(_)));
        if !lost(status.as_ref().err()) && !lost(peers.as_ref().err()) {
            self.connection = Some(runtime);
        }
        report(status.ok(), peers.ok())
    }
}

/// What to tell: what the runtime says, if it says anything, and what this agent finds itself.
#[must_use]
pub fn with_findings(report: Option<Heartbeat>, findings: Vec<Finding>) -> Heartbeat {
    let mut report = report.unwrap_or_default();
    let data_plane = report.data_plane.get_or_insert_with(|| DataPlane {
        fast_path: UNKNOWN.to_owned(),
        ..DataPlane::default()
    });
    let of_runtime = std::mem::take(&mut data_plane.findings);
    data_plane.findings = together(findings, of_runtime, FINDINGS_LIMIT);
    report
}

/// What is known of status and peers as a report; none if nothing is.
fn report(
    status: Option<GetStatusResponse>,
    peers: Option<ListPeersResponse>,
) -> Option<Heartbeat> {
    if status.is_none() && peers.is_none() {
        return None;
    }
    let mut traffic: Vec<_> = peers
        .unwrap_or_default()
        .peers
        .into_iter()
        .filter_map(peer_traffic)
        .filter(|peer| peer.suspect || bytes(peer) > 0 || peer.dropped_packets > 0)
        .collect();
    traffic.sort_by_key(|peer| Reverse(bytes(peer)));
    traffic.truncate(PEERS_LIMIT);
    Some(Heartbeat {
        overlay_mtu: status
            .as_ref()
            .and_then(|status| mtu(status.overlay_mtu.into())),
        data_plane: status.map(data_plane),
        peers: traffic,
        check: None,
    })
}

fn data_plane(status: GetStatusResponse) -> DataPlane {
    let fast_path = status.fast_path.unwrap_or_default();
    let word = match State::try_from(fast_path.state) {
        Ok(State::Active) => "active",
        Ok(State::Waiting) => "waiting",
        Ok(State::Unavailable) => "unavailable",
        Ok(State::Off) => "off",
        Ok(State::Unspecified) | Err(_) => UNKNOWN,
    };
    let findings = status.findings.into_iter();
    DataPlane {
        version: status.version,
        fast_path: word.to_owned(),
        reason: fast_path.reason,
        host_address: status.host_address.parse().ok(),
        generation: countable(status.generation),
        findings: findings.map(Finding::from).collect(),
        drops: status
            .drops
            .into_iter()
            .map(|(reason, packets)| (reason, countable(packets)))
            .collect(),
    }
}

/// A number as a heartbeat can carry it. The API's numbers are `int64`, and the control plane
/// refuses a heartbeat with a larger one: a counter out of its mind must not cost the node
/// its liveness.
fn countable(number: u64) -> u64 {
    number.min(i64::MAX.unsigned_abs())
}

fn peer_traffic(status: PeerStatus) -> Option<PeerTraffic> {
    let peer = status.peer?;
    let TrafficCounters {
        tx_packets,
        tx_bytes,
        rx_packets,
        rx_bytes,
    } = status.fast_path.unwrap_or_default();
    let kernel = status.kernel_path.unwrap_or_default();
    Some(PeerTraffic {
        subnet: peer.subnet,
        tx_packets: countable(tx_packets),
        tx_bytes: countable(tx_bytes),
        rx_packets: countable(rx_packets),
        rx_bytes: countable(rx_bytes),
        kernel_tx_packets: countable(kernel.tx_packets),
        kernel_tx_bytes: countable(kernel.tx_bytes),
        kernel_rx_packets: countable(kernel.rx_packets),
        kernel_rx_bytes: countable(kernel.rx_bytes),
        dropped_packets: countable(status.dropped_packets),
        last_packet_age_ms: status.last_packet_age_ms.map(countable),
        suspect: peer.suspect,
    })
}

fn bytes(peer: &PeerTraffic) -> u64 {
    [
        peer.tx_bytes,
        peer.rx_bytes,
        peer.kernel_tx_bytes,
        peer.kernel_rx_bytes,
    ]
    .into_iter()
    .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use mesh_problems::{
        Problem,
        catalog::{
            agent::{NO_AGENT_SOCKET, RUNTIME_LOST},
            dataplane::VXLAN_TAKEN,
        },
    };
    use mesh_proto::mesh::{FastPathStatus, Peer};

    use super::*;

    fn peer(third: u64, fast: u64, kernel: u64) -> PeerStatus {
        let counters = |n| TrafficCounters {
            tx_packets: n,
            tx_bytes: n,
            rx_packets: n,
            rx_bytes: n,
        };
        PeerStatus {
            peer: Some(Peer {
                subnet: format!("10.42.{third}.0/24"),
                ..Peer::default()
            }),
            fast_path: Some(counters(fast)),
            kernel_path: Some(counters(kernel)),
            ..PeerStatus::default()
        }
    }

    #[test]
    fn status_and_counters_are_carried_as_they_are() {
        let finding = Finding::of(&Problem::new(&VXLAN_TAKEN, "port 4789 is taken"), 7);
        let status = GetStatusResponse {
            version: "1.2.3".to_owned(),
            host_address: "192.0.2.1".to_owned(),
            generation: 7,
            overlay_mtu: 1350,
            fast_path: Some(FastPathStatus {
                state: State::Unavailable.into(),
                reason: "no tcx".to_owned(),
                ..FastPathStatus::default()
            }),
            findings: vec![finding.clone().into()],
            drops: [("stranger".to_owned(), 3)].into(),
            ..GetStatusResponse::default()
        };
        let peers = ListPeersResponse {
            generation: 7,
            peers: vec![peer(2, 10, 4), peer(3, 0, 0)],
        };
        let report = report(Some(status), Some(peers)).unwrap();
        let data_plane = report.data_plane.unwrap();
        assert_eq!(report.overlay_mtu, Some(1350));
        assert_eq!(data_plane.fast_path, "unavailable");
        assert_eq!(data_plane.reason, "no tcx");
        assert_eq!(data_plane.host_address, Some([192, 0, 2, 1].into()));
        assert_eq!(data_plane.drops["stranger"], 3);
        assert_eq!(data_plane.findings, [finding]);
        assert_eq!(report.peers.len(), 1, "who exchanges nothing is left out");
        assert_eq!(report.peers[0].subnet, "10.42.2.0/24");
        assert_eq!(report.peers[0].tx_packets, 10);
        assert_eq!(report.peers[0].kernel_rx_bytes, 4);
    }

    #[test]
    fn the_control_plane_takes_a_report_of_as_many_peers_as_there_can_be() {
        let count = u32::try_from(PEERS_LIMIT).unwrap() + 1000;
        let mut peers: Vec<_> = (0..count).map(|_| peer(0, u64::MAX, u64::MAX)).collect();
        for (n, peer) in (0..).zip(&mut peers) {
            peer.dropped_packets = u64::MAX;
            peer.last_packet_age_ms = Some(u64::MAX);
            let peer = peer.peer.as_mut().unwrap();
            let first = Ipv4Addr::from_bits(Ipv4Addr::new(100, 100, 0, 0).to_bits() + (n << 7));
            peer.subnet = format!("{first}/25");
        }
        let idle = (0..count).map(|_| peer(1, 0, 0));
        let peers = idle.chain(peers).collect();
        let report = report(
            Some(GetStatusResponse {
                generation: u64::MAX,
                drops: [("stranger".to_owned(), u64::MAX)].into(),
                ..GetStatusResponse::default()
            }),
            Some(ListPeersResponse {
                generation: 1,
                peers,
            }),
        );
        let body = serde_json::to_vec(&report.unwrap()).unwrap();
        // The limit in mesh-control/src/body.rs.
        assert!(body.len() < 28 << 20, "{} bytes", body.len());
        let taken = mesh_control::traffic::report::Report::from_json(&body).unwrap();
        assert_eq!(taken.peers.len(), PEERS_LIMIT);
    }

    #[test]
    fn what_the_agent_finds_is_told_beside_what_the_runtime_finds_or_alone() {
        let of = |kind, since| Finding::of(&Problem::new(kind, "it"), since);
        let codes = |report: &Heartbeat| -> Vec<String> {
            let findings = &report.data_plane.as_ref().unwrap().findings;
            findings.iter().map(|it| it.code.clone()).collect()
        };
        let runtime = Heartbeat {
            overlay_mtu: Some(1450),
            data_plane: Some(DataPlane {
                fast_path: "active".to_owned(),
                findings: vec![of(&VXLAN_TAKEN, 7); FINDINGS_LIMIT],
                ..DataPlane::default()
            }),
            peers: Vec::new(),
            check: None,
        };
        let own = vec![of(&RUNTIME_LOST, 5), of(&NO_AGENT_SOCKET, 1)];
        let both = with_findings(Some(runtime), own.clone());
        assert_eq!(codes(&both)[..2], ["runtime-lost", "vxlan-taken"]);
        assert_eq!(codes(&both).len(), FINDINGS_LIMIT, "the gravest");
        assert_eq!(both.overlay_mtu, Some(1450));
        assert_eq!(both.data_plane.unwrap().fast_path, "active");
        let alone = with_findings(None, own);
        assert_eq!(codes(&alone), ["runtime-lost", "no-agent-socket"]);
        assert_eq!(alone.data_plane.unwrap().fast_path, "unknown");
        assert_eq!(codes(&with_findings(None, Vec::new())), [""; 0]);
    }

    #[test]
    fn a_runtime_that_tells_nothing_is_no_report() {
        assert_eq!(report(None, None), None);
        let status_only = report(Some(GetStatusResponse::default()), None).unwrap();
        assert_eq!(
            status_only.overlay_mtu, None,
            "without an overlay there is no MTU"
        );
        assert_eq!(status_only.data_plane.unwrap().fast_path, "unknown");
    }
}
