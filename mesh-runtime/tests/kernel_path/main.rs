//! Asking along the way to a peer on the real kernel: which path carried what, and what is wrong where something is. Needs
//! root and nftables.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod bounds;
mod carried;
#[path = "../pair/mod.rs"]
mod pair;
mod scene;
mod wrong;
