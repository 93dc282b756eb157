//! Layouts of the eBPF maps: what the programs in the kernel and the runtime that fills
//! the maps must agree on, byte for byte.
//!
//! Addresses are `[u8; 4]` in network byte order, so that `bpftool map dump` prints
//! `[10,42,2,0]` and nobody has to swap bytes in the head. All other numbers are in the
//! byte order of the host. Every struct is `repr(C)` with explicit padding, because padding
//! the compiler adds is uninitialised memory, which the verifier refuses in keys and which
//! would leak into values.
//!
//! A change of any layout here needs a new [`LAYOUT_VERSION`]. Fields keep their places; new
//! ones come at the end, or take the place of padding or of a field that is gone: a runtime takes
//! over the entries of another layout as far as both know them, and one of an earlier release
//! knows no more of ours than where its own fields were.
//!
//! What is asked for every packet has keys of four bytes, because IPv4 is what is carried, and
//! a short key is the cheaper one to hash and compare. Another family, of containers or
//! of the underlay, gets maps of its own beside these; [`Path`] and [`DropEvent`], which are not
//! looked up by an address, have room for it already.
#![no_std]

mod drop_reason;
mod pass_reason;
mod wire;

pub use drop_reason::{DropReason, Drops};
pub use pass_reason::{PassReason, Passes};
pub use wire::*;

/// Version of the layouts in this crate. It is part of the pin directory's path, because a
/// pinned map is reused by name without anybody comparing its shape.
pub const LAYOUT_VERSION: u32 = 3;

/// Names of the maps, as pinned and as the object declares them. The kernel keeps 15
/// characters of a map's name.
pub mod map_names {
    /// Peer subnet → [`Peer`](super::Peer). Hash.
    pub const PEERS: &str = "peers";
    /// Underlay address of a peer → [`Vtep`](super::Vtep). Hash.
    pub const VTEPS: &str = "vteps";
    /// Counter index → [`PeerStats`](super::PeerStats). Per-CPU array.
    pub const PEER_STATS: &str = "peer_stats";
    /// Counter index of a peer → [`Path`](super::Path). Per-CPU array.
    pub const PATHS: &str = "paths";
    /// Interface of the underlay → [`Underlay`](super::Underlay). Hash.
    pub const UNDERLAYS: &str = "underlays";
    /// Container address → [`Endpoint`](super::Endpoint). Hash.
    pub const ENDPOINTS: &str = "endpoints";
    /// MAC address of a container → [`MacHolder`](super::MacHolder). Hash.
    pub const MACS: &str = "macs";
    /// Port of a registered container, or one left to the kernel path →
    /// [`StrictPort`](super::StrictPort). Hash.
    pub const STRICT_PORTS: &str = "strict_ports";
    /// One [`Drops`](super::Drops). Per-CPU array.
    pub const DROPS: &str = "drops";
    /// One [`Passes`](super::Passes). Per-CPU array.
    pub const PASSES: &str = "passes";
    /// One [`Config`](super::Config). Array.
    pub const CONFIG: &str = "config";
    /// Sampled [`DropEvent`](super::DropEvent)s. Ring buffer.
    pub const EVENTS: &str = "events";
    /// All of them, in the order a reader of `bpftool` meets them in the documentation.
    pub const ALL: [&str; 12] = [
        PEERS,
        VTEPS,
        PEER_STATS,
        PATHS,
        UNDERLAYS,
        ENDPOINTS,
        MACS,
        STRICT_PORTS,
        DROPS,
        PASSES,
        CONFIG,
        EVENTS,
    ];
}

/// Names of the programs in the object. The kernel keeps 15 characters of a program's name.
pub mod program_names {
    /// Ingress of a bridge port: container → peer.
    pub const ENCAPSULATE: &str = "encapsulate";
    /// Ingress of the bridge itself: the same for ports that have no program yet.
    pub const CATCH_ALL: &str = "catch_all";
    /// Ingress of an underlay interface: peer → container.
    pub const DECAPSULATE: &str = "decapsulate";
    /// Ingress of the overlay device: what reached the kernel's VXLAN after all.
    pub const SAFETY_NET: &str = "safety_net";
    /// Egress of the overlay device: counts what the kernel path sends.
    pub const COUNT_EGRESS: &str = "count_egress";
    /// All of them.
    pub const ALL: [&str; 5] = [
        ENCAPSULATE,
        CATCH_ALL,
        DECAPSULATE,
        SAFETY_NET,
        COUNT_EGRESS,
    ];
}

/// Key of the `peers` map: the network address of a peer's subnet. The mask is
/// [`Config::mask`], the same for every node of a cluster, which is why a hash does.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey {
    /// Network address of the subnet.
    pub subnet: [u8; 4],
}

/// Value of the `peers` map: where packets for a peer's subnet go.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's underlay address: outer destination of what we send, and the only outer
    /// source from which packets of its subnet are taken.
    pub address: [u8; 4],
    /// How packets are carried: [`TRANSPORT_VXLAN`]. What a program does not know it leaves to the
    /// kernel path.
    pub transport: u8,
    /// [`PEER_KERNEL`] and [`PEER_MULTIPATH`], or 0.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// The largest inner packet that reaches this peer whole, in bytes, where that is less than the
    /// overlay's MTU and the kernel's route does not say so; 0 where nothing is known.
    pub mtu: u32,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Index of this peer's counters in `peer_stats`.
    pub counters: u32,
    /// MAC address of the peer's overlay device: inner destination, so that the peer's
    /// kernel path takes the packet where its fast path does not.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
}

/// [`Peer::transport`]: VXLAN over UDP over IPv4.
pub const TRANSPORT_VXLAN: u8 = 0;

/// Flag of a [`Peer`]: the kernel path has its packets, in both directions, once the guards have let
/// them through.
pub const PEER_KERNEL: u8 = 1;

/// Flag of a [`Peer`]: several routes of equal cost lead to it. The kernel is asked for every packet, by
/// its flow, and not once for all of them.
pub const PEER_MULTIPATH: u8 = 2;

/// Value of the `paths` map, one per CPU: what the kernel said of the way to a peer when it was last
/// asked. The programs write it; nobody else need.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// When the kernel was asked, in its ticks (jiffies, the low half).
    pub checked: u32,
    /// Index of the interface; 0 where the kernel path has the packets.
    pub link: u32,
    /// The underlay address that was asked for: an entry of another peer's, or of this one's at
    /// another address, says nothing.
    pub address: [u8; 4],
    /// MTU of the way, outer headers included.
    pub mtu: u32,
    /// The neighbour to send to, the peer itself or a gateway, of either family; IPv4 in the first four
    /// bytes.
    pub next_hop: [u8; 16],
    /// Family of the neighbour's address: `AF_INET` or `AF_INET6`; 0 in an entry that was never filled.
    pub family: u16,
    /// Identification of the next outer IPv4 header (RFC 6864), in the byte order of the host.
    pub identification: u16,
}

/// Key of the `underlays` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnderlayKey {
    /// Index of an interface.
    pub link: u32,
}

/// Value of the `underlays` map: an interface with Ethernet headers by which the fast path may leave.
/// Where the kernel's route leads elsewhere, the kernel path has the packets. Only whether the entry
/// exists counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Underlay {
    /// Zero.
    pub flags: u32,
}

/// Key of the `vteps` map: the underlay address of a peer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VtepKey {
    /// Underlay address.
    pub address: [u8; 4],
}

/// Value of the `vteps` map: tells a stranger from a peer that sends from a wrong subnet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vtep {
    /// Index of this peer's counters in `peer_stats`.
    pub counters: u32,
}

/// Value of the `peer_stats` map, one per CPU: what went to and came from one peer.
///
/// Packets are counted as they are on the wire: a merged or not yet segmented packet counts
/// its segments. Bytes are those of the inner IPv4 packets as the programs saw them, so the
/// headers of merged segments count once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Packets the fast path encapsulated.
    pub tx_packets: u64,
    /// Bytes the fast path encapsulated.
    pub tx_bytes: u64,
    /// Packets the fast path decapsulated.
    pub rx_packets: u64,
    /// Bytes the fast path decapsulated.
    pub rx_bytes: u64,
    /// Packets the kernel path sent.
    pub kernel_tx_packets: u64,
    /// Bytes the kernel path sent.
    pub kernel_tx_bytes: u64,
    /// Packets the kernel path received.
    pub kernel_rx_packets: u64,
    /// Bytes the kernel path received.
    pub kernel_rx_bytes: u64,
    /// Packets from this peer that a guard dropped.
    pub drops: u64,
    /// When the last packet came from this peer: nanoseconds of `CLOCK_MONOTONIC`, to the
    /// resolution of the timer tick; 0 if none came.
    pub last_seen_ns: u64,
}

/// Key of the `endpoints` map: the address of a container on this node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// The container's address.
    pub address: [u8; 4],
}

/// Value of the `endpoints` map: where packets for a container are delivered.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Index of the host's end of the container's veth pair.
    pub link: u32,
    /// MAC address of the container's end.
    pub mac: [u8; 6],
    /// [`ENDPOINT_HELD`], [`ENDPOINT_KERNEL`] and [`ENDPOINT_PORT_KERNEL`], or 0.
    pub flags: u16,
    /// Whom the container is, for policy; 0 for nobody known.
    pub identity: u32,
}

/// Flag of an [`Endpoint`]: its container is known to hold the address, because a container
/// runtime said so or it was seen on the interface inside. While its port exists, no other port
/// may send from the address. Without the flag the entry was learnt from packets, and only says
/// where to deliver.
pub const ENDPOINT_HELD: u16 = 1;

/// Flag of an [`Endpoint`]: the kernel path delivers its packets, because something of the host's at its
/// port, such as shaping, is to see them.
pub const ENDPOINT_KERNEL: u16 = 2;

/// Flag of an [`Endpoint`]: its port's entry has [`PORT_KERNEL`]. Said here as well, so that a packet from
/// an address that is bound to its port needs no second entry.
pub const ENDPOINT_PORT_KERNEL: u16 = 4;

/// Key of the `macs` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacKey {
    /// The MAC address of a container's interface.
    pub mac: [u8; 6],
    /// Zero.
    pub pad: [u8; 2],
}

/// Value of the `macs` map: the port behind which a MAC address is. While the port exists, no
/// other may send from the address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacHolder {
    /// Index of the host's end of the container's veth pair.
    pub link: u32,
}

/// Key of the `strict_ports` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// Index of the host's end of the container's veth pair.
    pub link: u32,
}

/// Value of the `strict_ports` map: what is special about a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StrictPort {
    /// [`PORT_STRICT`] and [`PORT_KERNEL`], or 0.
    pub flags: u32,
}

/// Flag of a [`StrictPort`]: its container is registered. It speaks from the addresses that
/// [`Endpoint`]s have for its port, each with the MAC address there, and from no other, also of
/// those that nobody holds.
pub const PORT_STRICT: u32 = 1;

/// Flag of a [`StrictPort`]: the program there guards alone, because something of the host's at the port,
/// such as a policer, is to see what the container sends. Endpoints behind it have
/// [`ENDPOINT_PORT_KERNEL`]. Past that, on the bridge, its packets fare like all others.
pub const PORT_KERNEL: u32 = 2;

/// The only entry of the `config` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Generation of the peer set that the maps show, as the agent numbered it.
    pub generation: u64,
    /// Network address of this node's subnet.
    pub subnet: [u8; 4],
    /// Mask of every node's subnet, e.g. `[255,255,255,0]`.
    pub mask: [u8; 4],
    /// This node's underlay address: outer source and expected outer destination.
    pub host_address: [u8; 4],
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port of VXLAN.
    pub port: u32,
    /// Index of the overlay device.
    pub overlay_link: u32,
    /// MAC address of this node's overlay device: inner source of what we send.
    pub overlay_mac: [u8; 6],
    /// MAC address of the bridge: the gateway of the containers.
    pub bridge_mac: [u8; 6],
    /// MTU of the overlay device, the largest inner packet; 0 if the program is to ask the
    /// kernel, as in entries of builds that knew no MTU and had zeros here.
    pub overlay_mtu: u32,
    /// [`CONFIG_GUARD_ONLY`] and [`CONFIG_GUARD_TAGGED`], or 0.
    pub flags: u32,
    /// Zero.
    pub pad: [u8; 4],
}

/// Flag of the [`Config`]: the programs guard and count, and leave all forwarding to the kernel
/// path.
pub const CONFIG_GUARD_ONLY: u32 = 1;

/// Flag of the [`Config`]: frames of a VLAN are judged like those of none. A bridge that filters VLANs
/// takes the tag off where a port or the bridge itself has that VLAN untagged.
pub const CONFIG_GUARD_TAGGED: u32 = 2;

/// Priority (`SO_PRIORITY`, socket(7)) of a frame on its way up to the bridge with which the packet
/// filter tells the program there that it came by another port than the one whose address or MAC
/// address it claims. The kernel sets the priority of what a container sends to zero, and that
/// program sets this one back to zero: nobody else sees it. Its low bits are zero, so that a queue
/// would treat it as it treats none.
pub const PRIORITY_ANOTHERS_CLAIM: u32 = 0x514d_0000;
/// Priority with which the packet filter remembers of a frame between ports that it was a fragment when it
/// came, by a port that it does not know, or knows to be without a program.
pub const PRIORITY_UNKNOWN_FRAGMENT: u32 = 0x514d_0010;
/// Priority with which the packet filter tells the bridge's program that a packet's destination is a
/// translated one, where the host's filter sees what its bridges carry: its source is still to be translated,
/// by the kernel, which therefore has to forward it.
pub const PRIORITY_TRANSLATED: u32 = 0x514d_0020;

/// A sampled drop: what the packet was and why it was dropped.
///
/// Addresses are IPv6 ones, IPv4 as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2); those that the program
/// did not get to read are `::`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropEvent {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// [`EVENT_VERSION`]: a reader takes no other.
    pub version: u8,
    /// [`EVENT_DROP`].
    pub kind: u8,
    /// Which [`EventProgram`] saw the packet.
    pub program: u8,
    /// [`VERDICT_DROP`].
    pub verdict: u8,
    /// A [`DropReason`].
    pub reason: u32,
    /// Interface on which the packet arrived.
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
    /// Outer source.
    pub outer_source: [u8; 16],
    /// Outer destination.
    pub outer_destination: [u8; 16],
    /// Inner source.
    pub inner_source: [u8; 16],
    /// Inner destination.
    pub inner_destination: [u8; 16],
}

/// Version of [`DropEvent`].
pub const EVENT_VERSION: u8 = 1;
/// [`DropEvent::kind`]: a guard's verdict.
pub const EVENT_DROP: u8 = 1;
/// [`DropEvent::verdict`]: dropped.
pub const VERDICT_DROP: u8 = 1;

/// [`DropEvent::program`].
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

/// An IPv4 address, in the bytes of the packet, as [`DropEvent`] has it.
#[inline(always)]
pub const fn mapped([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

#[cfg(feature = "user")]
mod pod {
    use super::*;

    macro_rules! pod {
        ($($layout:ty),+ $(,)?) => {$(
            // SAFETY: repr(C), made of integers and byte arrays alone, and without padding
            // (checked below), so every byte pattern is a value and every value is bytes.
            unsafe impl aya::Pod for $layout {}
        )+};
    }
    pod!(
        PeerKey,
        Peer,
        VtepKey,
        Vtep,
        PeerStats,
        Path,
        UnderlayKey,
        Underlay,
        EndpointKey,
        Endpoint,
        MacKey,
        MacHolder,
        PortKey,
        StrictPort,
        Config,
        Drops,
        Passes,
    );
}

// No hidden padding: each size is the sum of its fields.
const _: () = {
    assert!(size_of::<PeerKey>() == 4);
    assert!(size_of::<Peer>() == 28);
    assert!(size_of::<Vtep>() == 4);
    assert!(size_of::<PeerStats>() == 80);
    assert!(size_of::<Path>() == 36);
    assert!(size_of::<UnderlayKey>() == 4);
    assert!(size_of::<Underlay>() == 4);
    assert!(size_of::<Endpoint>() == 16);
    assert!(size_of::<MacKey>() == 8);
    assert!(size_of::<MacHolder>() == 4);
    assert!(size_of::<PortKey>() == 4);
    assert!(size_of::<StrictPort>() == 4);
    assert!(size_of::<Config>() == 56);
    assert!(size_of::<DropEvent>() == 104);
    assert!(size_of::<Drops>() == 8 * DropReason::ALL.len());
    assert!(size_of::<Passes>() == 8 * PassReason::ALL.len());
};
