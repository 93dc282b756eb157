//! What the kernel calls the maps and the programs.

/// Names of the maps, as pinned and as the object declares them. The kernel keeps 15
/// characters of a map's name.
pub mod map_names {
    /// Peer subnet → [`Peer`](crate::Peer). Hash.
    pub const PEERS: &str = "peers";
    /// Underlay address of a peer → [`Vtep`](crate::Vtep). Hash.
    pub const VTEPS: &str = "vteps";
    /// Counter index → [`PeerStats`](crate::PeerStats). Per-CPU array.
    pub const PEER_STATS: &str = "peer_stats";
    /// Counter index of a peer → [`Path`](crate::Path). Per-CPU array.
    pub const PATHS: &str = "paths";
    /// Interface of the underlay → [`Underlay`](crate::Underlay). Hash.
    pub const UNDERLAYS: &str = "underlays";
    /// Container address → [`Endpoint`](crate::Endpoint). Hash.
    pub const ENDPOINTS: &str = "endpoints";
    /// MAC address of a container → [`MacHolder`](crate::MacHolder). Hash.
    pub const MACS: &str = "macs";
    /// Port of a registered container, or one left to the kernel path →
    /// [`StrictPort`](crate::StrictPort). Hash.
    pub const STRICT_PORTS: &str = "strict_ports";
    /// One [`Drops`](crate::Drops). Per-CPU array.
    pub const DROPS: &str = "drops";
    /// One [`Passes`](crate::Passes). Per-CPU array.
    pub const PASSES: &str = "passes";
    /// One [`Config`](crate::Config). Array.
    pub const CONFIG: &str = "config";
    /// Sampled [`PacketEvent`](crate::PacketEvent)s. Ring buffer.
    pub const EVENTS: &str = "events";
    /// One [`Watch`](crate::Watch). Array.
    pub const WATCH: &str = "watch";
    /// One [`WatchStats`](crate::WatchStats). Per-CPU array.
    pub const WATCH_STATS: &str = "watch_stats";
    /// All of them, in the order a reader of `bpftool` meets them in the documentation.
    pub const ALL: [&str; 14] = [
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
        WATCH,
        WATCH_STATS,
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
