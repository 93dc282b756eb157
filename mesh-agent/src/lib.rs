//! The unprivileged part of a Quilt Mesh node.
//!
//! The agent registers its node with the control plane, keeps it alive with heartbeats,
//! and turns the control plane's node list into calls on the container runtime beside it.
//! It is the part of a node that parses what the network sends, and therefore the part
//! without any privilege: the kernel is only ever touched by the runtime.
//!
//! Its tasks, so that none can delay another, are owned by one supervisor ([`agent::run`]):
//!
//! | task | module | remote side |
//! |---|---|---|
//! | registrar | [`register`] | control plane, and the runtime for the subnet that the node holds |
//! | heartbeat | [`heartbeat`] | control plane, and the runtime for what it carries |
//! | feed | [`feed`] | control plane |
//! | probe | [`probe`] | runtime |
//! | check | [`check`] | runtime, when the control plane has all nodes checked |
//! | sync | [`sync`] | none: it makes peers of what feed and probe say |
//! | data plane | [`dataplane`] | runtime |
//! | host address | [`host_address`] | none, but the resolver for the control plane's name |
//! | membership | [`membership`] | control plane, for the certificate by which it knows this node |
//! | socket | [`socket`] | none: whoever asks on this host how the agent fares |
//!
//! What one of them finds wrong it puts on one board, [`problems::Problems`].
//!
//! What they know of how it goes they note in [`measured::Measured`], which Prometheus reads.
//!
//! What they decide is computed by pure functions: [`node_list::NodeList`] follows the
//! control plane's list, [`peers::assess`] makes the peers out of it, [`peers::judge`] ends
//! the doubt about those it does not call up, and [`routes::Routes`] makes the calls.

pub mod agent;
pub mod check;
pub mod clock;
pub mod control_plane;
pub mod credentials;
pub mod dataplane;
pub mod departure;
pub mod excerpt;
pub mod feed;
pub mod generation;
pub mod heard;
pub mod heartbeat;
pub mod held_subnet;
pub mod host_address;
pub mod identity;
pub mod machine;
pub mod measured;
pub mod membership;
pub mod node;
pub mod node_list;
pub mod options;
pub mod peers;
pub mod probe;
pub mod problems;
pub mod reasons;
pub mod register;
pub mod report;
pub mod retry;
pub mod routes;
pub mod runtime_client;
pub mod runtime_place;
pub mod socket;
pub mod status;
pub mod sync;
pub mod tally;
pub mod token;
pub mod underlay;
