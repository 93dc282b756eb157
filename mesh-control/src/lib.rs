//! The control plane of Quilt Mesh: registers nodes, leases their subnets, watches that they live.
//!
//! Pure cores, each with a property test: [`subnet_plan`] divides the cluster CIDR, [`lease`] picks the
//! next subnet, [`identity`] tells who a registration is, [`liveness`] who is up, [`roster`] what changed
//! since, [`report`] what a heartbeat carries, [`traffic`] who sends how much to whom. Around them:
//! [`registry`] puts them to work on the [`store`] (SQLite), [`feed`] wakes who waits for changes, [`api`]
//! tells about it over HTTP, [`openapi`] describes how, and [`daemon`] is the process.

pub mod api;
mod bare_answer;
mod body;
mod connection;
pub mod daemon;
pub mod duration_text;
pub mod feed;
pub mod feed_query;
mod heap;
pub mod identity;
pub mod lease;
pub mod liveness;
pub mod node;
pub mod openapi;
pub mod options;
pub mod problem;
pub mod registration;
pub mod registry;
pub mod report;
pub mod roster;
pub mod serve;
pub mod store;
pub mod subnet_plan;
pub mod traffic;
