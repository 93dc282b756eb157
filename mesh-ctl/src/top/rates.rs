//! What was carried between two looks, in each second of them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::peers::{Peer, Traffic};

/// One look at the counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    /// In seconds, from any moment on.
    pub(super) at: f64,
    pub(super) peers: Vec<Peer>,
    /// Packets dropped by guards, by reason.
    pub(super) drops: BTreeMap<String, u64>,
}

/// What was carried between two looks, as a document. Fields are added to it, and never taken away or changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// How long that was.
    pub(super) seconds: f64,
    /// With all peers together.
    pub(super) total: Flow,
    /// The busiest first.
    pub(super) peers: Vec<PeerRates>,
    /// Packets dropped by guards in a second, by reason; those alone that were.
    pub(super) drops: BTreeMap<String, f64>,
}

/// What was carried with one peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct PeerRates {
    pub(super) hostname: String,
    pub(super) subnet: String,
    /// `up`, `suspect` or `no route`.
    pub(super) state: String,
    /// `fast`, `kernel` or `none`: what carries packets to it now.
    pub(super) path: String,
    pub(super) flow: Flow,
}

/// In a second, by both paths together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Flow {
    pub(super) tx_bits: f64,
    pub(super) rx_bits: f64,
    pub(super) tx_packets: f64,
    pub(super) rx_packets: f64,
    /// Packets of the peer that guards dropped.
    pub(super) dropped: f64,
    /// Which part of the packets the fast path carried; absent where there were none.
    pub(super) fast_share: Option<f64>,
}

/// Packets both ways by the fast path and by both, of which the share is made.
#[derive(Clone, Copy, Default)]
struct Carried {
    fast: u64,
    all: u64,
}

/// What was carried from one look to the next. Counters that went back began anew, and count from 0.
pub(super) fn between(before: &Look, after: &Look) -> Rates {
    let seconds = (after.at - before.at).max(f64::EPSILON);
    let known: BTreeMap<&str, &Peer> = before
        .peers
        .iter()
        .map(|peer| (peer.subnet.as_str(), peer))
        .collect();
    let mut carried = Carried::default();
    let mut total = Flow::default();
    let mut peers = Vec::with_capacity(after.peers.len());
    for peer in &after.peers {
        let nothing = Peer::default();
        // Of a peer that was not there, what it carried since it is.
        let old = known.get(peer.subnet.as_str()).copied().unwrap_or(&nothing);
        let (flow, more) = flow(old, peer, seconds);
        carried.fast += more.fast;
        carried.all += more.all;
        total.tx_bits += flow.tx_bits;
        total.rx_bits += flow.rx_bits;
        total.tx_packets += flow.tx_packets;
        total.rx_packets += flow.rx_packets;
        total.dropped += flow.dropped;
        peers.push(PeerRates {
            hostname: peer.hostname.clone(),
            subnet: peer.subnet.clone(),
            state: peer.state.clone(),
            path: peer.path.clone(),
            flow,
        });
    }
    total.fast_share = share(carried);
    let busy = |peer: &PeerRates| peer.flow.tx_bits + peer.flow.rx_bits;
    peers.sort_by(|one, other| busy(other).total_cmp(&busy(one)));
    let drops = after.drops.iter().filter_map(|(reason, count)| {
        let more = since(before.drops.get(reason).copied().unwrap_or(0), *count);
        (more > 0).then(|| (reason.clone(), per_second(more, seconds)))
    });
    Rates {
        seconds,
        total,
        peers,
        drops: drops.collect(),
    }
}

fn flow(before: &Peer, after: &Peer, seconds: f64) -> (Flow, Carried) {
    let [fast, kernel] = [(before.fast, after.fast), (before.kernel, after.kernel)]
        .map(|(before, after)| more(before, after));
    let carried = Carried {
        fast: fast.tx_packets + fast.rx_packets,
        all: fast.tx_packets + fast.rx_packets + kernel.tx_packets + kernel.rx_packets,
    };
    let flow = Flow {
        tx_bits: 8.0 * per_second(fast.tx_bytes + kernel.tx_bytes, seconds),
        rx_bits: 8.0 * per_second(fast.rx_bytes + kernel.rx_bytes, seconds),
        tx_packets: per_second(fast.tx_packets + kernel.tx_packets, seconds),
        rx_packets: per_second(fast.rx_packets + kernel.rx_packets, seconds),
        dropped: per_second(
            since(before.dropped_packets, after.dropped_packets),
            seconds,
        ),
        fast_share: share(carried),
    };
    (flow, carried)
}

fn share(carried: Carried) -> Option<f64> {
    (carried.all > 0).then(|| carried.fast as f64 / carried.all as f64)
}

fn more(before: Traffic, after: Traffic) -> Traffic {
    Traffic {
        tx_packets: since(before.tx_packets, after.tx_packets),
        tx_bytes: since(before.tx_bytes, after.tx_bytes),
        rx_packets: since(before.rx_packets, after.rx_packets),
        rx_bytes: since(before.rx_bytes, after.rx_bytes),
    }
}

fn since(before: u64, after: u64) -> u64 {
    after.checked_sub(before).unwrap_or(after)
}

fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(subnet: &str, tx_packets: u64, kernel: u64) -> Peer {
        let traffic = |packets: u64| Traffic {
            tx_packets: packets,
            tx_bytes: packets * 100,
            ..Traffic::default()
        };
        Peer {
            subnet: subnet.to_owned(),
            fast: traffic(tx_packets),
            kernel: traffic(kernel),
            ..Peer::default()
        }
    }

    fn look(at: f64, peers: Vec<Peer>) -> Look {
        Look {
            at,
            peers,
            drops: BTreeMap::new(),
        }
    }

    #[test]
    fn rates_are_what_came_between_by_the_time_and_the_busiest_peer_is_first() {
        let before = look(10.0, vec![peer("a", 100, 0), peer("b", 0, 0)]);
        let after = look(12.0, vec![peer("a", 102, 2), peer("b", 40, 0)]);
        let rates = between(&before, &after);
        let subnets: Vec<&str> = rates.peers.iter().map(|it| it.subnet.as_str()).collect();
        assert_eq!(subnets, ["b", "a"]);
        assert_eq!(rates.peers[0].flow.tx_packets, 20.0);
        assert_eq!(rates.peers[0].flow.tx_bits, 16_000.0);
        assert_eq!(rates.peers[0].flow.fast_share, Some(1.0));
        assert_eq!(rates.peers[1].flow.fast_share, Some(0.5));
        assert_eq!(rates.total.tx_packets, 22.0);
        assert_eq!(rates.total.fast_share, Some(42.0 / 44.0));
    }

    #[test]
    fn counters_that_begin_anew_are_no_flood() {
        let before = look(0.0, vec![peer("a", 1 << 40, 0)]);
        let after = look(1.0, vec![peer("a", 7, 0)]);
        assert_eq!(between(&before, &after).total.tx_packets, 7.0);
    }

    #[test]
    fn of_drops_those_are_told_that_came_between() {
        let drops =
            |count| BTreeMap::from([("foreign_source".to_owned(), count), ("x".to_owned(), 3)]);
        let mut before = look(0.0, Vec::new());
        before.drops = drops(10);
        let mut after = look(2.0, Vec::new());
        after.drops = drops(14);
        let expected = BTreeMap::from([("foreign_source".to_owned(), 2.0)]);
        assert_eq!(between(&before, &after).drops, expected);
        assert_eq!(between(&before, &after).total.fast_share, None);
    }
}
