//! Who sends how much to whom.

use std::borrow::Cow;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::{
    heartbeat::{DataPlane, PeerTraffic},
    node_id::NodeId,
};

/// The body of `GET /api/traffic`. The control plane writes it piece by piece; this is what it is as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrafficMatrix<'a> {
    /// Every node, also those that report nothing, ordered by subnet.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<ReportingNode<'_>>))]
    pub nodes: Vec<ReportingNode<'a>>,
    /// Who counts how much with whom, ordered by the two subnets.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Flow<'_>>))]
    pub flows: Vec<Flow<'a>>,
    /// How many flows were reported for which there was no room.
    pub flows_left_out: usize,
}

/// A node in [`TrafficMatrix`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportingNode<'a> {
    /// The node's id.
    #[cfg_attr(feature = "openapi", schema(value_type = NodeId))]
    pub node_id: Cow<'a, NodeId>,
    /// Its hostname.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub hostname: Cow<'a, str>,
    /// The subnet it leases.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.42.1.0/24"))]
    pub subnet: Ipv4Net,
    /// Unix seconds of its latest report; null when there is none.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub reported_at: Option<i64>,
    /// Milliseconds since its latest report; null when there is none.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub report_age_ms: Option<u64>,
    /// What it told of its data plane; null when it did not.
    #[cfg_attr(feature = "openapi", schema(required, value_type = Option<DataPlane>))]
    pub data_plane: Option<Cow<'a, DataPlane>>,
}

/// Traffic from one node to another and back, as counted by the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Flow<'a> {
    /// The node that counted.
    #[cfg_attr(feature = "openapi", schema(value_type = NodeId))]
    pub from: Cow<'a, NodeId>,
    /// Its peer; null when no node leases that subnet.
    #[cfg_attr(feature = "openapi", schema(required, value_type = Option<NodeId>))]
    pub to: Option<Cow<'a, NodeId>>,
    /// The subnet of `from`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.42.1.0/24"))]
    pub from_subnet: Ipv4Net,
    /// The peer's subnet.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.42.1.0/24"))]
    pub to_subnet: Ipv4Net,
    /// What it counted.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Traffic between two nodes as the reporting one counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Counters {
    /// Packets the fast path sent.
    pub tx_packets: u64,
    /// Bytes the fast path sent.
    pub tx_bytes: u64,
    /// Packets the fast path received.
    pub rx_packets: u64,
    /// Bytes the fast path received.
    pub rx_bytes: u64,
    /// Packets the kernel path sent.
    pub kernel_tx_packets: u64,
    /// Bytes the kernel path sent.
    pub kernel_tx_bytes: u64,
    /// Packets the kernel path received.
    pub kernel_rx_packets: u64,
    /// Bytes the kernel path received.
    pub kernel_rx_bytes: u64,
    /// Packets from the peer that a guard dropped.
    pub dropped_packets: u64,
    /// Milliseconds from the last packet of the peer to the report; null if there was none.
    #[cfg_attr(feature = "openapi", schema(required))]
    pub last_packet_age_ms: Option<u64>,
    /// The control plane calls the peer down, but its packets arrive.
    pub suspect: bool,
}

impl From<&PeerTraffic> for Counters {
    fn from(told: &PeerTraffic) -> Self {
        Self {
            tx_packets: told.tx_packets,
            tx_bytes: told.tx_bytes,
            rx_packets: told.rx_packets,
            rx_bytes: told.rx_bytes,
            kernel_tx_packets: told.kernel_tx_packets,
            kernel_tx_bytes: told.kernel_tx_bytes,
            kernel_rx_packets: told.kernel_rx_packets,
            kernel_rx_bytes: told.kernel_rx_bytes,
            dropped_packets: told.dropped_packets,
            last_packet_age_ms: told.last_packet_age_ms,
            suspect: told.suspect,
        }
    }
}
