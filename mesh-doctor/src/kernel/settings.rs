//! Settings of the kernel that are files (sysctl(8)).

use std::{collections::BTreeMap, fs};

use crate::judge::limits::{Limits, Table};

/// A number below `/proc/sys/net/ipv4/conf`, of one interface or of `all`.
pub(crate) fn of_interface(setting: &str, interface: &str) -> Option<u32> {
    // Names of interfaces hold no slash (`dev_valid_name`, net/core/dev.c).
    number(&format!("/proc/sys/net/ipv4/conf/{interface}/{setting}"))
}

/// The number that a file holds.
pub(crate) fn number<T: std::str::FromStr>(path: &str) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// How full the kernel's tables are.
pub(crate) fn limits() -> Limits {
    let table = |used: Option<u64>, limit: Option<u64>| {
        used.zip(limit).map(|(used, limit)| Table { used, limit })
    };
    Limits {
        connections: table(
            number("/proc/sys/net/netfilter/nf_conntrack_count"),
            number("/proc/sys/net/netfilter/nf_conntrack_max"),
        ),
        // Of the whole machine; shown in its first network namespace alone (`neigh_sysctl_register`, net/core/neighbour.c).
        neighbours: table(
            entries("/proc/net/stat/arp_cache"),
            number("/proc/sys/net/ipv4/neigh/default/gc_thresh3"),
        ),
    }
}

/// The first column of the first line below the head, in hexadecimal (`neigh_stat_seq_show`).
fn entries(path: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let first = text.lines().nth(1)?.split_whitespace().next()?;
    u64::from_str_radix(first, 16).ok()
}

/// How many UDP datagrams came with a wrong checksum: `InCsumErrors` of `/proc/net/snmp`.
pub(crate) fn wrong_checksums() -> Option<u64> {
    checksum_errors(&fs::read_to_string("/proc/self/net/snmp").ok()?)
}

fn checksum_errors(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names
        .split_whitespace()
        .position(|it| it == "InCsumErrors")?;
    values.split_whitespace().nth(at)?.parse().ok()
}

/// Which network manager has hold of which interface, by what it says of itself below `/run`.
pub(crate) fn managers(indexes: impl Iterator<Item = u32>) -> BTreeMap<u32, String> {
    let manager = |index: u32| {
        let networkd = fs::read_to_string(format!("/run/systemd/netif/links/{index}"));
        if networkd.is_ok_and(|text| networkd_manages(&text)) {
            return Some("systemd-networkd");
        }
        let network_manager = fs::read_to_string(format!("/run/NetworkManager/devices/{index}"));
        network_manager
            .is_ok_and(|text| network_manager_manages(&text))
            .then_some("NetworkManager")
    };
    indexes
        .filter_map(|index| Some((index, manager(index)?.to_owned())))
        .collect()
}

/// `ADMIN_STATE=` of networkd's state file (sd-network(3)): anything but `unmanaged` and what comes before it is decided.
fn networkd_manages(text: &str) -> bool {
    let state = text.lines().find_map(|it| it.strip_prefix("ADMIN_STATE="));
    state.is_some_and(|it| ["configured", "configuring", "failed"].contains(&it))
}

/// A device that NetworkManager configures itself, and not one whose configuration it only describes (`nm-owned`, and a
/// connection of its own making: NetworkManager's device state file).
fn network_manager_manages(text: &str) -> bool {
    let value = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|it| it.strip_prefix(name)).map(str::trim)
    };
    value("managed=") == Some("true")
        && value("connection-uuid=").is_some_and(|it| !it.is_empty())
        && value("nm-generated=") != Some("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_errors_are_found_by_their_name() {
        let text = "Ip: A B\nIp: 1 2\nUdp: InDatagrams InCsumErrors IgnoredMulti\nUdp: 7 3 0\n";
        assert_eq!(checksum_errors(text), Some(3));
        assert_eq!(checksum_errors("Udp: InDatagrams\nUdp: 7\n"), None);
        assert!(wrong_checksums().is_some());
    }

    #[test]
    fn a_device_that_is_managed_is_told_from_one_that_is_only_seen() {
        assert!(networkd_manages(
            "# private\nADMIN_STATE=configured\nOPER_STATE=routable\n"
        ));
        assert!(!networkd_manages("ADMIN_STATE=unmanaged\n"));
        assert!(network_manager_manages(
            "[device]\nmanaged=true\nconnection-uuid=1-2\n"
        ));
        assert!(!network_manager_manages(
            "[device]\nmanaged=true\nconnection-uuid=1-2\nnm-generated=true\n"
        ));
        assert!(!network_manager_manages("[device]\nmanaged=false\n"));
    }
}
