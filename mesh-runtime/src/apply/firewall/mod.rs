//! Rules of the kernel's packet filter: the guards that stand where no eBPF program does, and
//! while no runtime runs.
//!
//! Two tables of our own, `inet quilt_mesh` and `bridge quilt_mesh`. [`ruleset`] says what they
//! should hold (pure). [`nft`] writes them, whole and in one transaction; peers and ports that come
//! and go change elements of their sets, which [`netlink`] does in microseconds. [`connections`] has the kernel forget what a port that leads elsewhere leaves
//! astray, of flows to what [`local`] knows for this host's addresses. [`fingerprint`] tells whether the kernel still shows what
//! was written; [`loopback`] has our bridge route loopback while they stand; [`writer`] puts it together; [`rule_drops`] reads what our rules have dropped, and [`look`] what there is. Nobody else's table is read for its meaning, or changed.

mod connections;
mod counters;
mod fingerprint;
mod local;
pub(crate) mod look;
mod loopback;
mod netlink;
mod nft;
pub(crate) mod rule_drops;
mod writer;

pub(crate) use counters::Counters;
pub(crate) use fingerprint::listen;
pub(crate) use nft::NftError;
pub(crate) use writer::{Outcome, Wanted, Writer, remove};

/// Name of both tables.
pub(crate) const TABLE: &str = "quilt_mesh";
