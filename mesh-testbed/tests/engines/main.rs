//! Containers of real engines on the mesh: nobody but a plugin calls the runtime for them. Needs root, the
//! engines (`cargo xtask setup`), and the daemons' binaries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

mod addresses;
mod attached;
#[path = "../child/mod.rs"]
mod child;
mod cni_plugin;
mod cni_restarts;
mod containers;
mod docker_driver;
mod docker_life;
mod leases;
mod left;
mod mesh;
mod plugin;
mod remains;
mod seen;
mod ways;

use containers::reach_each_other;
