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
//! ones come at the end, or take the place of padding: a runtime takes over the entries of
//! another layout as far as both know them.
#![no_std]

mod drop_reason;
mod pass_reason;
mod wire;

pub use drop_reason::{DropReason, Drops};
pub use pass_reason::{PassReason, Passes};
pub use wire::*;

/// Version of the layouts in this crate. It is part of the pin directory's path, because a
/// pinned map is reused by name without anybody comparing its shape.
pub const LAYOUT_VERSION: u32 = 2;

/// Names of the maps, as pinned and as the object declares them. The kernel keeps 15
/// characters of a map's name.
pub mod map_names {
    /// Peer subnet → [`Peer`](super::Peer). Hash.
    pub const PEERS: &str = "peers";
    /// Underlay address of a peer → [`Vtep`](super::Vtep). Hash.
    pub const VTEPS: &str = "vteps";
    /// Counter index → [`PeerStats`](super::PeerStats). Per-CPU array.
    pub const PEER_STATS: &str = "peer_stats";
    /// Container address → [`Endpoint`](super::Endpoint). Hash.
    pub const ENDPOINTS: &str = "endpoints";
    /// MAC address of a container → [`MacHolder`](super::MacHolder). Hash.
    pub const MACS: &str = "macs";
    /// Port of a registered container → [`StrictPort`](super::StrictPort). Hash.
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
    pub const ALL: [&str; 10] = [
        PEERS,
        VTEPS,
        PEER_STATS,
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
    /// XDP on an underlay interface: drops VXLAN from strangers early. Optional.
    pub const DROP_STRANGERS: &str = "drop_strangers";
    /// All of them.
    pub const ALL: [&str; 6] = [
        ENCAPSULATE,
        CATCH_ALL,
        DECAPSULATE,
        SAFETY_NET,
        COUNT_EGRESS,
        DROP_STRANGERS,
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
    /// The neighbour on the underlay to send to: `address` itself, or the gateway towards it.
    pub next_hop: [u8; 4],
    /// Index of the underlay interface towards `next_hop`; 0 while no route is known.
    pub link: u32,
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
    /// [`ENDPOINT_HELD`], or 0.
    pub flags: u16,
}

/// Flag of an [`Endpoint`]: its container is known to hold the address, because a container
/// runtime said so or it was seen on the interface inside. While its port exists, no other port
/// may send from the address. Without the flag the entry was learnt from packets, and only says
/// where to deliver.
pub const ENDPOINT_HELD: u16 = 1;

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

/// Value of the `strict_ports` map. Its container is registered: it speaks from the addresses that
/// [`Endpoint`]s have for its port, each with the MAC address there, and from no other, also of
/// those that nobody holds. Only whether the entry exists counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StrictPort {
    /// Zero.
    pub pad: [u8; 4],
}

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
/// came, by a port that it does not know.
pub const PRIORITY_UNKNOWN_FRAGMENT: u32 = 0x514d_0010;
/// Priority with which the packet filter tells the bridge's program that a packet's destination is a
/// translated one, where the host's filter sees what its bridges carry: its source is still to be translated,
/// by the kernel, which therefore has to forward it.
pub const PRIORITY_TRANSLATED: u32 = 0x514d_0020;

/// A sampled drop: what the packet was and why it was dropped. Addresses that the program
/// did not get to read are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropEvent {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// A [`DropReason`].
    pub reason: u32,
    /// Interface on which the packet arrived.
    pub link: u32,
    /// Length of the packet with its Ethernet header.
    pub length: u32,
    /// VXLAN network identifier of the packet.
    pub vni: u32,
    /// Outer source.
    pub outer_source: [u8; 4],
    /// Outer destination.
    pub outer_destination: [u8; 4],
    /// Inner source.
    pub inner_source: [u8; 4],
    /// Inner destination.
    pub inner_destination: [u8; 4],
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
    assert!(size_of::<Endpoint>() == 12);
    assert!(size_of::<MacKey>() == 8);
    assert!(size_of::<MacHolder>() == 4);
    assert!(size_of::<PortKey>() == 4);
    assert!(size_of::<StrictPort>() == 4);
    assert!(size_of::<Config>() == 56);
    assert!(size_of::<DropEvent>() == 40);
};
