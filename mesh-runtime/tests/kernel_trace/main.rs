//! What a trace says, and what becomes of a real packet: a state is planted on real hosts, the trace is asked, and a packet
//! is sent. Where the trace says that it passes, it has to arrive, and where it says that it is dropped, it must not. Needs
//! root, iproute2, nft and bpftool.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod meshctl;
mod others;
#[path = "../pair/mod.rs"]
mod pair;
mod planted;
mod scene;
mod siblings;
