//! Peers: where their packets go, by which way, and what was counted of them.

/// Key of the `peers` map: the network address of a peer's subnet. The mask is
/// [`Config::mask`](crate::Config::mask), the same for every node of a cluster, which is why a hash does.
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
