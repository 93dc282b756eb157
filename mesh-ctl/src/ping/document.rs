//! What a ping tells a machine.

use std::collections::BTreeSet;

use mesh_client::mesh::{CarriedBy, PathLeg, PathResult, PathSubject, Pong};
use serde_json::{Value, json};

use super::{answered, round_trips, verdict};
use crate::Verdict;

fn word(carried_by: CarriedBy) -> &'static str {
    match carried_by {
        CarriedBy::Unknown => "unknown",
        CarriedBy::FastPath => "fast",
        CarriedBy::KernelPath => "kernel",
        CarriedBy::Both => "mixed",
        CarriedBy::Bridge => "bridge",
    }
}

/// The path of all that was answered.
fn path_of(pongs: &[Pong]) -> &'static str {
    let answered = pongs.iter().filter(|pong| pong.answered);
    let ways = answered.flat_map(|pong| [word(pong.out()), word(pong.r#in())]);
    let ways: BTreeSet<&str> = ways.collect();
    match ways.iter().next() {
        None => "unknown",
        Some(_) if ways.contains("unknown") => "unknown",
        Some(way) if ways.len() == 1 => way,
        Some(_) => "mixed",
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

/// The document.
pub(super) fn document(subject: &PathSubject, pongs: &[Pong], result: &PathResult) -> Value {
    let none_if_zero = |value: u32| (value != 0).then_some(value);
    let none_if_empty = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let leg = |leg: &PathLeg| {
        let there = leg.answered > 0;
        json!({
            "sent": leg.sent,
            "answered": leg.answered,
            "round_trip_us": there.then(|| microseconds(leg.round_trip_median_ns)),
            "path": word(leg.carried_by()),
            "largest_with_df": none_if_zero(leg.largest),
            "error": none_if_empty(&leg.error),
        })
    };
    let each = pongs.iter().map(|pong| {
        json!({
            "sequence": pong.sequence,
            "answered": pong.answered,
            "round_trip_us": pong.answered.then(|| microseconds(pong.round_trip_ns)),
            "out": word(pong.out()),
            "in": word(pong.r#in()),
            "error": none_if_empty(&pong.error),
        })
    });
    let times = round_trips(pongs);
    json!({
        "target": subject.target,
        "address": subject.address,
        "hostname": none_if_empty(&subject.hostname),
        "subnet": none_if_empty(&subject.subnet),
        "host_address": none_if_empty(&subject.host_address),
        "source": subject.source,
        "probe_endpoint": subject.probe_endpoint,
        "ok": verdict(pongs, result) == Verdict::Fine,
        "sent": pongs.len(),
        "answered": answered(pongs).len(),
        "path": path_of(pongs),
        "round_trip_us": times.map(|[min, median, max]| json!({
            "min": microseconds(min),
            "median": microseconds(median),
            "max": microseconds(max),
        })),
        "pongs": each.collect::<Vec<_>>(),
        "as_containers": result.container.as_ref().map(leg),
        "kernel_path": result.kernel.as_ref().map(leg),
        "underlay": result.underlay.as_ref().map(|underlay| json!({
            "answered": underlay.answered,
            "round_trip_us": underlay.answered.then(|| microseconds(underlay.round_trip_ns)),
            "largest_with_df": none_if_zero(underlay.largest),
            "port_unserved": underlay.port_unserved,
            "interface": none_if_empty(&underlay.interface),
            "error": none_if_empty(&underlay.error),
        })),
        "without_fast_path": none_if_empty(&result.without_fast_path),
        "mtu": result.mtu,
        "peer_mtu": none_if_zero(result.peer_mtu),
        "findings": result.findings.iter().map(|finding| json!({
            "code": finding.code,
            "severity": finding.severity,
            "title": finding.title,
            "observed": finding.observed,
            "breaks": finding.breaks,
            "remedy": finding.remedy,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ping::tests::pong;

    #[test]
    fn the_path_of_many_answers_is_one_if_all_took_it() {
        use CarriedBy::{FastPath, KernelPath, Unknown};
        let fast = pong(FastPath, FastPath, 1);
        let kernel = pong(KernelPath, KernelPath, 1);
        assert_eq!(path_of(&[]), "unknown");
        assert_eq!(path_of(&[fast.clone(), Pong::default()]), "fast");
        assert_eq!(path_of(&[fast.clone(), kernel]), "mixed");
        assert_eq!(path_of(&[fast, pong(FastPath, Unknown, 1)]), "unknown");
    }
}
