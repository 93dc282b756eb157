//! The real agent against a fake control plane and a fake runtime, which speak the real
//! protocols over loopback. Nothing here needs privileges; as root, one test gives them up.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy.toml allows it in test functions, not in what they call"
)]

mod check;
mod control;
mod copies;
mod departure;
mod doubt;
mod fake_control_plane;
mod fake_runtime;
mod feed;
mod found;
mod frozen_replica;
mod heartbeat;
mod held_subnet;
mod joining;
mod peers;
mod process;
mod real_control_plane;
mod registration;
mod replicas;
mod runtime;
mod settings;
mod wait;
