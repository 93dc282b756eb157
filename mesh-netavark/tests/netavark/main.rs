//! The plugin as Podman and netavark call it, on hosts of a whole mesh. Needs root and the daemons' binaries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

mod bad_input;
mod created;
mod engine;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../../mesh-cni/tests/cni/mesh.rs"]
mod mesh;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../../mesh-cni/tests/cni/remains.rs"]
mod remains;
mod set_up;
mod torn_down;
mod uninstalled;
