//! A report as the database keeps it: the data plane's state as JSON, the flows as protobuf.
//!
//! Both leave room: replicas of different versions read each other's, and pass over what they do not know.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_rest::heartbeat::DataPlane;
use mesh_rest::traffic::Counters;
use prost::Message;

use crate::traffic::report::Report;

/// The flows of one node. `ages` is beside them, because it changes also when nothing flows.
#[derive(Clone, PartialEq, Message)]
struct Flows {
    #[prost(message, repeated, tag = "1")]
    flows: Vec<Flow>,
    /// `last_packet_age_ms` plus one of each flow, zero where there is none.
    #[prost(uint64, repeated, tag = "2")]
    ages: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Flow {
    #[prost(fixed32, tag = "1")]
    network: u32,
    #[prost(uint32, tag = "2")]
    prefix: u32,
    #[prost(uint64, tag = "3")]
    tx_packets: u64,
    #[prost(uint64, tag = "4")]
    tx_bytes: u64,
    #[prost(uint64, tag = "5")]
    rx_packets: u64,
    #[prost(uint64, tag = "6")]
    rx_bytes: u64,
    #[prost(uint64, tag = "7")]
    kernel_tx_packets: u64,
    #[prost(uint64, tag = "8")]
    kernel_tx_bytes: u64,
    #[prost(uint64, tag = "9")]
    kernel_rx_packets: u64,
    #[prost(uint64, tag = "10")]
    kernel_rx_bytes: u64,
    #[prost(uint64, tag = "11")]
    dropped_packets: u64,
    #[prost(bool, tag = "12")]
    suspect: bool,
}

/// A report in the form in which it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Of everything but the ages of last packets: a report with the same digest has nothing new to tell.
    pub digest: i64,
    /// The state of the data plane, JSON.
    pub data_plane: Option<String>,
    /// For [`unpack`].
    pub flows: Vec<u8>,
}

/// Brings a report into the form in which it is stored.
///
/// # Errors
///
/// Serialising to memory is not expected to fail.
pub fn pack(report: &Report) -> serde_json::Result<Packed> {
    let data_plane = report.data_plane.as_ref().map(serde_json::to_string);
    let data_plane = data_plane.transpose()?;
    let counted = Flows {
        flows: report.peers.iter().map(flow).collect(),
        ages: Vec::new(),
    };
    let mut flows = counted.encode_to_vec();
    // Should a later version of the standard library compute another one, reports are written once more.
    let mut hasher = DefaultHasher::new();
    (&data_plane, &flows).hash(&mut hasher);
    let age = |(_, counters): &(Ipv4Net, Counters)| {
        let age = counters.last_packet_age_ms;
        age.map_or(0, |age| age.saturating_add(1))
    };
    let ages = Flows {
        flows: Vec::new(),
        ages: report.peers.iter().map(age).collect(),
    };
    // Two messages one after the other are one with the fields of both (protobuf.dev, Encoding, "Last One Wins").
    flows.extend(ages.encode_to_vec());
    Ok(Packed {
        digest: hasher.finish().cast_signed(),
        data_plane,
        flows,
    })
}

/// Reads flows that were stored; `later_ms` after they were counted the node told the same again. What cannot
/// be read is passed over.
pub fn unpack(flows: &[u8], later_ms: u64) -> Vec<(Ipv4Net, Counters)> {
    let Flows { flows, ages } = Flows::decode(flows).unwrap_or_default();
    let ages = ages.into_iter().chain(std::iter::repeat(0));
    let read = |(flow, age): (Flow, u64)| {
        let prefix = u8::try_from(flow.prefix).ok()?;
        let subnet = Ipv4Net::new(Ipv4Addr::from_bits(flow.network), prefix).ok()?;
        let age = age.checked_sub(1).map(|age| age.saturating_add(later_ms));
        Some((subnet, counters(flow, age)))
    };
    flows.into_iter().zip(ages).filter_map(read).collect()
}

/// Reads a data plane's state that was stored.
pub fn data_plane(json: &str) -> Option<DataPlane> {
    serde_json::from_str(json).ok()
}

fn flow((subnet, counters): &(Ipv4Net, Counters)) -> Flow {
    Flow {
        network: subnet.network().to_bits(),
        prefix: subnet.prefix_len().into(),
        tx_packets: counters.tx_packets,
        tx_bytes: counters.tx_bytes,
        rx_packets: counters.rx_packets,
        rx_bytes: counters.rx_bytes,
        kernel_tx_packets: counters.kernel_tx_packets,
        kernel_tx_bytes: counters.kernel_tx_bytes,
        kernel_rx_packets: counters.kernel_rx_packets,
        kernel_rx_bytes: counters.kernel_rx_bytes,
        dropped_packets: counters.dropped_packets,
        suspect: counters.suspect,
    }
}

fn counters(flow: Flow, last_packet_age_ms: Option<u64>) -> Counters {
    Counters {
        tx_packets: flow.tx_packets,
        tx_bytes: flow.tx_bytes,
        rx_packets: flow.rx_packets,
        rx_bytes: flow.rx_bytes,
        kernel_tx_packets: flow.kernel_tx_packets,
        kernel_tx_bytes: flow.kernel_tx_bytes,
        kernel_rx_packets: flow.kernel_rx_packets,
        kernel_rx_bytes: flow.kernel_rx_bytes,
        dropped_packets: flow.dropped_packets,
        last_packet_age_ms,
        suspect: flow.suspect,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted() -> impl Strategy<Value = (Ipv4Net, Counters)> {
        let age = prop::option::of(0..u64::MAX);
        let numbers = prop::array::uniform9(prop_oneof![Just(0), any::<u64>()]);
        (any::<u32>(), 0..=32_u8, numbers, age, any::<bool>()).prop_map(
            |(network, prefix, numbers, last_packet_age_ms, suspect)| {
                let subnet = Ipv4Net::new(Ipv4Addr::from_bits(network), prefix).unwrap();
                let [
                    tx_packets,
                    tx_bytes,
                    rx_packets,
                    rx_bytes,
                    kernel_tx_packets,
                    kernel_tx_bytes,
                    kernel_rx_packets,
                    kernel_rx_bytes,
                    dropped_packets,
                ] = numbers;
                let counters = Counters {
                    tx_packets,
                    tx_bytes,
                    rx_packets,
                    rx_bytes,
                    kernel_tx_packets,
                    kernel_tx_bytes,
                    kernel_rx_packets,
                    kernel_rx_bytes,
                    dropped_packets,
                    last_packet_age_ms,
                    suspect,
                };
                (subnet.trunc(), counters)
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_packed_is_what_is_unpacked(peers in prop::collection::vec(counted(), 0..20)) {
            let report = Report { peers, ..Report::default() };
            prop_assert_eq!(unpack(&pack(&report).unwrap().flows, 0), report.peers);
        }

        #[test]
        fn bytes_that_are_no_flows_are_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            unpack(&bytes, u64::MAX);
        }
    }

    fn report(tx_packets: u64, last_packet_age_ms: u64) -> Report {
        let counters = Counters {
            tx_packets,
            last_packet_age_ms: Some(last_packet_age_ms),
            ..Counters::default()
        };
        let data_plane = DataPlane {
            generation: 3,
            ..DataPlane::default()
        };
        Report {
            data_plane: Some(data_plane),
            peers: vec![("10.42.2.0/24".parse().unwrap(), counters)],
            ..Report::default()
        }
    }

    #[test]
    fn a_packet_that_is_longer_ago_is_nothing_new_and_one_more_packet_is() {
        let digest = |report| pack(&report).unwrap().digest;
        assert_eq!(digest(report(1, 5)), digest(report(1, 10_005)));
        assert_ne!(digest(report(1, 5)), digest(report(2, 5)));
        let other = Report {
            data_plane: None,
            ..report(1, 5)
        };
        assert_ne!(digest(report(1, 5)), digest(other));
    }

    #[test]
    fn when_the_same_is_told_later_the_last_packet_is_that_much_longer_ago() {
        let packed = pack(&report(1, 5)).unwrap();
        let age = unpack(&packed.flows, 10_000)[0].1.last_packet_age_ms;
        assert_eq!(age, Some(10_005));
        let told = data_plane(&packed.data_plane.unwrap());
        assert_eq!(told, report(1, 5).data_plane);
    }
}
