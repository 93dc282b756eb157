//! What the agent serves.

use crate::Kind;

metrics! {
    REGISTERED = Kind::Gauge, "quilt_mesh_agent_registered" [],
        "Whether the node is registered with the control plane: 1 or 0";
    FEED_LAG = Kind::Gauge, "quilt_mesh_agent_feed_lag_seconds" [],
        "How long ago the control plane last told the list of nodes, or that it has not changed; left out before it has. It does every \
         five seconds (--sync-interval), plus a pause";
    LAST_SYNC = Kind::Gauge, "quilt_mesh_agent_last_sync_timestamp_seconds" [],
        "When the runtime last took the whole peer set, in Unix seconds; left out before it has";
    RUNTIME_READY = Kind::Gauge, "quilt_mesh_agent_runtime_takes_peers" [],
        "Whether the runtime took the peers when it was last given them: 1 or 0";
    GENERATION = Kind::Gauge, "quilt_mesh_agent_generation" [],
        "The generation of the peer set that the runtime took last";
    PEERS = Kind::Gauge, "quilt_mesh_agent_peers" [state],
        "How many peers this node has: up, suspect (the control plane does not call them up, and their packets arrive), or doubtful \
         (it does not, and that is not known)";
    CERTIFICATE_EXPIRY = Kind::Gauge, "quilt_mesh_agent_certificate_expiry_timestamp_seconds" [],
        "The last second of the certificate that the mesh has made for this node, in Unix seconds; left out without one";
    HEARTBEATS = Kind::Counter, "quilt_mesh_agent_heartbeats_total" [],
        "Heartbeats that the control plane took, without those that a question for the list stood for";
    HEARTBEAT_FAILURES = Kind::Counter, "quilt_mesh_agent_heartbeat_failures_total" [],
        "Heartbeats that did not arrive, or were refused";
}
