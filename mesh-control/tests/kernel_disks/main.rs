//! The control plane on disks that are full, read-only or failing: real file systems, mounted in mount
//! namespaces of the tests' own, which needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

// Shared with the tests that need no root; neither program uses all of it.
#[allow(dead_code, reason = "the other test program uses the rest")]
#[path = "../control_plane/answer.rs"]
mod answer;
#[allow(dead_code, reason = "the other test program uses the rest")]
#[path = "../control_plane/process.rs"]
mod process;
#[path = "../control_plane/refusal.rs"]
mod refusal;

mod private_disk;

mod disk_at_start;
mod disk_in_trouble;
