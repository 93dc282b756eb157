//! The kernel's settings that are files and not netlink attributes, as they are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::desired::sysctl::ROUTE_LOCALNET;

/// Whether the host forwards IPv4 packets between its interfaces.
pub(crate) fn ip_forward() -> bool {
    value_of("ipv4/ip_forward", "").is_some_and(|value| value.trim() == "1")
}

/// Whether an interface routes loopback by its own setting; `None` for one that is not there.
pub(crate) fn route_localnet(interface: &str) -> Option<bool> {
    value_of(ROUTE_LOCALNET, interface).map(|value| value.trim() != "0")
}

/// The file of a setting, with an interface's name in the place of `*`.
pub(crate) fn path(setting: &str, interface: &str) -> PathBuf {
    let words = setting.split('/').map(|word| match word {
        // A name may hold what is a separator elsewhere, but none of these.
        "*" => interface,
        word => word,
    });
    Path::new("/proc/sys/net").join(words.collect::<PathBuf>())
}

/// The value of a setting, if the kernel has it.
pub(crate) fn value_of(setting: &str, interface: &str) -> Option<String> {
    fs::read_to_string(path(setting, interface)).ok()
}
