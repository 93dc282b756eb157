//! The kernel settings that are files and not netlink attributes.
//!
//! Of the host's own interfaces none is touched: strict filtering (`rp_filter`) of the underlay concerns outer
//! addresses only, whose ways are the host's own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Whether the host forwards IPv4 packets between its interfaces.
pub(crate) fn ip_forward() -> bool {
    fs::read_to_string(IP_FORWARD).is_ok_and(|value| value.trim() == "1")
}

/// Makes the host forward IPv4 packets between its interfaces.
pub(crate) fn enable_ip_forward() -> io::Result<()> {
    fs::write(IP_FORWARD, "1")
}

/// Keeps the kernel from giving an interface an IPv6 link-local address. Nothing depends on
/// it: a kernel without IPv6 has no such file.
pub(crate) fn suppress_link_local(interface: &str) {
    let path = Path::new("/proc/sys/net/ipv6/conf")
        .join(interface)
        .join("addr_gen_mode");
    // IN6_ADDR_GEN_MODE_NONE
    if let Err(error) = fs::write(&path, "1")
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(path = %path.display(), %error, "cannot suppress the IPv6 link-local address");
    }
}

/// What a device of ours needs, each below the directory of its protocol and with its own name in the place of `*`.
/// A kernel without IPv6 lacks some, and takes nothing from anybody there.
const NEEDED: [(&str, &str); 4] = [
    // What lets the neighbours on an interface tell the host where to send (RFC 4861, RFC 792).
    ("ipv6/conf/*/accept_ra", "0"),
    ("ipv6/conf/*/autoconf", "0"),
    ("ipv6/conf/*/accept_redirects", "0"),
    // `ip_forward` sets it for all interfaces there are, and whoever hardens a host takes it from single ones.
    ("ipv4/conf/*/forwarding", "1"),
];

/// Of the two values of an interface and of all, the kernel heeds the larger: 1 would drop what comes by another
/// way than its answer takes, and 2 only what comes from nowhere (Documentation/networking/ip-sysctl).
const RP_FILTER: &str = "ipv4/conf/*/rp_filter";
const STRICT: u32 = 1;
const LOOSE: u32 = 2;

fn path(setting: &str, interface: &str) -> PathBuf {
    let words = setting.split('/').map(|word| match word {
        // A name may hold what is a separator elsewhere, but none of these.
        "*" => interface,
        word => word,
    });
    Path::new("/proc/sys/net").join(words.collect::<PathBuf>())
}

/// Whether a device of ours has the settings that it needs.
pub(crate) fn is_set_up(interface: &str) -> bool {
    let needed = NEEDED.iter().all(|(setting, value)| {
        fs::read_to_string(path(setting, interface)).map_or(true, |is| is.trim() == *value)
    });
    needed && !filters_strictly(interface)
}

fn filters_strictly(interface: &str) -> bool {
    let value = |interface| {
        let text = fs::read_to_string(path(RP_FILTER, interface));
        text.ok()?.trim().parse::<u32>().ok()
    };
    value(interface).max(value("all")) == Some(STRICT)
}

/// Gives a device of ours the settings that it needs.
pub(crate) fn set_up(interface: &str) -> io::Result<()> {
    for (setting, value) in NEEDED {
        write(&path(setting, interface), value)?;
    }
    if filters_strictly(interface) {
        write(&path(RP_FILTER, interface), &LOOSE.to_string())?;
    }
    Ok(())
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    match fs::write(path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
