//! What the programs tell of single packets.

use crate::program_names;

/// What became of a packet: what it was, what was decided and why.
///
/// Addresses are IPv6 ones, IPv4 as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2); those that the program
/// did not get to read are `::`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketEvent {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// [`EVENT_VERSION`]: a reader takes no other.
    pub version: u8,
    /// [`EVENT_DROP`] or [`EVENT_WATCHED`].
    pub kind: u8,
    /// Which [`EventProgram`] saw the packet.
    pub program: u8,
    /// [`VERDICT_DROP`] and the like.
    pub verdict: u8,
    /// A [`DropReason`](crate::DropReason) of a drop, a [`PassReason`](crate::PassReason) of what is left to the
    /// kernel; 0 of what is carried.
    pub reason: u32,
    /// Interface on which the packet arrived; of what the kernel is about to encapsulate the overlay device.
    pub link: u32,
    /// Length of the packet with its Ethernet header.
    pub length: u32,
    /// VXLAN network identifier of the packet.
    pub vni: u32,
    /// Ports of the inner packet, in the byte order of the host; 0 where it has none, or none were read.
    pub source_port: u16,
    /// See `source_port`.
    pub destination_port: u16,
    /// Protocol of the inner packet (the IP protocol numbers); 0 where it was not read.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 7],
    /// Outer source; `::` where the packet had no outer header when it was told of: before it is encapsulated, and
    /// once that is taken off.
    pub outer_source: [u8; 16],
    /// Outer destination.
    pub outer_destination: [u8; 16],
    /// Inner source.
    pub inner_source: [u8; 16],
    /// Inner destination.
    pub inner_destination: [u8; 16],
}

/// Version of [`PacketEvent`]. The first knew drops alone.
pub const EVENT_VERSION: u8 = 2;
/// [`PacketEvent::kind`]: a guard's drop, one of those that are told whether anybody looks or not.
pub const EVENT_DROP: u8 = 1;
/// [`PacketEvent::kind`]: told because somebody looks ([`Watch`](crate::Watch)).
pub const EVENT_WATCHED: u8 = 2;
/// [`PacketEvent::verdict`]: dropped.
pub const VERDICT_DROP: u8 = 1;
/// [`PacketEvent::verdict`]: left to the kernel path.
pub const VERDICT_PASS: u8 = 2;
/// [`PacketEvent::verdict`]: on its way to a peer.
pub const VERDICT_FORWARD: u8 = 3;
/// [`PacketEvent::verdict`]: handed to a container of this node.
pub const VERDICT_DELIVER: u8 = 4;

/// [`PacketEvent::program`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventProgram {
    /// [`program_names::ENCAPSULATE`]
    Encapsulate = 1,
    /// [`program_names::CATCH_ALL`]
    CatchAll,
    /// [`program_names::DECAPSULATE`]
    Decapsulate,
    /// [`program_names::SAFETY_NET`]
    SafetyNet,
    /// [`program_names::COUNT_EGRESS`]
    CountEgress,
}

impl EventProgram {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Encapsulate,
        Self::CatchAll,
        Self::Decapsulate,
        Self::SafetyNet,
        Self::CountEgress,
    ];

    /// The program's name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encapsulate => program_names::ENCAPSULATE,
            Self::CatchAll => program_names::CATCH_ALL,
            Self::Decapsulate => program_names::DECAPSULATE,
            Self::SafetyNet => program_names::SAFETY_NET,
            Self::CountEgress => program_names::COUNT_EGRESS,
        }
    }
}

/// An IPv4 address, in the bytes of the packet, as [`PacketEvent`] has it.
#[inline(always)]
pub const fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
