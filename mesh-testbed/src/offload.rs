//! What a network card does for the kernel, switched on for virtual Ethernet.

use std::io;

use socket2::{Domain, Socket, Type};

use crate::{
    error::{Error, Result},
    netns::NetNs,
};

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// The offloads that servers' network cards have, as (ETHTOOL_G…, ETHTOOL_S…, name). veth has
/// all but GRO from the start; without GRO it would hand every segment on alone, which no
/// network card has done for years.
const NIC: [(u32, u32, &str); 6] = [
    (0x14, 0x15, "rx-checksum"),
    (0x16, 0x17, "tx-checksum"),
    (0x18, 0x19, "scatter-gather"),
    (0x1e, 0x1f, "tcp-segmentation"),
    (0x23, 0x24, "generic-segmentation"),
    (0x2b, 0x2c, "generic-receive"),
];

/// Switches the offloads of a NIC on for an interface of a namespace.
///
/// # Errors
///
/// The kernel's answer, also when it accepts a setting and then does not show it.
pub fn enable_nic_offloads(namespace: &NetNs, interface: &str) -> Result<()> {
    for (get, set, name) in NIC {
        let shown = namespace.run(|| {
            ethtool(interface, set, 1)?;
            ethtool(interface, get, 0)
        })?;
        let subject = || format!("{name} offload of {interface} in {}", namespace.name());
        match shown {
            Ok(1) => {}
            Ok(_) => {
                return Err(Error::system(
                    "switch on",
                    subject(),
                    io::Error::from(io::ErrorKind::Unsupported),
                ));
            }
            Err(error) => return Err(Error::system("switch on", subject(), error)),
        }
    }
    Ok(())
}

/// Switches one offload by its ethtool command number (`ETHTOOL_S…` of linux/ethtool.h).
///
/// # Errors
///
/// The kernel's answer.
pub fn set_offload(namespace: &NetNs, interface: &str, command: u32, on: bool) -> Result<()> {
    namespace
        .run(|| ethtool(interface, command, on.into()))?
        .map(drop)
        .map_err(|error| {
            Error::system("set", format!("offload {command:#x} of {interface}"), error)
        })
}

fn ethtool(interface: &str, command: u32, data: u32) -> io::Result<u32> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut value = EthtoolValue { command, data };
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL takes an ifreq whose data points to the structure of the command,
    // which is an ethtool_value for all commands used here; both outlive the call.
    let result = unsafe {
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            SIOCETHTOOL,
            &raw mut request,
        )
    };
    match result {
        0 => Ok(value.data),
        _ => Err(io::Error::last_os_error()),
    }
}
