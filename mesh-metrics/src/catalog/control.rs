//! What the control plane serves.

use crate::Kind;

/// Heartbeats are answered from memory, within a millisecond or two; a database or a body that lags makes it seconds.
const HEARTBEATS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

metrics! {
    NODES = Kind::Gauge, "quilt_mesh_control_nodes" [state],
        "How many nodes are registered: up, or down (silent, stopped, or gone from their address)";
    SUBNETS = Kind::Gauge, "quilt_mesh_control_subnets" [state],
        "How many subnets of the cluster's network are leased, reserved, or free";
    REQUESTS = Kind::Counter, "quilt_mesh_control_requests_total" [call, code],
        "Requests that were answered, by call (method and path of the API; none for what is no call, or is refused first) and class of \
         the status code (2xx)";
    REFUSALS = Kind::Counter, "quilt_mesh_control_refusals_total" [reason],
        "Requests that were refused because of who asks or how, by the kind of problem in the answer (docs/CONTROL_PLANE.md)";
    HEARTBEAT_DURATION = Kind::Histogram(HEARTBEATS), "quilt_mesh_control_heartbeat_duration_seconds" [],
        "How long it took to answer a heartbeat, from its head to the head of the answer";
    FEED_WAITERS = Kind::Gauge, "quilt_mesh_control_feed_waiters" [],
        "How many questions wait for news of the node list";
    AUTHORITY_EXPIRY = Kind::Gauge, "quilt_mesh_control_authority_expiry_timestamp_seconds" [authority, signs],
        "The last second of each certificate authority of the mesh that is trusted, in Unix seconds, by the beginning of its key's digest \
         and whether it is the one that signs (yes or no)";
    CERTIFICATE_EXPIRY = Kind::Gauge, "quilt_mesh_control_certificate_expiry_timestamp_seconds" [certificate],
        "The last second of the certificates that this control plane shows, in Unix seconds: that of the mesh (mesh), which it makes anew \
         by itself, and one's own (own, --tls-cert)";
    DATABASE_SIZE = Kind::Gauge, "quilt_mesh_control_database_size_bytes" [],
        "What the database takes on the disk; left out while the database does not answer";
    DATABASE_UP = Kind::Gauge, "quilt_mesh_control_database_up" [],
        "Whether the database answered this scrape within two seconds: 1 or 0";
    REPLICA_LAG = Kind::Gauge, "quilt_mesh_control_replica_lag_seconds" [],
        "How long ago this replica last read what the others do; left out where there is one control plane alone";
}
