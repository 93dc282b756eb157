//! The control plane's REST interface: each body once, for whoever writes it and whoever reads it.
//!
//! With the feature `openapi` the types describe themselves, which the control plane's description of its interface is
//! made of; with `client` there is a client of it.
//!
//! Nodes:
//! - [`join`]: how a host comes by a certificate.
//! - [`registration`], [`admitted`]: how a node registers, and what it is answered.
//! - [`heartbeat`], [`heartbeat_token`]: how it says that it lives, and by which it shows that it is no copy.
//! - [`leave`]: how it says that it goes for good.
//! - [`node_list`], [`node`], [`feed_query`]: who there is, and how to ask for what changed.
//! - [`digest`], [`proof`]: by which an agent finds that its copy of the list is not the control plane's.
//! - [`mtu`], [`overlay`], [`timing`]: what nodes can be told, and have in common.
//!
//! Operators:
//! - [`subnets`], [`release`], [`reservation`]: leases and reservations.
//! - [`join_token`], [`operator`], [`security`]: who may join, who may ask, and how far that is asked for.
//! - [`node_credential`]: what each node is known by.
//! - [`audit`]: who did what, from where.
//! - [`traffic`]: who sends how much to whom.
//! - [`check`]: whether every node reaches every other, by every path.
//! - [`health`]: whether the control plane answers.
//!
//! All:
//! - [`problem`], [`problem_kind`]: errors.
//! - [`node_id`], [`status`]: words that stand in several of them.

pub mod admitted;
pub mod audit;
pub mod check;
#[cfg(feature = "client")]
pub mod client;
pub mod digest;
pub mod feed_query;
pub mod findings;
pub mod health;
pub mod heartbeat;
pub mod heartbeat_token;
pub mod join;
pub mod join_token;
pub mod leave;
mod lenient;
pub mod mtu;
pub mod node;
pub mod node_credential;
pub mod node_id;
pub mod node_list;
pub mod operator;
pub mod overlay;
pub mod problem;
pub mod problem_kind;
pub mod proof;
pub mod registration;
pub mod release;
pub mod reservation;
pub mod security;
pub mod status;
pub mod subnets;
pub mod timing;
pub mod traffic;
