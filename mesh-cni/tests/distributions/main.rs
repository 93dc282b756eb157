//! The plugin beside those of other distributions than the machine's, in root file systems that
//! `cargo xtask test --engines` makes. Nothing else runs these tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../cni/engine.rs"]
mod engine;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../cni/mesh.rs"]
mod mesh;
mod neighbours;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../cni/remains.rs"]
mod remains;
