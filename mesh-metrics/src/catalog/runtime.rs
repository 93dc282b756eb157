//! What the runtime serves.

use crate::Kind;

/// At most so many peers have labels of their own in one scrape; the rest is summed under [`OTHER_PEERS`].
pub const MOST_PEERS: usize = 1024;

/// The label of the peers beyond [`MOST_PEERS`].
pub const OTHER_PEERS: &str = "other";

/// What of traffic a path is called that eBPF programs carry.
pub const FAST: &str = "fast";

/// What of traffic a path is called that the kernel's own VXLAN carries.
pub const KERNEL: &str = "kernel";

/// Rounds take from less than a millisecond to seconds, while the kernel is busy with something else.
const ROUNDS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

metrics! {
    PEERS = Kind::Gauge, "quilt_mesh_peers" [],
        "How many other nodes this node has as peers";
    PEER_UP = Kind::Gauge, "quilt_mesh_peer_up" [peer],
        "Whether this node reaches the peer, by its host name: 1 if fast path or kernel path lead to it and the control plane \
         does not call it down, else 0; those beyond 1024 are left out";
    PEER_FAST_PATH = Kind::Gauge, "quilt_mesh_peer_fast_path_ready" [peer],
        "Whether eBPF programs carry packets to the peer: 1, or 0 while they leave them to the kernel; those beyond 1024 are left out";
    PEER_LAST_RECEIVE = Kind::Gauge, "quilt_mesh_peer_last_receive_timestamp_seconds" [peer],
        "When the last packet came from the peer, in Unix seconds; peers never heard, and those beyond 1024, are left out";
    PEER_TRANSMIT_BYTES = Kind::Counter, "quilt_mesh_peer_transmit_bytes_total" [peer, path],
        "Bytes sent to the peer, as containers send them: by eBPF programs (fast) or by the kernel's VXLAN (kernel, as the programs see it); \
         those beyond 1024 are summed as the peer other";
    PEER_TRANSMIT_PACKETS = Kind::Counter, "quilt_mesh_peer_transmit_packets_total" [peer, path],
        "Packets sent to the peer, by path; those beyond 1024 are summed as the peer other";
    PEER_RECEIVE_BYTES = Kind::Counter, "quilt_mesh_peer_receive_bytes_total" [peer, path],
        "Bytes received from the peer, as containers receive them, by path; those beyond 1024 are summed as the peer other";
    PEER_RECEIVE_PACKETS = Kind::Counter, "quilt_mesh_peer_receive_packets_total" [peer, path],
        "Packets received from the peer, by path; those beyond 1024 are summed as the peer other";
    PEER_DROPS = Kind::Counter, "quilt_mesh_peer_drops_total" [peer],
        "Packets from the peer that the programs dropped; those beyond 1024 are summed as the peer other";
    DROPS = Kind::Counter, "quilt_mesh_drops_total" [reason],
        "Packets that the programs dropped, by reason (docs/BPFTOOL.md)";
    PASSES = Kind::Counter, "quilt_mesh_passes_total" [reason],
        "Packets that the programs left to the kernel path, by reason (docs/BPFTOOL.md)";
    ENDPOINTS = Kind::Gauge, "quilt_mesh_endpoints" [],
        "How many addresses of containers of this node are known";
    LEASED_ADDRESSES = Kind::Gauge, "quilt_mesh_leased_addresses" [],
        "How many addresses of this node's pool are leased";
    POOL_ADDRESSES = Kind::Gauge, "quilt_mesh_pool_addresses" [],
        "How many addresses this node's pool has in all, leased and free";
    FAST_PATH_ACTIVE = Kind::Gauge, "quilt_mesh_fast_path_active" [mode],
        "Whether eBPF programs carry traffic: 1 or 0, with how they are attached (tcx, clsact, none, or off where they only guard)";
    REPAIRS = Kind::Counter, "quilt_mesh_repairs_total" [what],
        "Changes that the runtime made to the kernel although nobody had asked for one, because something there was not as it is wanted";
    RECONCILE_DURATION = Kind::Histogram(ROUNDS), "quilt_mesh_reconcile_duration_seconds" [],
        "How long it took to read the kernel, compare it with what is wanted, and change it";
    OVERLAY_MTU = Kind::Gauge, "quilt_mesh_overlay_mtu_bytes" [],
        "The largest packet of containers, in bytes; 0 while there is no overlay device";
    GENERATION = Kind::Gauge, "quilt_mesh_generation" [],
        "The generation of the peer set that the agent has given last";
    LAST_SYNC = Kind::Gauge, "quilt_mesh_last_sync_timestamp_seconds" [],
        "When the agent last gave the whole peer set, in Unix seconds; left out before it has";
}
