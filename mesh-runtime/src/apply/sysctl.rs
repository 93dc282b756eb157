//! Writes the kernel's settings that are files and not netlink attributes.

use std::{fs, io};

use crate::{
    desired::sysctl::{ROUTE_LOCALNET, lacking},
    observed::sysctl::{path, value_of},
};

/// Makes the host forward IPv4 packets between its interfaces.
pub(crate) fn enable_ip_forward() -> io::Result<()> {
    fs::write(path("ipv4/ip_forward", ""), "1")
}

/// Keeps the kernel from giving an interface an IPv6 link-local address. Nothing depends on
/// it: a kernel without IPv6 has no such file.
pub(crate) fn suppress_link_local(interface: &str) {
    let path = path("ipv6/conf/*/addr_gen_mode", interface);
    // IN6_ADDR_GEN_MODE_NONE
    if let Err(error) = fs::write(&path, "1")
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(name: "cannot-suppress-ipv6-link-local", path = %path.display(), %error, "cannot suppress the IPv6 link-local address");
    }
}

/// Has an interface route loopback, or not.
pub(crate) fn route_localnet(interface: &str, routes: bool) -> io::Result<()> {
    let value = if routes { "1" } else { "0" };
    fs::write(path(ROUTE_LOCALNET, interface), value)
}

/// Gives a device of ours the settings that it lacks.
pub(crate) fn set_up(interface: &str) -> io::Result<()> {
    for (setting, value) in lacking(interface, value_of) {
        match fs::write(path(setting, interface), value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}
