//! What a process takes of the machine, as the kernel accounts for it.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::unistd::{SysconfVar, sysconf};

/// What a process has used until some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) at: Instant,
    /// On all CPUs, in user space and in the kernel.
    pub(crate) processor: Duration,
    /// Resident bytes.
    pub(crate) resident: u64,
    /// Resident bytes, those shared with other processes by halves, thirds and so on.
    pub(crate) proportional: u64,
}

impl Usage {
    /// That of the process with this id until now.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let gone = || format!("process {pid} is gone");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(gone)?;
        let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).with_context(gone)?;
        let ticks =
            sysconf(SysconfVar::CLK_TCK)?.context("the kernel does not tell its clock tick")?;
        let ticks = u32::try_from(ticks)?;
        let used = processor_ticks(&stat).context("unexpected /proc/PID/stat")?;
        Ok(Self {
            at: Instant::now(),
            processor: Duration::from_secs(used) / ticks,
            resident: bytes(&memory, "Rss").context("no Rss in smaps_rollup")?,
            proportional: bytes(&memory, "Pss").context("no Pss in smaps_rollup")?,
        })
    }

    /// The share of one CPU used since `before`.
    pub(crate) fn cores_since(&self, before: &Self) -> f64 {
        (self.processor - before.processor).as_secs_f64() / (self.at - before.at).as_secs_f64()
    }
}

/// Fields 14 and 15 of proc_pid_stat(5).
fn processor_ticks(stat: &str) -> Option<u64> {
    // The command name in field 2 may hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
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
    fn processor_time_is_that_of_user_space_and_kernel_whatever_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 9 9 20 0 3 0 1234 1 1";
        assert_eq!(processor_ticks(stat), Some(300));
    }

    #[test]
    fn memory_is_read_by_its_name() {
        let text = "Rss:             2048 kB\nPss:             1024 kB\nPss_Anon:          12 kB\n";
        assert_eq!(bytes(text, "Rss"), Some(2 << 20));
        assert_eq!(bytes(text, "Pss"), Some(1 << 20));
        assert_eq!(bytes(text, "Swap"), None);
    }
}
