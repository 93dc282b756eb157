//! Which thread runs where.

use anyhow::{Context as _, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// The CPUs of this process in two halves. A virtual network carries a packet on the CPU of
/// its sender, up to the receiver's socket; a receiver on a CPU of its own takes nothing from
/// that, and both meet with the same surroundings in every run.
#[derive(Debug, Clone)]
pub(crate) struct Cpus {
    pub(crate) sending: Vec<usize>,
    pub(crate) receiving: Vec<usize>,
}

impl Cpus {
    /// The CPUs this process may use.
    pub(crate) fn available() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot read the CPU mask")?;
        let mut sending: Vec<usize> = (0..CpuSet::count())
            .filter(|cpu| allowed.is_set(*cpu) == Ok(true))
            .collect();
        ensure!(
            sending.len() >= 2,
            "senders and receivers need a CPU each, and this process may use {}",
            sending.len()
        );
        let receiving = sending.split_off(sending.len() / 2);
        Ok(Self { sending, receiving })
    }
}

/// Binds the calling thread to a CPU.
pub(crate) fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut here = CpuSet::new();
    here.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &here))
        .with_context(|| format!("cannot bind a thread to CPU {cpu}"))
}
