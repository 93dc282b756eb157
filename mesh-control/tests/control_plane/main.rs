//! The control plane as its users meet it: the real process, over loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod answer;
mod private_disk;
mod process;

mod bad_database;
mod bad_requests;
mod command_line;
mod database_in_trouble;
mod durability;
mod liveness;
mod registration;
