//! What a heartbeat may carry: the state of the node's data plane and its traffic by peer.
//!
//! All of it is optional. Unknown fields are ignored, so that agents and control planes of
//! different versions understand each other.

use std::{collections::BTreeMap, net::Ipv4Addr};

use mesh_problems::Finding;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::check::CheckReport;

/// The body of `POST /api/nodes/{id}/heartbeat`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Heartbeat {
    /// The state of the node's data plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_plane: Option<DataPlane>,
    /// Traffic with each peer since the node's data plane was set up.
    #[cfg_attr(feature = "openapi", schema(max_items = 65_536))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerTraffic>,
    /// The largest packet of a container that the node takes out of the overlay, in bytes: its
    /// overlay's MTU. The other nodes are told of it. Absent while the node has no overlay; the
    /// control plane then keeps what it was told before.
    #[cfg_attr(
        feature = "openapi",
        schema(minimum = 68, maximum = 65_535, example = 1450)
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay_mtu: Option<u32>,
    /// What came of asking along the ways to the node's peers, for the check that answers to it name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckReport>,
}

/// The state of one node's data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct DataPlane {
    /// Version of the runtime.
    pub version: String,
    /// Where the fast path stands: `active`, `waiting`, `unavailable`, `off`, or `unknown` for
    /// a runtime that does not tell.
    pub fast_path: String,
    /// Why it is not `active`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The node's underlay address, as the runtime sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = "ipv4"))]
    pub host_address: Option<Ipv4Addr>,
    /// Generation of the peer set that the kernel shows.
    #[serde(deserialize_with = "count")]
    pub generation: u64,
    /// What is not as it should be on the node, the gravest first; empty when all is well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Dropped packets by reason.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "counts"
    )]
    pub drops: BTreeMap<String, u64>,
}

/// Traffic between the reporting node and one peer, as counted by the reporting node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct PeerTraffic {
    /// The peer's subnet, e.g. "10.42.2.0/24".
    #[cfg_attr(
        feature = "openapi",
        schema(
            required,
            example = "10.42.2.0/24",
            pattern = r"^([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}$"
        )
    )]
    pub subnet: String,
    /// Packets the fast path sent.
    #[serde(deserialize_with = "count")]
    pub tx_packets: u64,
    /// Bytes the fast path sent.
    #[serde(deserialize_with = "count")]
    pub tx_bytes: u64,
    /// Packets the fast path received.
    #[serde(deserialize_with = "count")]
    pub rx_packets: u64,
    /// Bytes the fast path received.
    #[serde(deserialize_with = "count")]
    pub rx_bytes: u64,
    /// Packets the kernel path sent.
    #[serde(deserialize_with = "count")]
    pub kernel_tx_packets: u64,
    /// Bytes the kernel path sent.
    #[serde(deserialize_with = "count")]
    pub kernel_tx_bytes: u64,
    /// Packets the kernel path received.
    #[serde(deserialize_with = "count")]
    pub kernel_rx_packets: u64,
    /// Bytes the kernel path received.
    #[serde(deserialize_with = "count")]
    pub kernel_rx_bytes: u64,
    /// Packets from this peer that a guard dropped.
    #[serde(deserialize_with = "count")]
    pub dropped_packets: u64,
    /// Milliseconds since the last packet from the peer; absent if there was none.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_count"
    )]
    pub last_packet_age_ms: Option<u64>,
    /// The control plane calls the peer down, but its packets arrive.
    pub suspect: bool,
}

/// A number that both sides can count to: that of `int64`, as the description has it.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(u64::deserialize(deserializer)?)
}

fn optional_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Option::<u64>::deserialize(deserializer)?
        .map(within)
        .transpose()
}

fn counts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u64>, D::Error> {
    let counts = BTreeMap::<String, u64>::deserialize(deserializer)?;
    let checked = counts
        .into_iter()
        .map(|(name, number)| Ok((name, within(number)?)));
    checked.collect()
}

fn within<E: Error>(number: u64) -> Result<u64, E> {
    match i64::try_from(number) {
        Ok(_) => Ok(number),
        Err(_) => Err(E::custom(format!("{number} is more than {}", i64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_object_is_a_heartbeat_and_unknown_fields_are_ignored() {
        let empty: Heartbeat = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, Heartbeat::default());
        let newer =
            r#"{"weather":"fine","peers":[{"subnet":"10.42.2.0/24","tx_packets":3,"x":1}]}"#;
        let newer: Heartbeat = serde_json::from_str(newer).unwrap();
        assert_eq!(newer.peers[0].tx_packets, 3);
    }

    #[test]
    fn a_number_that_is_more_than_the_description_has_is_refused_wherever_it_stands() {
        let most = i64::MAX.unsigned_abs();
        for field in [
            r#"{"data_plane":{"generation":N}}"#,
            r#"{"data_plane":{"drops":{"malformed":N}}}"#,
            r#"{"peers":[{"subnet":"10.42.2.0/24","rx_bytes":N}]}"#,
            r#"{"peers":[{"subnet":"10.42.2.0/24","last_packet_age_ms":N}]}"#,
        ] {
            let read = |number: u64| {
                let text = field.replace('N', &number.to_string());
                serde_json::from_str::<Heartbeat>(&text)
            };
            read(most).unwrap();
            read(most + 1).unwrap_err();
            read(u64::MAX).unwrap_err();
        }
    }

    #[test]
    fn what_is_empty_is_left_out() {
        assert_eq!(serde_json::to_string(&Heartbeat::default()).unwrap(), "{}");
    }
}
