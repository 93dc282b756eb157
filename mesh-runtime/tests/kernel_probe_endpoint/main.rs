//! The endpoint for probes on the real kernel: it is there whatever becomes of it, in nobody's way, and offers nothing. Needs
//! root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod comes_back;
mod idle;
#[path = "../pair/mod.rs"]
mod pair;
mod place;
mod scene;
