//! What the maps and attachments should show, as computed from wanted and observed state.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;

/// A hardware address, in the order it has on the wire.
pub type Mac = [u8; 6];

/// Everything the fast path is to show in the kernel once the node has a subnet, an
/// underlay address and its two devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastPathState {
    /// Generation of the peer set, as the agent numbered it.
    pub generation: u64,
    /// This node's subnet.
    pub subnet: Ipv4Net,
    /// This node's underlay address.
    pub host_address: Ipv4Addr,
    /// The overlay device.
    pub overlay: OwnDevice,
    /// MTU of the overlay device: the largest packet of a container that is encapsulated.
    pub overlay_mtu: u32,
    /// The bridge of the containers.
    pub bridge: OwnDevice,
    /// UDP port of VXLAN.
    pub port: u16,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Peers by subnet.
    pub peers: Arc<BTreeMap<Ipv4Net, PeerPath>>,
    /// Interfaces on which VXLAN to this host may arrive, by index with their names: the one
    /// that holds the host address, those over which routes to peers lead, and those with any
    /// other address of the host's.
    pub underlay: BTreeMap<u32, String>,
    /// Ports of the bridge by index with their names: those at which a program is to stand.
    pub ports: BTreeMap<u32, String>,
    /// Containers whose port and MAC address are known, by address.
    pub endpoints: BTreeMap<Ipv4Addr, EndpointPath>,
    /// Ports of the containers' MAC addresses, from which no other may send.
    pub macs: BTreeMap<Mac, u32>,
    /// Ports that may send from the addresses and MAC addresses that `endpoints` and `macs` have for
    /// them, and from no others.
    pub strict_ports: BTreeSet<u32>,
    /// Ports whose packets are left to the kernel path, in both directions.
    pub shaped_ports: BTreeSet<u32>,
    /// Whether the bridge takes VLAN tags off: frames of a VLAN are judged like those of none then.
    pub filters_vlans: bool,
    /// Whether the programs carry traffic. Without, they guard and count alone.
    pub forwarding: bool,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnDevice {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Hardware address.
    pub mac: Mac,
}

/// What the programs are told of a peer. The way to it they ask of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerPath {
    /// The peer's underlay address.
    pub address: Ipv4Addr,
    /// The largest inner packet that reaches it whole, where the kernel's routes do not say so; 0 for the
    /// overlay's MTU.
    pub mtu: u32,
    /// Whether its packets are left to the kernel path, in both directions.
    pub kernel: bool,
    /// Whether several routes of equal cost lead to it, over which the kernel spreads flows.
    pub multipath: bool,
}

/// Where packets for a container are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointPath {
    /// Index of the host's end of the veth pair. Only pairs whose other end is in another
    /// namespace belong here: `bpf_redirect_peer` drops what it finds in the same one.
    pub link: u32,
    /// MAC address of the container's end.
    pub mac: Mac,
    /// Whether the container is known to hold the address, so that no other may send from it.
    /// What was learnt from packets alone only says where to deliver.
    pub held: bool,
}

/// What one [`show_maps`](super::FastPath::show_maps) changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FastPathChanges {
    /// Peer entries added.
    pub added: u32,
    /// Peer entries rewritten.
    pub changed: u32,
    /// Peer entries removed.
    pub removed: u32,
}

/// Counters of one peer, summed over the CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// The sums, in the map's own layout; `last_seen_ns` is the latest of the CPUs.
    pub stats: mesh_layout::PeerStats,
    /// Milliseconds since the last packet from the peer; `None` if none came.
    pub last_packet_age_ms: Option<u64>,
}

/// The fast path's state for people and for the status call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastPathReport {
    /// `tcx` or `clsact`.
    pub attach_mode: &'static str,
    /// `interface: program`, in the order they were attached.
    pub attachments: Vec<String>,
    /// Directory of the pinned maps.
    pub pin_directory: std::path::PathBuf,
    /// Generation in the `config` map, as the kernel has it.
    pub generation: u64,
    /// Drops by reason, zeros left out.
    pub drops: BTreeMap<&'static str, u64>,
    /// Packets left to the kernel by reason, zeros left out.
    pub passes: BTreeMap<&'static str, u64>,
}
