//! From what was seen to figures, and from figures and promise to a verdict.

use std::time::Duration;

use crate::{
    fault::{Loss, Promise},
    scene::{Repair, Strike},
    state::summary,
    traffic::Fates,
};

/// The figures of one fault.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    /// Datagrams sent by all flows.
    pub(crate) sent: u64,
    /// Those that did not arrive.
    pub(crate) lost: u64,
    /// Those of them that were neither from nor to the victim.
    pub(crate) lost_of_others: u64,
    /// The longest time in which nothing of one flow arrived.
    pub(crate) longest_gap: Duration,
    /// How long after a blow, or after its cause was removed, the last datagram was lost; the
    /// longest of all blows.
    pub(crate) recovery: Duration,
    /// How long the kernel's state was wrong, for each blow that was to be repaired.
    pub(crate) repairs: Vec<Repair>,
    /// Datagrams lost after each blow and before the next.
    pub(crate) lost_by_blow: Vec<u64>,
    /// The longest time in which nothing of one TCP connection arrived.
    pub(crate) longest_stall: Duration,
    /// Routes of the mesh that were removed.
    pub(crate) routes_removed: usize,
}

/// Everything that was seen.
pub(crate) struct Evidence<'a> {
    pub(crate) strikes: &'a [Strike],
    pub(crate) fates: &'a Fates,
    /// Routes of the mesh that were removed, with their hosts.
    pub(crate) routes_removed: &'a [String],
    /// What was not as before at the end.
    pub(crate) leftovers: &'a [String],
}

/// The figures, and which parts of the promise were broken.
pub(crate) fn judge(promise: &Promise, evidence: &Evidence<'_>) -> (Measured, Vec<String>) {
    let measured = measure(evidence);
    let mut broken = Vec::new();
    let lost = match promise.loss {
        Loss::None => measured.lost,
        Loss::Victim => measured.lost_of_others,
    };
    if lost > 0 {
        let whose = match promise.loss {
            Loss::Victim => " of hosts that nothing happened to",
            Loss::None => "",
        };
        broken.push(format!(
            "{lost} packets{whose} lost, longest gap {} ms, after each blow: {:?}",
            measured.longest_gap.as_millis(),
            measured.lost_by_blow
        ));
    }
    if promise.loss != Loss::None && measured.recovery > promise.flowing_within {
        broken.push(format!(
            "traffic flowed again only after {} ms instead of {}",
            measured.recovery.as_millis(),
            promise.flowing_within.as_millis()
        ));
    }
    if promise.keeps_routes && !evidence.routes_removed.is_empty() {
        broken.push(format!(
            "routes were removed: {}",
            evidence.routes_removed.join(", ")
        ));
    }
    for flow in &evidence.fates.flows {
        if flow.corrupted > 0 {
            broken.push(format!(
                "{} datagrams arrived changed: {}",
                flow.corrupted, flow.pair.names
            ));
        }
    }
    for (pair, report) in &evidence.fates.connections {
        if !report.is_intact() {
            broken.push(format!(
                "the TCP connection {} failed: {}",
                pair.names,
                report.failure.as_deref().unwrap_or("bytes are missing")
            ));
        }
    }
    if !evidence.leftovers.is_empty() {
        broken.push(format!("not as before: {}", summary(evidence.leftovers)));
    }
    (measured, broken)
}

fn measure(evidence: &Evidence<'_>) -> Measured {
    let mut measured = Measured {
        routes_removed: evidence.routes_removed.len(),
        repairs: evidence
            .strikes
            .iter()
            .filter_map(|strike| strike.repair)
            .collect(),
        lost_by_blow: vec![0; evidence.strikes.len()],
        ..Measured::default()
    };
    for flow in &evidence.fates.flows {
        measured.sent += flow.sent;
        for outage in &flow.outages {
            measured.lost += outage.packets;
            if !flow.pair.of_victim {
                measured.lost_of_others += outage.packets;
            }
            measured.longest_gap = measured.longest_gap.max(outage.duration());
            // The blow that it follows; what was lost before the first is held against it too.
            let blow = evidence
                .strikes
                .iter()
                .rposition(|strike| strike.at <= outage.until)
                .unwrap_or(0);
            if let Some(strike) = evidence.strikes.get(blow) {
                let after = outage.until.saturating_duration_since(strike.from);
                measured.recovery = measured.recovery.max(after);
                measured.lost_by_blow[blow] += outage.packets;
            }
        }
    }
    for (_, report) in &evidence.fates.connections {
        measured.longest_stall = measured.longest_stall.max(report.longest_stall);
    }
    measured
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use mesh_testbed::{Outage, TcpFlowReport};

    use super::*;
    use crate::traffic::{FlowFate, Pair};

    fn pair(of_victim: bool) -> Pair {
        Pair {
            names: "a → b".into(),
            of_victim,
        }
    }

    fn flow(of_victim: bool, outages: &[(Instant, u64, u64)]) -> FlowFate {
        FlowFate {
            pair: pair(of_victim),
            sent: 1000,
            outages: outages
                .iter()
                .map(|&(start, from, until)| Outage {
                    from: start + Duration::from_millis(from),
                    until: start + Duration::from_millis(until),
                    packets: until - from,
                })
                .collect(),
            corrupted: 0,
            reordered: 0,
            duplicates: 0,
        }
    }

    fn strike(start: Instant, at: u64, from: u64) -> Strike {
        Strike {
            at: start + Duration::from_millis(at),
            from: start + Duration::from_millis(from),
            repair: None,
        }
    }

    fn verdict(promise: &Promise, strikes: &[Strike], fates: &Fates) -> (Measured, Vec<String>) {
        judge(
            promise,
            &Evidence {
                strikes,
                fates,
                routes_removed: &[],
                leftovers: &[],
            },
        )
    }

    #[test]
    fn recovery_counts_from_the_blow_that_the_loss_follows() {
        let start = Instant::now();
        let strikes = [strike(start, 100, 100), strike(start, 1000, 3000)];
        let fates = Fates {
            flows: vec![flow(true, &[(start, 105, 140), (start, 1010, 3250)])],
            connections: vec![],
        };
        let (measured, broken) = verdict(&Promise::recovers_within(300), &strikes, &fates);
        assert_eq!(measured.recovery, Duration::from_millis(250));
        assert_eq!(measured.longest_gap, Duration::from_millis(2240));
        assert_eq!(measured.lost, 35 + 2240);
        assert_eq!(measured.lost_by_blow, [35, 2240]);
        assert_eq!(broken, [""; 0]);
        let (_, broken) = verdict(&Promise::recovers_within(200), &strikes, &fates);
        assert!(broken[0].contains("only after 250 ms"), "{broken:?}");
    }

    #[test]
    fn a_packet_lost_where_none_may_be_lost_breaks_the_promise() {
        let start = Instant::now();
        let strikes = [strike(start, 0, 0)];
        let fates = |of_victim| Fates {
            flows: vec![flow(of_victim, &[(start, 1, 2)])],
            connections: vec![],
        };
        for (promise, of_victim, holds) in [
            (Promise::LOSSLESS, true, false),
            (Promise::LOSSLESS, false, false),
            (Promise::recovers_within(10), true, true),
            (Promise::recovers_within(10), false, false),
        ] {
            let (_, broken) = verdict(&promise, &strikes, &fates(of_victim));
            assert_eq!(broken.is_empty(), holds, "{promise:?} {of_victim}");
        }
    }

    #[test]
    fn a_broken_connection_a_removed_route_and_a_leftover_break_the_promise() {
        let report = TcpFlowReport {
            sent: 10,
            received: 9,
            longest_stall: Duration::ZERO,
            failure: None,
        };
        let fates = Fates {
            flows: vec![flow(true, &[])],
            connections: vec![(pair(true), report)],
        };
        let one = ["host2: 10.42.1.0/24".to_owned()];
        let evidence = Evidence {
            strikes: &[],
            fates: &fates,
            routes_removed: &one,
            leftovers: &one,
        };
        let (_, broken) = judge(&Promise::LOSSLESS, &evidence);
        assert_eq!(broken.len(), 3, "{broken:?}");
        let (_, broken) = judge(&Promise::lossless_repair(), &evidence);
        assert_eq!(broken.len(), 2, "routes may go and come back: {broken:?}");
    }
}
