//! Asks the link whether another machine has an address (RFC 5227): the one question here that others hear.

use std::{
    collections::BTreeSet,
    io,
    net::Ipv4Addr,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::snapshot::Mac;

/// How long an answer is waited for; a link answers within milliseconds.
const PATIENCE: Duration = Duration::from_millis(500);
/// Length of an Ethernet header, and of one with ARP for IPv4 (RFC 826).
const ETHERNET: usize = 14;
const FRAME: usize = 42;
const BROADCAST: Mac = [0xff; 6];

/// Who else answers for an address on an interface: none of `ours`, which are the MAC addresses of this host. A second card on
/// the same link answers for the first one's addresses, if nobody has told it not to (`arp_ignore`). Needs CAP_NET_RAW.
///
/// # Errors
///
/// `EPERM` without the privilege; whatever else the kernel says.
pub(crate) fn who_else_has(
    link: u32,
    own: Mac,
    ours: &BTreeSet<Mac>,
    address: Ipv4Addr,
) -> io::Result<Option<Mac>> {
    let socket = Socket::new_raw(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    bind(&socket, link)?;
    socket.send(&question(own, address))?;
    let until = Instant::now() + PATIENCE;
    let mut buffer = [0; 128];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        // Rounded up, because zero stands for no deadline.
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        match io::Read::read(&mut &socket, &mut buffer) {
            Ok(length) => {
                let frame = buffer.get(..length).unwrap_or_default();
                if let Some(mac) = holder(frame, address).filter(|mac| !ours.contains(mac)) {
                    return Ok(Some(mac));
                }
            }
            Err(error)
                if [
                    io::ErrorKind::WouldBlock,
                    io::ErrorKind::TimedOut,
                    io::ErrorKind::Interrupted,
                ]
                .contains(&error.kind()) => {}
            Err(error) => return Err(error),
        }
    }
}

fn bind(socket: &Socket, link: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: link.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is one of this family, and as long as said.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    match bound {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An ARP probe: a request without a sender's address, which nobody learns anything from.
fn question(own: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME);
    frame.extend(BROADCAST);
    frame.extend(own);
    frame.extend([0x08, 0x06]);
    // Ethernet and IPv4, with the lengths of their addresses; a request.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(own);
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// Who says in an ARP message to have an address.
fn holder(frame: &[u8], address: Ipv4Addr) -> Option<Mac> {
    let arp = frame.get(ETHERNET..FRAME)?;
    let is_arp = frame.get(12..14)? == [0x08, 0x06] && arp.get(..6)? == [0, 1, 0x08, 0, 6, 4];
    let says = arp.get(14..18)? == address.octets();
    (is_arp && says).then(|| arp.get(8..14)?.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = [2, 0, 0, 0, 0, 1];
    const OTHER: Mac = [2, 0, 0, 0, 0, 2];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    #[test]
    fn an_answer_names_who_has_the_address_and_a_probe_nobody() {
        let probe = question(OWN, ADDRESS);
        assert_eq!(probe.len(), FRAME);
        assert_eq!(holder(&probe, ADDRESS), None);
        let mut answer = question(OTHER, Ipv4Addr::new(192, 0, 2, 9));
        answer[28..32].copy_from_slice(&ADDRESS.octets());
        assert_eq!(holder(&answer, ADDRESS), Some(OTHER));
        assert_eq!(holder(&answer, Ipv4Addr::new(192, 0, 2, 3)), None);
        assert_eq!(holder(&answer[..FRAME - 1], ADDRESS), None);
    }
}
