//! Nodes and packets by the million, the same ones for the same seed.
//!
//! Most packets are nearly right, because a packet that is wrong in its first header says
//! nothing about the code that reads the second.

mod containers;
mod mutate;
mod nodes;
mod random;
mod traffic;

pub use nodes::{Devices, OTHER_ADDRESS, Overlay, node, peer_addresses};
pub use random::Random;
pub use traffic::{Generated, packet};
