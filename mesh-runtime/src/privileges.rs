//! Whether this process may do its work.

use std::{env, fs, path::PathBuf};

/// Bit of `CAP_NET_ADMIN` in a capability set (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// A capability that is missing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "CAP_NET_ADMIN is missing: this process may not change the network. Run it as root (sudo \
     {program}), or as a user with the ambient capabilities net_admin, net_broadcast, net_raw, bpf, perfmon, \
     sys_ptrace and sys_admin (systemd's AmbientCapabilities=; those of a file do not pass to the program nft)"
)]
pub struct MissingPrivilege {
    /// The program to run or to grant it to.
    pub program: String,
}

/// Checks that this process may change the network.
pub(crate) fn check() -> Result<(), MissingPrivilege> {
    // Without /proc nothing can be said; the kernel will say it then.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if may_change_network(&status) {
        return Ok(());
    }
    Err(MissingPrivilege {
        program: env::current_exe()
            .unwrap_or_else(|_| PathBuf::from("quilt-runtime"))
            .display()
            .to_string(),
    })
}

/// Whether the process with this text of `/proc/<pid>/status` may change the network, for all that it says.
pub(crate) fn may_change_network(status: &str) -> bool {
    effective_capabilities(status).is_none_or(|set| set & (1 << CAP_NET_ADMIN) != 0)
}

/// Reads the effective capability set from the text of `/proc/<pid>/status`.
fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read_in_hexadecimal() {
        let status = "Name:\tx\nCapPrm:\tffff\nCapEff:\t0000000000001000\n";
        assert_eq!(effective_capabilities(status), Some(1 << CAP_NET_ADMIN));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }
}
