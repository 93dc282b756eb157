//! The daemon on the real kernel: each test in network namespaces of its own, through the
//! real gRPC of the real binary, with iproute2 as an independent witness.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

mod attach;
mod authority;
mod calls;
mod cleanup;
mod containers;
mod embedded;
mod endpoints;
mod entries;
mod enumerated;
mod headroom;
mod host;
mod leases;
mod lifecycle;
mod moved;
mod obstacles;
mod occupied;
mod own_program;
mod pins;
mod ports;
mod refusals;
mod refused_attachments;
mod repair;
mod restart;
mod returned;
mod settings;
mod state;
mod tls_door;
mod underlays;
mod unwritable;
