//! How the agent gets to its runtime: the real agent in a network namespace with a /run of its own, against a fake control
//! plane and fake runtimes. Needs root.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy.toml allows it in test functions, not in what they call"
)]
#![allow(dead_code, reason = "the fakes serve other tests as well")]

#[path = "../agent/control.rs"]
mod control;
#[path = "../agent/fake_control_plane/mod.rs"]
mod fake_control_plane;
#[path = "../agent/fake_runtime/mod.rs"]
mod fake_runtime;
#[path = "../agent/process.rs"]
mod process;
#[path = "../agent/wait.rs"]
mod wait;

mod found;
mod host;
mod tls;
