//! Podman with netavark as other distributions ship it, in root file systems that `cargo xtask test --engines` makes. Nothing
//! else runs these tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../../mesh-testbed/tests/engines/leases.rs"]
mod leases;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../../mesh-testbed/tests/engines/mesh.rs"]
mod mesh;
mod podman;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../../mesh-testbed/tests/engines/seen.rs"]
mod seen;
