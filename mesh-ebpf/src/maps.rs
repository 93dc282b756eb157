//! The maps. Their names and layouts are those of `mesh-layout`; the runtime sets the real
//! capacity of those that grow with the cluster when it loads the object.

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use mesh_layout::{
    Config, Drops, Endpoint, EndpointKey, MacHolder, MacKey, PacketEvent, Passes, Path, Peer,
    PeerKey, PeerStats, PortKey, StrictPort, Underlay, UnderlayKey, Vtep, VtepKey, Watch,
    WatchStats,
};

/// Peer subnet → where its packets go. A hash with a masked key, because every subnet of a
/// cluster has the same length: flat from 254 to 65,536 peers, where a trie is 2 to 4 times
/// slower.
#[btf_map(name = "peers")]
pub(crate) static PEERS: HashMap<PeerKey, Peer, 65536> = HashMap::new();

/// Underlay address → peer, asked only about packets that are about to be dropped.
#[btf_map(name = "vteps")]
pub(crate) static VTEPS: HashMap<VtepKey, Vtep, 65536> = HashMap::new();

/// Counters of the peers, by the index in the peer's entry.
#[btf_map(name = "peer_stats")]
pub(crate) static PEER_STATS: PerCpuArray<PeerStats, 65536> = PerCpuArray::new();

/// What the kernel said last of the way to a peer, by the index in the peer's entry.
#[btf_map(name = "paths")]
pub(crate) static PATHS: PerCpuArray<Path, 65536> = PerCpuArray::new();

/// Interfaces by which packets may leave, asked once for many packets.
#[btf_map(name = "underlays")]
pub(crate) static UNDERLAYS: HashMap<UnderlayKey, Underlay, 1024> = HashMap::new();

/// Container address → its interface.
#[btf_map(name = "endpoints")]
pub(crate) static ENDPOINTS: HashMap<EndpointKey, Endpoint, 65536> = HashMap::new();

/// MAC address of a container → its port.
#[btf_map(name = "macs")]
pub(crate) static MACS: HashMap<MacKey, MacHolder, 65536> = HashMap::new();

/// Ports of registered containers and those left to the kernel path, asked only about what an endpoint's
/// entry does not bind together.
#[btf_map(name = "strict_ports")]
pub(crate) static STRICT_PORTS: HashMap<PortKey, StrictPort, 65536> = HashMap::new();

/// Drops by reason.
#[btf_map(name = "drops")]
pub(crate) static DROPS: PerCpuArray<Drops, 1> = PerCpuArray::new();

/// Packets left to the kernel path by reason.
#[btf_map(name = "passes")]
pub(crate) static PASSES: PerCpuArray<Passes, 1> = PerCpuArray::new();

/// What this node is.
#[btf_map(name = "config")]
pub(crate) static CONFIG: Array<Config, 1> = Array::new();

/// Sampled drops, and while somebody looks what becomes of other packets.
#[btf_map(name = "events")]
pub(crate) static EVENTS: RingBuf<PacketEvent, 65536> = RingBuf::new();

/// Whether somebody looks, and at what.
#[btf_map(name = "watch")]
pub(crate) static WATCH: Array<Watch, 1> = Array::new();

/// What was told to whoever looks.
#[btf_map(name = "watch_stats")]
pub(crate) static WATCH_STATS: PerCpuArray<WatchStats, 1> = PerCpuArray::new();
