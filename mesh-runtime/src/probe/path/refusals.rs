//! Whether a peer's host has said that nobody serves its port for VXLAN.
//!
//! Whatever is sent to a port that nobody serves is answered so (ICMP port unreachable), but not each time: kernels send one
//! of them a second, and a few more at first (`icmp_ratelimit`, ip-sysctl). A question of its own would come too late where
//! a few probes have been sent over the overlay before. So all that come are looked at, whichever packet they are about.

use std::{io, net::Ipv4Addr, os::fd::AsRawFd as _};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Headers of the message, of what it quotes, and of UDP in that.
const SNAP: usize = 128;

const UDP: u8 = 17;

/// Hears what a host says of its port.
#[derive(Debug)]
pub(crate) struct Refusals {
    socket: Socket,
    host: Ipv4Addr,
    port: u16,
}

impl Refusals {
    /// Listens from now on, in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_NET_RAW.
    pub(crate) fn listen(host: Ipv4Addr, port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        // What comes before has not passed it, and is recognised as something else.
        socket.attach_filter(&unreachable_ports(host))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, host, port })
    }

    /// Whether one has come.
    pub(super) fn heard(&self) -> bool {
        let mut buffer = [0; SNAP];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) if refuses(&buffer[..length], self.host, self.port) => return true,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// Whether an IPv4 packet is the word of a host that nobody serves its UDP port.
fn refuses(packet: &[u8], host: Ipv4Addr, port: u16) -> bool {
    let refuses = || {
        let header = header_length(packet)?;
        let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
        let &[kind, code] = packet.get(header..header + 2)?.first_chunk()?;
        // The packet that it is about begins after eight bytes (RFC 792).
        let quoted = packet.get(header + 8..)?;
        let quoted_header = header_length(quoted)?;
        let destination: [u8; 4] = quoted.get(16..20)?.try_into().ok()?;
        let to: [u8; 2] = quoted
            .get(quoted_header + 2..quoted_header + 4)?
            .try_into()
            .ok()?;
        let ours = (kind, code) == (3, 3)
            && *quoted.get(9)? == UDP
            && [source, destination] == [host.octets(); 2]
            && u16::from_be_bytes(to) == port;
        Some(ours)
    };
    refuses().unwrap_or_default()
}

/// Length of an IPv4 header.
fn header_length(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && length >= 20).then_some(length)
}

/// A filter (classic BPF over the IPv4 packet) that lets in port unreachable of that host alone.
fn unreachable_ports(host: Ipv4Addr) -> [SockFilter; 7] {
    // BPF_LD|BPF_W|BPF_ABS, BPF_LDX|BPF_B|BPF_MSH, BPF_LD|BPF_H|BPF_IND, BPF_JMP|BPF_JEQ|BPF_K and BPF_RET|BPF_K of
    // linux/bpf_common.h. Type and code are one half word.
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HEADER_LENGTH: u16 = 0xb1;
    const LOAD_HALF: u16 = 0x48;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_WORD, 0, 0, 12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 4, host.into()),
        SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 0),
        SockFilter::new(LOAD_HALF, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x0303),
        SockFilter::new(RETURN, 0, 0, SNAP as u32),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn header(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        header.extend(source.octets());
        header.extend(destination.octets());
        header
    }

    fn message(source: Ipv4Addr, code: u8, to: Ipv4Addr, port: u16) -> Vec<u8> {
        let own = Ipv4Addr::new(192, 0, 2, 1);
        let mut packet = header(1, source, own);
        packet.extend([3, code, 0, 0, 0, 0, 0, 0]);
        packet.extend(header(UDP, own, to));
        packet.extend(49_152_u16.to_be_bytes());
        packet.extend(port.to_be_bytes());
        packet.extend([0; 4]);
        packet
    }

    #[test]
    fn a_host_refuses_by_its_own_word_about_its_own_port_alone() {
        let other = Ipv4Addr::new(192, 0, 2, 3);
        assert!(refuses(&message(HOST, 3, HOST, 4789), HOST, 4789));
        for packet in [
            message(other, 3, HOST, 4789),
            message(HOST, 1, HOST, 4789),
            message(HOST, 3, other, 4789),
            message(HOST, 3, HOST, 53),
        ] {
            assert!(!refuses(&packet, HOST, 4789), "{packet:?}");
        }
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_reader_panic(packet in prop::collection::vec(any::<u8>(), 0..SNAP)) {
            refuses(&packet, HOST, 4789);
        }
    }
}
