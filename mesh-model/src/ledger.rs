//! The counters, kept by adding up outcomes.

use std::collections::{BTreeMap, BTreeSet};

use mesh_layout::{DropReason, Drops, PacketEvent, PassReason, Passes, PeerStats};

use crate::{Outcome, Verdict};

/// On each CPU the first drops of a reason are all reported…
const FIRST_EVENTS: u64 = 16;
/// …and of later ones every 256th.
const EVENT_EVERY: u64 = 256;

/// What one CPU has counted since its maps were empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Drops by reason.
    pub drops: Drops,
    /// Packets left to the kernel by reason.
    pub passes: Passes,
    /// Counters by index, `last_seen_ns` left out.
    pub peers: BTreeMap<u32, PeerStats>,
    /// Counters whose peer was heard of.
    pub heard: BTreeSet<u32>,
}

impl Ledger {
    /// Adds what a packet came to. Returns the event that is reported of it.
    pub fn add(&mut self, outcome: &Outcome) -> Option<PacketEvent> {
        if let Some(counted) = outcome.counted {
            let stats = self.peers.entry(counted.index).or_default();
            *stats = sum(stats, &counted.add);
            if counted.heard {
                self.heard.insert(counted.index);
            }
        }
        match outcome.verdict {
            Verdict::Pass(reason) => {
                *self.passes.get_mut(reason) += 1;
                None
            }
            Verdict::Drop(reason) => {
                let seen = self.drops.get_mut(reason);
                *seen += 1;
                let sampled = *seen <= FIRST_EVENTS || seen.is_multiple_of(EVENT_EVERY);
                outcome.event.filter(|_| sampled)
            }
            Verdict::Redirect(_) | Verdict::Continue => None,
        }
    }

    /// The counters in which `other` shows something else, a line each.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let drops = DropReason::ALL
            .iter()
            .map(|it| (it.name(), self.drops.get(*it), other.drops.get(*it)));
        let passes = PassReason::ALL
            .iter()
            .map(|it| (it.name(), self.passes.get(*it), other.passes.get(*it)));
        let reasons = drops
            .chain(passes)
            .filter(|(_, here, there)| here != there)
            .map(|(name, here, there)| format!("{name}: {here} and {there}"));
        let indices: BTreeSet<_> = self.peers.keys().chain(other.peers.keys()).collect();
        let peers = indices.into_iter().filter_map(|index| {
            let (here, there) = (self.peers.get(index), other.peers.get(index));
            (here != there).then(|| format!("counters {index}: {here:?}\n  and {there:?}"))
        });
        let heard = (self.heard != other.heard)
            .then(|| format!("heard of {:?} and {:?}", self.heard, other.heard));
        reasons.chain(peers).chain(heard).collect()
    }
}

fn sum(left: &PeerStats, right: &PeerStats) -> PeerStats {
    PeerStats {
        tx_packets: left.tx_packets + right.tx_packets,
        tx_bytes: left.tx_bytes + right.tx_bytes,
        rx_packets: left.rx_packets + right.rx_packets,
        rx_bytes: left.rx_bytes + right.rx_bytes,
        kernel_tx_packets: left.kernel_tx_packets + right.kernel_tx_packets,
        kernel_tx_bytes: left.kernel_tx_bytes + right.kernel_tx_bytes,
        kernel_rx_packets: left.kernel_rx_packets + right.kernel_rx_packets,
        kernel_rx_bytes: left.kernel_rx_bytes + right.kernel_rx_bytes,
        drops: left.drops + right.drops,
        last_seen_ns: 0,
    }
}
