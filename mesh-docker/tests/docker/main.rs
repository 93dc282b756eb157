//! The driver as Docker calls it, on hosts of a whole mesh. Needs root and the daemons' binaries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

mod again;
mod bad_input;
mod container;
mod crowd;
mod docker;
mod driver;
mod full_disk;
mod installed;
mod life;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../../mesh-cni/tests/cni/mesh.rs"]
mod mesh;
mod others;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../../../mesh-cni/tests/cni/remains.rs"]
mod remains;
mod replayed;
mod socket;
mod without_runtime;
