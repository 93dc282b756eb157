//! Engines and plugins of other distributions than the machine's, in root file systems that `cargo xtask test --engines`
//! makes. Nothing else runs these tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

mod beside;
mod calls;
#[path = "../child/mod.rs"]
mod child;
mod compose;
mod containerd;
mod cri;
mod docker;
mod docker_doors;
mod docker_driver;
#[path = "../engines/docker_life.rs"]
mod docker_life;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../engines/leases.rs"]
mod leases;
#[path = "../engines/left.rs"]
mod left;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../engines/mesh.rs"]
mod mesh;
mod pod;
mod pods;
mod remains;
mod restarts;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../engines/seen.rs"]
mod seen;

use containerd::reach_each_other;
