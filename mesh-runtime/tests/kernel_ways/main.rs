//! The way out of the mesh, and the way in by published ports, with real packets: whose address is
//! seen, with the fast path, without it, and after SIGKILL of the runtime. Needs root, and the programs
//! `nft`, `iptables-legacy` and `iptables-nft`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "functions of tests, which may panic like tests; each target uses its part of what is shared"
)]

#[path = "../kernel_security/frames.rs"]
mod frames;
#[path = "../kernel_security/held_shut.rs"]
mod held_shut;
#[path = "../kernel_security/inside.rs"]
mod inside;
#[path = "../kernel_security/packet_socket.rs"]
mod packet_socket;
#[path = "../pair/mod.rs"]
mod pair;
#[path = "../kernel_security/port.rs"]
mod port;
#[path = "../kernel_security/register.rs"]
mod register;
#[path = "../kernel_security/scene.rs"]
mod scene;
#[path = "../kernel_security/tables.rs"]
mod tables;
#[path = "../kernel_security/witness.rs"]
mod witness;

mod conversation;
mod web;

mod datagrams;
mod engines;
mod filters;
mod numbers;
mod out;
mod published;
mod translated;
mod untranslated;
