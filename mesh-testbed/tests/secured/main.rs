//! Credentials come, change and go under traffic: the real daemons, over a real network. No packet is lost, and no route of
//! the mesh is touched.
#![allow(
    clippy::unwrap_used,
    reason = "functions of tests, which may panic like tests"
)]

mod mesh;

mod moved_over;
mod renewed;
mod restarted;
mod rotated;
mod silent;
mod told;
