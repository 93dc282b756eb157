//! The control plane of Quilt Mesh: registers nodes, leases their subnets, watches that they live.
//!
//! A request goes through these, from the top down:
//!
//! | module | what it is |
//! |---|---|
//! | [`http`] | connections: accepted, bounded, waiting without cost; bodies |
//! | [`access`] | who asks, and what they may |
//! | [`api`] | the calls over REST: what they take, what they answer, how it is described |
//! | [`cluster`] | the rules, pure: who a node is, which subnet it gets, whether it lives |
//! | [`mod@write`] | changes, one batch at a time, and the loops that write what heartbeats changed |
//! | [`store`] | the database: SQLite for one control plane, PostgreSQL for several |
//! | [`credentials`] | who may join, as whom a node is known, who may ask; the certificate authority |
//! | [`copy`] | the node list in memory, the only way it changes, and who waits for news of it |
//! | [`replica`] | what several control planes on one database tell each other |
//! | `findings` | what is not as it should be, here and on the nodes |
//! | `checks` | what nodes tell of their ways to each other, when they are told to look |
//! | [`traffic`] | what nodes report with their heartbeats, and the matrix of it |
//!
//! [`measured`] is what Prometheus reads of it.
//!
//! [`registry`] holds one of each and is what [`api`] talks to; [`daemon`] is the process, [`options`] its
//! command line, [`commands`] what it can be told beside serving, over the admin socket ([`mesh_admin`]).

pub mod access;
pub mod api;
mod checks;
pub mod cluster;
pub mod commands;
pub mod copy;
pub mod credentials;
pub mod daemon;
mod findings;
mod heap;
pub mod http;
pub mod measured;
pub mod options;
pub mod registry;
pub mod replica;
pub mod store;
pub mod traffic;
pub mod write;
