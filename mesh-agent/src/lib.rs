//! The unprivileged part of a Quilt Mesh node.
//!
//! The agent registers its node with the control plane, keeps it alive with heartbeats,
//! and turns the control plane's node list into calls on the container runtime beside it.
//! It is the part of a node that parses what the network sends, and therefore the part
//! without any privilege: the kernel is only ever touched by the runtime.
//!
//! Four tasks, so that none can delay another, owned by one supervisor ([`agent::run`]):
//!
//! | task | module | remote side |
//! |---|---|---|
//! | registrar | [`register`] | control plane |
//! | heartbeat | [`heartbeat`] | control plane |
//! | sync | [`sync`] | control plane |
//! | data plane | [`dataplane`] | runtime |
//!
//! What they decide is computed by pure functions: [`peers::assess`] makes the peer set
//! out of a node list, [`routes::Routes`] the calls out of a peer set.

pub mod agent;
pub mod control_plane;
pub mod dataplane;
pub mod excerpt;
pub mod generation;
pub mod heartbeat;
pub mod identity;
pub mod machine;
pub mod node;
pub mod options;
pub mod peers;
pub mod reasons;
pub mod register;
pub mod retry;
pub mod routes;
pub mod runtime_client;
pub mod sync;
pub mod underlay;
