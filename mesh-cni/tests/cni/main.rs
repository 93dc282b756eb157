//! The plugin as engines call it, on hosts of a whole mesh. Needs root, Debian's `containernetworking-plugins`
//! (`cargo xtask setup`), iptables, and the daemons' binaries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

mod added;
mod apart;
mod bad_input;
mod between;
mod chained;
mod crowd;
mod deleted;
mod engine;
mod failed;
mod garbage;
mod mesh;
mod nomad;
mod remains;
mod rights;
mod runtime;
mod script;
mod shaped;
mod wishes;
