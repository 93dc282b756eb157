//! Looks for what of a host is in the way of its mesh: its routes and rules, addresses, filters, settings and limits.
//!
//! [`look()`] reads the host and judges it. `kernel` reads, and changes nothing; `snapshot` is what was read; `mesh` says what
//! of it is the mesh's; `judge` says what is wrong, by what becomes of packets and not by what looks unusual: a host with a
//! VPN, a firewall and other container networks is a healthy one as long as they leave the mesh alone.

mod area;
mod judge;
mod kernel;
mod look;
mod mesh;
mod snapshot;

pub use area::Area;
pub use look::look;
pub use mesh::{Known, KnownPeer};
