//! What a run saw, step by step; steps that were not reached are empty.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use mesh_proto::mesh::TrafficCounters;
use serde::Serialize;

use crate::{checks::Check, kept::KeptCluster};

#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Whether the run came to its end and every check held.
    pub(crate) ok: bool,
    /// What ended the run early.
    pub(crate) error: Option<String>,
    pub(crate) seconds: f64,
    pub(crate) checks: Vec<Check>,
    pub(crate) nodes: Vec<Node>,
    /// What `quilt-mesh-control security` says.
    pub(crate) security: Option<String>,
    pub(crate) containers: Vec<Container>,
    pub(crate) pings: Vec<Ping>,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) peers: Vec<PeerTraffic>,
    pub(crate) peers_map: Option<PeersMap>,
    pub(crate) addresses: Vec<Addresses>,
    pub(crate) lost_host: Option<LostHost>,
    pub(crate) returned_host: Option<ReturnedHost>,
    pub(crate) kept: Option<KeptCluster>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) subnet: Ipv4Net,
    pub(crate) status: String,
    /// ACTIVE, UNAVAILABLE, …: see FastPathStatus in mesh.proto.
    pub(crate) fast_path: String,
    /// Why it is not ACTIVE, empty if it is.
    pub(crate) fast_path_reason: String,
    /// "tcx" or "clsact".
    pub(crate) attach_mode: String,
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) address: Ipv4Addr,
}

/// The containers' addresses with their MAC addresses, by two witnesses.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Addresses {
    pub(crate) node: String,
    /// What the runtime has leased.
    pub(crate) listed: BTreeMap<Ipv4Addr, String>,
    /// What the `endpoints` map of the kernel holds.
    pub(crate) in_the_map: BTreeMap<Ipv4Addr, String>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ping {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) sent: usize,
    pub(crate) received: usize,
    /// Median round trip in microseconds.
    pub(crate) median_us: Option<f64>,
}

impl Ping {
    pub(crate) fn is_complete(&self) -> bool {
        self.sent > 0 && self.received == self.sent
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Transfer {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) bytes: usize,
    pub(crate) seconds: f64,
    pub(crate) gigabits_per_second: f64,
    pub(crate) sent_sha256: String,
    pub(crate) received_sha256: String,
    /// Growth of the sender's counters for the receiver's node during the transfer.
    pub(crate) sender: Carried,
    /// Growth of the receiver's counters for the sender's node.
    pub(crate) receiver: Carried,
}

/// Packets and bytes in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counters {
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
}

impl From<TrafficCounters> for Counters {
    fn from(from: TrafficCounters) -> Self {
        Self {
            tx_packets: from.tx_packets,
            tx_bytes: from.tx_bytes,
            rx_packets: from.rx_packets,
            rx_bytes: from.rx_bytes,
        }
    }
}

impl Counters {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            tx_packets: self.tx_packets.saturating_sub(before.tx_packets),
            tx_bytes: self.tx_bytes.saturating_sub(before.tx_bytes),
            rx_packets: self.rx_packets.saturating_sub(before.rx_packets),
            rx_bytes: self.rx_bytes.saturating_sub(before.rx_bytes),
        }
    }

    /// Whether these are later than `before`. Counters that are less began anew.
    fn goes_on_from(self, before: Self) -> bool {
        self.tx_packets >= before.tx_packets && self.rx_packets >= before.rx_packets
    }

    fn packets(self) -> u64 {
        self.tx_packets + self.rx_packets
    }
}

/// What each path carried between a node and one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Carried {
    pub(crate) fast_path: Counters,
    pub(crate) kernel_path: Counters,
}

impl Carried {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            fast_path: self.fast_path.since(before.fast_path),
            kernel_path: self.kernel_path.since(before.kernel_path),
        }
    }

    /// Whether these are later than `before`, and of the same entry of a peer.
    pub(crate) fn goes_on_from(self, before: Self) -> bool {
        self.fast_path.goes_on_from(before.fast_path)
            && self.kernel_path.goes_on_from(before.kernel_path)
    }

    /// Per mille of the packets that eBPF carried, rounded down; `None` if there were none.
    pub(crate) fn fast_per_mille(self) -> Option<u64> {
        let fast = self.fast_path.packets();
        (fast * 1000).checked_div(fast + self.kernel_path.packets())
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct PeerTraffic {
    pub(crate) node: String,
    pub(crate) peer: String,
    pub(crate) subnet: String,
    #[serde(flatten)]
    pub(crate) carried: Carried,
    pub(crate) dropped_packets: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct PeersMap {
    pub(crate) node: String,
    pub(crate) command: String,
    pub(crate) output: String,
    /// The subnets whose entries the output shows by their fields' names.
    pub(crate) subnets: Vec<Ipv4Addr>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct LostHost {
    pub(crate) name: String,
    pub(crate) subnet: Ipv4Net,
    pub(crate) witnesses: Vec<Witness>,
    /// Pings among containers of the other hosts while it was gone.
    pub(crate) pings_among_others: Vec<Ping>,
}

/// What a remaining host saw of the loss, in seconds after it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Witness {
    pub(crate) name: String,
    pub(crate) route_gone_after: Option<f64>,
    pub(crate) map_entry_gone_after: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ReturnedHost {
    pub(crate) name: String,
    pub(crate) subnet_before: Ipv4Net,
    pub(crate) subnet_after: Ipv4Net,
    /// Until every other node had it as a peer again.
    pub(crate) seconds: f64,
    /// Pings between its containers and all others, both ways.
    pub(crate) pings: Vec<Ping>,
    /// What each path carried between it and the others since its return.
    pub(crate) peers: Vec<PeerTraffic>,
}
