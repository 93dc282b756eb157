//! What the figures were measured on.

use std::fs;

use anyhow::Context as _;
use serde::Serialize;

/// The machine, as far as the figures depend on it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpus: usize,
    pub(crate) cpu_model: String,
    /// Whether the CPU says that it is a virtual machine's.
    pub(crate) virtual_machine: bool,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) distribution: String,
    /// What was running before: somebody else's work on the same machine.
    pub(crate) load_before: String,
    /// When the run ended, in seconds of Unix time.
    pub(crate) finished_at: u64,
}

impl Machine {
    /// This machine, before anything was measured.
    pub(crate) fn here() -> anyhow::Result<Self> {
        let read = |path| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let cpu = read("/proc/cpuinfo")?;
        let memory = read("/proc/meminfo")?;
        let kib: u64 = field(&memory, "MemTotal")
            .and_then(|value| value.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let distribution = release
            .lines()
            .find_map(|line| line.strip_prefix("PRETTY_NAME="))
            .unwrap_or("unknown");
        let flags = field(&cpu, "flags").unwrap_or_default();
        Ok(Self {
            cpus: std::thread::available_parallelism()
                .context("cannot count the CPUs")?
                .get(),
            cpu_model: field(&cpu, "model name").unwrap_or("unknown").to_owned(),
            virtual_machine: flags.split_whitespace().any(|flag| flag == "hypervisor"),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            distribution: distribution.trim_matches('"').to_owned(),
            load_before: read("/proc/loadavg")?
                .split_whitespace()
                .next()
                .unwrap_or("unknown")
                .to_owned(),
            finished_at: 0,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.virtual_machine {
            true => "a virtual machine",
            false => "a machine",
        };
        write!(
            f,
            "{kind} with {} CPUs ({}), {} GiB of memory, {}, Linux {}, load average {} before the start",
            self.cpus,
            self.cpu_model,
            self.memory_gib,
            self.distribution,
            self.kernel,
            self.load_before
        )
    }
}

/// The value of the first line that begins with this name.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}
