//! How many packets on the wire a packet stands for.

use mesh_layout::{ETHERNET_LEN, PROTOCOL_UDP, UDP_LEN};

use crate::{Arrival, Ipv4};

/// Protocol number of TCP.
const PROTOCOL_TCP: u8 = 6;
/// Length of a TCP header without options (RFC 9293).
const TCP_LEN: usize = 20;

/// What comes of a packet on the wire.
pub(crate) struct OnTheWire {
    /// How many packets.
    pub(crate) packets: u64,
    /// Length of the longest, from its IPv4 header on.
    pub(crate) longest: usize,
}

/// The segments of a frame that begins with an Ethernet and an IPv4 header: how many.
pub(crate) fn segments(arrival: &Arrival<'_>, ip: &Ipv4) -> u64 {
    on_the_wire(arrival, ip).packets
}

/// The segments of a frame that begins with an Ethernet and an IPv4 header: each carries the
/// headers and at most the segment size of payload. Of other protocols than TCP and UDP the
/// kernel does not say, and the packet counts as one.
pub(crate) fn on_the_wire(arrival: &Arrival<'_>, ip: &Ipv4) -> OnTheWire {
    let whole = OnTheWire {
        packets: 1,
        longest: arrival.packet.len() - ETHERNET_LEN,
    };
    if arrival.segment_size == 0 {
        return whole;
    }
    let transport = ETHERNET_LEN + ip.length();
    let transport_length = match ip.protocol {
        PROTOCOL_UDP => UDP_LEN,
        PROTOCOL_TCP => arrival
            .packet
            .get(transport..transport + TCP_LEN)
            .map_or(TCP_LEN, |header| usize::from(header[12] >> 4) * 4),
        _ => return whole,
    };
    let headers = transport + transport_length;
    let payload = arrival.packet.len().saturating_sub(headers);
    let size = usize::from(arrival.segment_size);
    OnTheWire {
        packets: payload.div_ceil(size).max(1).try_into().unwrap_or(u64::MAX),
        longest: headers - ETHERNET_LEN + payload.min(size),
    }
}
