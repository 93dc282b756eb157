//! Attempts to get round the guards, with real packets: from a container without privileges,
//! from one that forges frames, from a local user, from a machine on the underlay. Each runs
//! with the fast path, without it, and after SIGKILL of the runtime; beside them stands what
//! must go on working. Needs root, and the `nft` program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

#[path = "../pair/mod.rs"]
mod pair;

mod frames;
mod held_shut;
mod inside;
mod packet_socket;
mod port;
mod register;
mod scene;
mod tables;
#[path = "../kernel_ways/web.rs"]
#[allow(dead_code, reason = "only a part of it is needed here")]
mod web;
mod witness;

mod arp;
mod forwarded;
mod goes_on;
mod held_name;
mod holders;
mod late_checksum;
mod life;
mod localnet;
mod moved;
mod new_ports;
mod nft_program;
mod offers;
mod other_bridge;
mod others;
mod padding;
mod path_mtu;
mod published;
mod range;
mod registered;
mod rules;
mod segments;
mod spoof;
mod tagged;
mod taken;
mod underlay;
mod uplinks;
mod vxlan;
