//! What arrives at a program, and what must come of it.

use std::net::Ipv4Addr;

use mesh_layout::{
    DropReason, EVENT_DROP, EVENT_VERSION, IPV4_LEN, PROTOCOL_UDP, PacketEvent, PassReason,
    PeerStats, VERDICT_DROP, mapped,
};

use crate::Ipv4;

/// A packet as a program meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival<'a> {
    /// The packet with its Ethernet header.
    pub packet: &'a [u8],
    /// Index of the interface.
    pub link: u32,
    /// A VLAN tag that the kernel has taken off the packet: its priority and identifier.
    pub vlan_tag: Option<u16>,
    /// Payload bytes per packet on the wire, of a packet that stands for several and whose
    /// kind of segmentation the kernel was not told; 0 for a single packet.
    pub segment_size: u16,
    /// The port that stands for the packet's flow: the kernel's hash, of which the
    /// specification wants no more than that it lies in [`SOURCE_PORTS`](crate::SOURCE_PORTS)
    /// and is the same for every packet of a flow.
    pub flow_port: u16,
    /// Identification of the outer header, which counts: of it the specification wants that packets which
    /// follow each other do not have the same.
    pub identification: u16,
    /// Whether the packet filter has found, of a frame on its way up to the bridge, that it claims
    /// an address or a MAC address that belongs to another port than the one it came by.
    pub claims_anothers: bool,
}

impl<'a> Arrival<'a> {
    /// A single packet.
    pub fn single(packet: &'a [u8], link: u32) -> Self {
        Self {
            packet,
            link,
            vlan_tag: None,
            segment_size: 0,
            flow_port: 0,
            identification: 0,
            claims_anothers: false,
        }
    }
}

/// Where a packet is redirected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// Out of an underlay interface to a neighbour there, whose MAC address the kernel writes
    /// into the outer Ethernet header.
    Neighbour {
        /// Index of the interface.
        link: u32,
        /// The neighbour: the peer itself or the gateway towards it.
        next_hop: Ipv4Addr,
    },
    /// Into the container's end of the veth pair whose host's end this is.
    Container {
        /// Index of the host's end.
        link: u32,
    },
}

/// What a program does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Redirected.
    Redirect(Redirect),
    /// Left to the kernel path, unchanged, and counted as such.
    Pass(PassReason),
    /// Dropped.
    Drop(DropReason),
    /// Looked at only.
    Continue,
}

/// What is added to a peer's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Index of the counters.
    pub index: u32,
    /// What is added. `last_seen_ns` is not: see `heard`.
    pub add: PeerStats,
    /// Whether the peer was heard of now.
    pub heard: bool,
}

/// What a program makes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// What is counted for a peer.
    pub counted: Option<Counted>,
    /// What is reported of a drop, if this one is sampled. The time is zero.
    pub event: Option<PacketEvent>,
}

impl Outcome {
    /// The packet is left alone.
    pub(crate) fn unchanged(arrival: &Arrival<'_>, verdict: Verdict) -> Self {
        Self {
            verdict,
            packet: arrival.packet.to_vec(),
            counted: None,
            event: None,
        }
    }

    /// The packet is left to the kernel path.
    pub(crate) fn pass(arrival: &Arrival<'_>, reason: PassReason) -> Self {
        Self::unchanged(arrival, Verdict::Pass(reason))
    }
}

/// A drop, with as much of the packet as was read before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropped {
    pub(crate) reason: DropReason,
    /// Counters of the peer that is to blame.
    pub(crate) blamed: Option<u32>,
    pub(crate) vni: u32,
    pub(crate) outer: Option<(Ipv4Addr, Ipv4Addr)>,
    pub(crate) inner: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Where the inner IPv4 header is, if there is one.
    pub(crate) inner_at: Option<usize>,
}

impl Dropped {
    pub(crate) fn because(reason: DropReason) -> Self {
        Self {
            reason,
            blamed: None,
            vni: 0,
            outer: None,
            inner: None,
            inner_at: None,
        }
    }

    /// Protocol and ports of the inner packet, zeros where there are none.
    fn transport(&self, packet: &[u8]) -> (u8, [u16; 2]) {
        let inner = self.inner_at.and_then(|at| packet.get(at..));
        let Some(bytes) = inner.filter(|bytes| bytes.len() >= IPV4_LEN) else {
            return (0, [0; 2]);
        };
        let Some(ip) = Ipv4::read(bytes) else {
            return (0, [0; 2]);
        };
        // TCP and UDP begin with them alike.
        let has_ports = ip.fragment_offset == 0 && [6, PROTOCOL_UDP].contains(&ip.protocol);
        let ports = bytes
            .get(ip.length()..ip.length() + 4)
            .filter(|_| has_ports);
        let ports = ports.map_or([0; 2], |it| {
            [[it[0], it[1]], [it[2], it[3]]].map(u16::from_be_bytes)
        });
        (ip.protocol, ports)
    }

    pub(crate) fn outcome(self, arrival: &Arrival<'_>) -> Outcome {
        let octets = |pair: Option<(Ipv4Addr, Ipv4Addr)>| {
            let octets = |address: Ipv4Addr| match address {
                Ipv4Addr::UNSPECIFIED => [0; 16],
                address => mapped(address.octets()),
            };
            pair.map_or(([0; 16], [0; 16]), |(source, destination)| {
                (octets(source), octets(destination))
            })
        };
        let (outer_source, outer_destination) = octets(self.outer);
        let (inner_source, inner_destination) = octets(self.inner);
        let (protocol, [source_port, destination_port]) = self.transport(arrival.packet);
        let length = u32::try_from(arrival.packet.len()).unwrap_or(u32::MAX);
        Outcome {
            counted: self.blamed.map(|index| Counted {
                index,
                add: PeerStats {
                    drops: 1,
                    ..PeerStats::default()
                },
                heard: false,
            }),
            event: Some(PacketEvent {
                time_ns: 0,
                version: EVENT_VERSION,
                kind: EVENT_DROP,
                // Whoever was asked fills it in.
                program: 0,
                verdict: VERDICT_DROP,
                source_port,
                destination_port,
                protocol,
                pad: [0; 7],
                reason: self.reason as u32,
                link: arrival.link,
                length,
                vni: self.vni,
                outer_source,
                outer_destination,
                inner_source,
                inner_destination,
            }),
            ..Outcome::unchanged(arrival, Verdict::Drop(self.reason))
        }
    }
}
