//! What the node is, as the system tells it.

use std::{fs, io, thread};

/// The system's host name (`uname -n`), in this process's UTS namespace.
///
/// # Errors
/// If /proc is not mounted.
pub fn hostname() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim_end().to_owned())
}

/// Processors this process may use: affinity and cgroup quota are taken into account.
#[must_use]
pub fn cpu_cores() -> Option<u32> {
    let cores = thread::available_parallelism().ok()?;
    u32::try_from(cores.get()).ok()
}

/// Memory of the host in MiB.
#[must_use]
pub fn ram_mb() -> Option<u64> {
    total_mb(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// `MemTotal` of a /proc/meminfo in MiB. The file says "kB" and means KiB (proc(5)).
fn total_mb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mebibytes() {
        let meminfo = "MemTotal:       16318412 kB\nMemFree:         1000 kB\n";
        assert_eq!(total_mb(meminfo), Some(15935));
        assert_eq!(total_mb("MemFree: 1 kB"), None);
        assert_eq!(total_mb("MemTotal: many kB"), None);
    }

    #[test]
    fn this_machine_has_a_name_a_processor_and_memory() {
        assert!(!hostname().unwrap().is_empty());
        assert!(cpu_cores().unwrap() >= 1);
        assert!(ram_mb().unwrap() > 0);
    }
}
