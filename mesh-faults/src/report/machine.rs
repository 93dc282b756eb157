//! What the figures were measured on.

use std::fs;

/// The machine, as far as the figures depend on it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    cpus: usize,
    cpu_model: String,
    kernel: String,
    load_before: String,
    build: &'static str,
}

impl Machine {
    /// This machine, before anything is done to it.
    pub(crate) fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpu_model = read("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, model)| model.trim())
            .to_owned();
        Self {
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cpu_model,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: read("/proc/loadavg")
                .split_whitespace()
                .next()
                .unwrap_or("unknown")
                .to_owned(),
            build: match cfg!(debug_assertions) {
                true => "debug",
                false => "release",
            },
        }
    }

    pub(crate) fn describe(&self) -> String {
        format!(
            "Linux {}, {} CPUs ({}), {} build, load average {} before the start",
            self.kernel, self.cpus, self.cpu_model, self.build, self.load_before
        )
    }
}
