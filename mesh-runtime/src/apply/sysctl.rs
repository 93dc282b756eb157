//! The kernel settings that are files and not netlink attributes.
//!
//! `rp_filter` is left alone: with the strict setting a packet from a peer's container comes
//! in on the VXLAN device, and the way back to its source is our route over that very
//! device. Strict filtering of the underlay concerns outer addresses only, whose ways are
//! the host's own.

use std::{fs, io, path::Path};

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

/// What lets the neighbours on an interface tell the host where to send (RFC 4861, RFC 792).
const TRUST: [&str; 3] = ["accept_ra", "autoconf", "accept_redirects"];

/// Whether the host would take IPv6 routes or addresses from what arrives on an interface.
pub(crate) fn trusts_neighbours(interface: &str) -> bool {
    let path = Path::new("/proc/sys/net/ipv6/conf").join(interface);
    TRUST.iter().any(|name| {
        // A kernel without IPv6 has no such file, and takes nothing.
        fs::read_to_string(path.join(name)).is_ok_and(|value| value.trim() != "0")
    })
}

/// Keeps the host from doing so.
pub(crate) fn distrust_neighbours(interface: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net/ipv6/conf").join(interface);
    for name in TRUST {
        match fs::write(path.join(name), "0") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}
