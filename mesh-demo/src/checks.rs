//! What must have held, judged from the report alone.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::report::{Carried, PeerTraffic, Ping, Report};

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) ok: bool,
    pub(crate) what: String,
    /// The figures behind the verdict, or what is missing.
    pub(crate) seen: String,
}

/// A few packets go through the kernel before the programs are attached to a new container;
/// less than this share by eBPF means it does not carry the traffic.
const CARRIED_BY_EBPF_PER_MILLE: u64 = 990;

const NOT_REACHED: &str = "the run did not get that far";

/// All checks of a run with this many nodes. A step that was not reached fails its checks.
pub(crate) fn of(report: &Report, nodes: usize) -> Vec<Check> {
    let mut checks = vec![
        nodes_have_subnets(report, nodes),
        nodes_have_joined(report, nodes),
        fast_path_is_active(report, nodes),
        pings_complete("every container reaches every other one", &report.pings),
        transfer_is_intact(report),
        ebpf_carried_the_transfer(report),
        ebpf_carried_everywhere(
            "eBPF carries the traffic of all pairs of nodes, both ways",
            &report.peers,
            nodes * (nodes - 1),
        ),
        nothing_dropped(report),
        bpftool_shows_peers(report, nodes),
        addresses_agree(report, nodes),
    ];
    checks.extend(lost_host(report, nodes));
    checks.extend(returned_host(report, nodes));
    checks
}

fn check(what: impl Into<String>, ok: bool, seen: impl Into<String>) -> Check {
    Check {
        ok,
        what: what.into(),
        seen: seen.into(),
    }
}

fn nodes_have_subnets(report: &Report, nodes: usize) -> Check {
    let up: Vec<_> = report
        .nodes
        .iter()
        .filter(|node| node.status == "up")
        .collect();
    let subnets: BTreeSet<_> = up.iter().map(|node| node.subnet).collect();
    check(
        format!("{nodes} nodes are up, each with a subnet of its own"),
        up.len() == nodes && subnets.len() == nodes,
        format!("{} up, {} subnets", up.len(), subnets.len()),
    )
}

fn nodes_have_joined(report: &Report, nodes: usize) -> Check {
    let said = report.security.as_deref().unwrap_or_default();
    let count = said
        .lines()
        .find(|line| line.starts_with("nodes with a certificate"));
    check(
        "every node has joined, and nobody is let in without credentials",
        said.starts_with("secured:")
            && count == Some(&format!("nodes with a certificate: {nodes}, without: 0")),
        count.unwrap_or(NOT_REACHED),
    )
}

fn fast_path_is_active(report: &Report, nodes: usize) -> Check {
    let active = report
        .nodes
        .iter()
        .filter(|node| node.fast_path == "ACTIVE");
    let reasons: Vec<_> = report
        .nodes
        .iter()
        .filter(|node| node.fast_path != "ACTIVE")
        .map(|node| {
            format!(
                "{}: {} {}",
                node.name, node.fast_path, node.fast_path_reason
            )
        })
        .collect();
    let count = active.count();
    let seen = match reasons.is_empty() {
        true => format!("{count} of {nodes}"),
        false => reasons.join(", "),
    };
    check(
        "the fast path is active on every node",
        count == nodes,
        seen,
    )
}

fn pings_complete(what: impl Into<String>, pings: &[Ping]) -> Check {
    let failed: Vec<_> = pings
        .iter()
        .filter(|ping| !ping.is_complete())
        .map(|ping| {
            format!(
                "{} → {}: {}/{}",
                ping.from, ping.to, ping.received, ping.sent
            )
        })
        .collect();
    let seen = match (pings.len(), failed.len()) {
        (0, _) => NOT_REACHED.to_owned(),
        (all, 0) => format!("{all} pairs"),
        (all, bad) => format!("{bad} of {all} pairs failed, first {}", failed[0]),
    };
    check(what, !pings.is_empty() && failed.is_empty(), seen)
}

fn transfer_is_intact(report: &Report) -> Check {
    let what = "100 MB of TCP arrive with the SHA-256 they were sent with";
    match &report.transfer {
        None => check(what, false, NOT_REACHED),
        Some(transfer) => check(
            what,
            transfer.sent_sha256 == transfer.received_sha256
                && transfer.bytes == crate::scenario::TRANSFER_BYTES,
            format!("{:.2} Gbit/s", transfer.gigabits_per_second),
        ),
    }
}

fn ebpf_carried_the_transfer(report: &Report) -> Check {
    let what = "eBPF carried that transfer at both ends";
    let Some(transfer) = &report.transfer else {
        return check(what, false, NOT_REACHED);
    };
    let sent = transfer.sender.fast_path.tx_bytes;
    let received = transfer.receiver.fast_path.rx_bytes;
    let bytes = transfer.bytes as u64;
    // Segments merged by GRO count their headers once, so a count can fall short of what
    // was on the wire, never of the content.
    let ok = sent >= bytes
        && received >= bytes
        && carried_by_ebpf(transfer.sender)
        && carried_by_ebpf(transfer.receiver);
    check(
        what,
        ok,
        format!(
            "{} out, {} in",
            crate::tables::bytes(sent),
            crate::tables::bytes(received)
        ),
    )
}

fn carried_by_ebpf(carried: Carried) -> bool {
    carried
        .fast_per_mille()
        .is_some_and(|share| share >= CARRIED_BY_EBPF_PER_MILLE)
}

fn ebpf_carried_everywhere(what: &str, peers: &[PeerTraffic], expected: usize) -> Check {
    let quiet: Vec<_> = peers
        .iter()
        .filter(|peer| {
            peer.carried.fast_path.tx_packets == 0 || peer.carried.fast_path.rx_packets == 0
        })
        .map(|peer| format!("{} ↔ {}", peer.node, peer.peer))
        .collect();
    let seen = match (peers.len(), quiet.is_empty()) {
        (0, _) => NOT_REACHED.to_owned(),
        (count, true) => format!("{count} of {expected} counters show it"),
        (_, false) => format!("not {}", quiet.join(", ")),
    };
    check(what, peers.len() == expected && quiet.is_empty(), seen)
}

fn nothing_dropped(report: &Report) -> Check {
    let dropped: u64 = report.peers.iter().map(|peer| peer.dropped_packets).sum();
    let ok = dropped == 0 && !report.peers.is_empty();
    let seen = match report.peers.is_empty() {
        true => NOT_REACHED.to_owned(),
        false => format!("{dropped} dropped"),
    };
    check("no guard dropped a packet of a peer", ok, seen)
}

fn bpftool_shows_peers(report: &Report, nodes: usize) -> Check {
    let what = "bpftool shows every peer, with field names";
    let Some(map) = &report.peers_map else {
        return check(what, false, NOT_REACHED);
    };
    let shown: BTreeSet<_> = map.subnets.iter().copied().collect();
    let expected: BTreeSet<_> = report
        .nodes
        .iter()
        .filter(|node| node.name != map.node)
        .map(|node| node.subnet.network())
        .collect();
    check(
        what,
        shown == expected && shown.len() == nodes - 1,
        format!(
            "{} of {} on {}",
            shown.intersection(&expected).count(),
            nodes - 1,
            map.node
        ),
    )
}

fn addresses_agree(report: &Report, nodes: usize) -> Check {
    let what = "bpftool shows the addresses that the runtimes have leased";
    let agreeing = report
        .addresses
        .iter()
        .filter(|it| !it.listed.is_empty() && it.listed == it.in_the_map);
    let leased: usize = report.addresses.iter().map(|it| it.listed.len()).sum();
    let disagreeing = report
        .addresses
        .iter()
        .find(|it| it.listed != it.in_the_map);
    let seen = match disagreeing {
        Some(it) => format!(
            "{}: {:?} leased, {:?} in the map",
            it.node, it.listed, it.in_the_map
        ),
        None if report.addresses.is_empty() => NOT_REACHED.to_owned(),
        None => format!("{leased} of {} containers'", report.containers.len()),
    };
    let ok = agreeing.count() == nodes && leased == report.containers.len();
    check(what, ok, seen)
}

fn lost_host(report: &Report, nodes: usize) -> Vec<Check> {
    let lost = report.lost_host.as_ref();
    let name = lost.map_or("the lost host", |lost| lost.name.as_str());
    let witnesses = lost.map(|lost| &lost.witnesses[..]).unwrap_or_default();
    let gone = |what: String, times: Vec<Option<f64>>| {
        let all: Option<Vec<f64>> = times.iter().copied().collect();
        let ok = times.len() == nodes - 1 && all.is_some();
        let seen = match &all {
            _ if times.is_empty() => NOT_REACHED.to_owned(),
            None => "still there when the wait ended".to_owned(),
            Some(times) => format!("after {:.1} s", times.iter().copied().fold(0.0, f64::max)),
        };
        check(what, ok, seen)
    };
    let mut checks = vec![
        gone(
            format!("{name} is lost: its route is gone on the others"),
            witnesses
                .iter()
                .map(|witness| witness.route_gone_after)
                .collect(),
        ),
        gone(
            format!("{name} is lost: its entry in the peers map is gone"),
            witnesses
                .iter()
                .map(|witness| witness.map_entry_gone_after)
                .collect(),
        ),
    ];
    if nodes > 2 {
        let pings = lost
            .map(|lost| &lost.pings_among_others[..])
            .unwrap_or_default();
        checks.push(pings_complete(
            "the other hosts reach each other all the same",
            pings,
        ));
    }
    checks
}

fn returned_host(report: &Report, nodes: usize) -> Vec<Check> {
    let Some(back) = &report.returned_host else {
        return [
            "the host returns with its old subnet",
            "its containers are reachable again",
            "eBPF carries its traffic again",
        ]
        .map(|what| check(what, false, NOT_REACHED))
        .to_vec();
    };
    vec![
        check(
            format!("{} returns with its old subnet", back.name),
            back.subnet_before == back.subnet_after,
            format!("{} after {:.1} s", back.subnet_after, back.seconds),
        ),
        pings_complete("its containers are reachable again, both ways", &back.pings),
        ebpf_carried_everywhere(
            "eBPF carries its traffic again",
            &back.peers,
            2 * (nodes - 1),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Counters, LostHost, Transfer, Witness};

    fn failing(report: &Report) -> Vec<String> {
        of(report, 3)
            .into_iter()
            .filter(|check| !check.ok)
            .map(|check| check.what)
            .collect()
    }

    #[test]
    fn a_run_that_got_nowhere_fails_every_check() {
        let checks = of(&Report::default(), 3);
        assert_eq!(failing(&Report::default()).len(), checks.len());
    }

    #[test]
    fn a_node_without_a_certificate_or_a_door_without_a_lock_is_no_success() {
        let judged = |said: &str| {
            let report = Report {
                security: Some(said.to_owned()),
                ..Report::default()
            };
            nodes_have_joined(&report, 3).ok
        };
        let secured = "secured: nobody is let in without credentials\n";
        assert!(judged(&format!(
            "{secured}nodes with a certificate: 3, without: 0\n"
        )));
        assert!(!judged(&format!(
            "{secured}nodes with a certificate: 2, without: 1\n"
        )));
        assert!(!judged(
            "open: nobody needs them\nnodes with a certificate: 3, without: 0\n"
        ));
    }

    #[test]
    fn a_transfer_through_the_kernel_is_no_success() {
        let all = Counters {
            tx_packets: 70_000,
            tx_bytes: 103_000_000,
            rx_packets: 70_000,
            rx_bytes: 103_000_000,
        };
        let fast = Carried {
            fast_path: all,
            kernel_path: Counters::default(),
        };
        let kernel = Carried {
            fast_path: Counters::default(),
            kernel_path: all,
        };
        let report = |sender, receiver| Report {
            transfer: Some(Transfer {
                from: "a".into(),
                to: "b".into(),
                bytes: 100_000_000,
                seconds: 1.0,
                gigabits_per_second: 0.8,
                sent_sha256: "x".into(),
                received_sha256: "x".into(),
                sender,
                receiver,
            }),
            ..Report::default()
        };
        assert!(ebpf_carried_the_transfer(&report(fast, fast)).ok);
        assert!(!ebpf_carried_the_transfer(&report(kernel, kernel)).ok);
        assert!(!ebpf_carried_the_transfer(&report(fast, kernel)).ok);
        let half = Carried {
            fast_path: all,
            kernel_path: all,
        };
        assert!(!ebpf_carried_the_transfer(&report(half, fast)).ok);
    }

    #[test]
    fn one_lost_echo_fails_the_pings() {
        let ping = |received| Ping {
            from: "a".into(),
            to: "b".into(),
            sent: 3,
            received,
            median_us: None,
        };
        assert!(pings_complete("", &[ping(3), ping(3)]).ok);
        assert!(!pings_complete("", &[ping(3), ping(2)]).ok);
        assert!(!pings_complete("", &[]).ok);
    }

    #[test]
    fn a_route_that_one_witness_kept_is_not_gone() {
        let witness = |route| Witness {
            name: "host1".into(),
            route_gone_after: route,
            map_entry_gone_after: Some(31.0),
        };
        let report = |routes: [Option<f64>; 2]| Report {
            lost_host: Some(LostHost {
                name: "host3".into(),
                subnet: "10.42.3.0/24".parse().unwrap(),
                witnesses: routes.map(witness).to_vec(),
                pings_among_others: vec![],
            }),
            ..Report::default()
        };
        assert!(lost_host(&report([Some(30.0), Some(31.0)]), 3)[0].ok);
        assert!(!lost_host(&report([Some(30.0), None]), 3)[0].ok);
    }
}
