//! Settings of the kernel that are files (sysctl(8)).

use std::fs;

/// A number below `/proc/sys/net/ipv4/conf`, of one interface or of `all`.
pub(crate) fn of_interface(setting: &str, interface: &str) -> Option<u32> {
    // Names of interfaces hold no slash (`dev_valid_name`, net/core/dev.c).
    number(&format!("/proc/sys/net/ipv4/conf/{interface}/{setting}"))
}

/// The number that a file holds.
pub(crate) fn number<T: std::str::FromStr>(path: &str) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
