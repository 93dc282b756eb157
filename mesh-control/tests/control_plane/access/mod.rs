//! Who may ask, over what: the server itself in this process, so that the test says what its credentials and its clock
//! are, and real connections to it.

mod admin_socket;
mod certificates;
pub(crate) mod client;
mod enumerated;
mod handshakes;
mod join_flood;
mod joined;
pub(crate) mod late_bodies;
mod plain;
mod server;
mod shares;
mod slow_down;
mod waiting;
