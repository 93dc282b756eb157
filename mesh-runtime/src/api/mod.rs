//! The gRPC services: from messages to commands of the loop, and from its answers back.

pub(crate) mod ask;
mod capabilities;
mod check;
pub(crate) mod command;
pub(crate) mod dataplane;
mod firewall;
pub(crate) mod inspect;
pub(crate) mod maintenance;
pub(crate) mod monitor;
pub(crate) mod monitor_event;
mod path;
pub(crate) mod quilt;
mod registry;
mod routes;
pub(crate) mod tcp_address;
mod trace;
