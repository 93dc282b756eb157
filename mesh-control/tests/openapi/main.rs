//! What the control plane says about its API: held against the contract, and against what it does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "the tests in control_plane use the rest")]
#[path = "../control_plane/answer.rs"]
mod answer;
#[allow(dead_code, reason = "the tests in control_plane use the rest")]
#[path = "../control_plane/process.rs"]
mod process;

mod contract;
mod fuzz;
mod pages;
mod schemathesis;
