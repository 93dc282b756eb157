//! What a process takes of the machine, as the kernel accounts for it.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{time::clock_getcpuclockid, unistd::Pid};

/// What a process has used until some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) at: Instant,
    /// On all CPUs, in user space and in the kernel, also of threads that have ended.
    pub(crate) processor: Duration,
    /// How often its threads have waited for something, and so were woken up: of those that are there still.
    pub(crate) waits: u64,
    /// Resident bytes.
    pub(crate) resident: u64,
    /// Resident bytes, those shared with other processes by halves, thirds and so on.
    pub(crate) proportional: u64,
}

impl Usage {
    /// That of the process with this id until now.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let gone = || format!("process {pid} is gone");
        let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).with_context(gone)?;
        let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).with_context(gone)?;
        let mut waits = 0;
        for thread in fs::read_dir(format!("/proc/{pid}/task")).with_context(gone)? {
            // One that has ended meanwhile waits for nothing.
            if let Ok(status) = fs::read_to_string(thread?.path().join("status")) {
                waits += number(&status, "voluntary_ctxt_switches").unwrap_or(0);
            }
        }
        Ok(Self {
            at: Instant::now(),
            processor: clock.now().with_context(gone)?.into(),
            waits,
            resident: bytes(&memory, "Rss").context("no Rss in smaps_rollup")?,
            proportional: bytes(&memory, "Pss").context("no Pss in smaps_rollup")?,
        })
    }

    /// How often a second its threads were woken up since `before`.
    pub(crate) fn waits_since(&self, before: &Self) -> f64 {
        let waits = u32::try_from(self.waits.saturating_sub(before.waits)).unwrap_or(u32::MAX);
        f64::from(waits) / (self.at - before.at).as_secs_f64()
    }

    /// The share of one CPU used since `before`.
    pub(crate) fn cores_since(&self, before: &Self) -> f64 {
        (self.processor - before.processor).as_secs_f64() / (self.at - before.at).as_secs_f64()
    }
}

/// The number in a line of proc_pid_status(5).
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|value| value.trim().parse().ok())
}

/// The value of a line of proc_pid_smaps(5), in bytes.
fn bytes(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_those_that_were_meant() {
        let text = "Threads:\t1\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t99\n";
        assert_eq!(number(text, "voluntary_ctxt_switches"), Some(12));
        assert_eq!(number(text, "switches"), None);
    }

    #[test]
    fn the_processor_time_of_this_process_is_that_of_its_threads_also_once_they_have_ended() {
        let before = Usage::of(std::process::id()).unwrap();
        let busy = || {
            let end = Instant::now() + Duration::from_millis(100);
            while Instant::now() < end {}
        };
        std::thread::spawn(busy).join().unwrap();
        let after = Usage::of(std::process::id()).unwrap();
        assert!(after.processor > before.processor);
    }

    #[test]
    fn memory_is_read_by_its_name() {
        let text = "Rss:             2048 kB\nPss:             1024 kB\nPss_Anon:          12 kB\n";
        assert_eq!(bytes(text, "Rss"), Some(2 << 20));
        assert_eq!(bytes(text, "Pss"), Some(1 << 20));
        assert_eq!(bytes(text, "Swap"), None);
    }
}
