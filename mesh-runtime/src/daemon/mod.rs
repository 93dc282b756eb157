//! The daemon around the library: its options, its socket and its server.

mod handshakes;
mod health;
pub(crate) mod options;
pub(crate) mod serve;
pub(crate) mod socket;
mod tcp_door;
mod tls;
