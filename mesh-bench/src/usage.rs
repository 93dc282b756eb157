//! What a process takes of the machine, as the kernel accounts for it.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{time::clock_getcpuclockid, unistd::Pid};

/// What a process has used until some moment.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    pub(crate) at: Instant,
    /// On all CPUs, in user space and in the kernel, also of threads that have ended.
    pub(crate) processor: Duration,
    /// How often each of its threads has waited for something, and so was woken up, by the threads' ids.
    waits: BTreeMap<String, u64>,
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
        let mut waits = BTreeMap::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task")).with_context(gone)? {
            // One that has ended meanwhile waits for nothing.
            let thread = thread?;
            if let Ok(status) = fs::read_to_string(thread.path().join("status")) {
                let name = thread.file_name().to_string_lossy().into_owned();
                waits.insert(
                    name,
                    number(&status, "voluntary_ctxt_switches").unwrap_or(0),
                );
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

    /// How often a second its threads were woken up since `before`: those that are there still.
    pub(crate) fn waits_since(&self, before: &Self) -> f64 {
        let since = self.waits.iter().map(|(thread, waits)| {
            let before = before.waits.get(thread).copied().unwrap_or(0);
            waits.saturating_sub(before)
        });
        let waits = u32::try_from(since.sum::<u64>()).unwrap_or(u32::MAX);
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
    fn a_thread_that_has_ended_takes_nothing_off_what_the_others_waited() {
        let at = |waits: &[(&str, u64)]| Usage {
            at: Instant::now(),
            processor: Duration::ZERO,
            waits: waits
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            resident: 0,
            proportional: 0,
        };
        let before = at(&[("1", 10), ("2", 1000)]);
        let mut after = at(&[("1", 14), ("3", 6)]);
        after.at = before.at + Duration::from_secs(2);
        assert!((after.waits_since(&before) - 5.0).abs() < 1e-9);
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
