//! HTTP below the API: connections, who may ask, and what clients make the process hold, bounded in number, size and
//! time.

pub mod accept;
pub mod admin_socket;
pub(crate) mod admission;
pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod concurrency;
pub(crate) mod connection;
mod encrypted;
mod handshakes;
pub(crate) mod limits;
mod shares;
pub mod tls;

pub use connection::Site;
