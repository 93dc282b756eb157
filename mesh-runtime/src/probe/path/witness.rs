//! Which of a probe's packets pass the VXLAN device, and so take the kernel path.
//!
//! Between two nodes a packet has two ways, and one of them leads over this device. A packet socket there sees each packet
//! that the kernel is about to encapsulate, behind every program (`dev_queue_xmit_nit`), and each that it has decapsulated, before
//! any program (`__netif_receive_skb_core`, net/core/dev.c): also those that a program delivers afterwards. So of each single
//! packet of a probe it is known, whatever else is under way; counters of peers would tell it of an idle node alone.
//!
//! It is there while a probe is, and lets in the probe's own echoes alone.

use std::{collections::BTreeSet, io, os::fd::AsRawFd as _};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use socket2::{Domain, SockFilter, Socket, Type};

use super::echo::OpenEcho;
use crate::probe::packet::{self, Mark};

/// What is read of a packet: its headers and the mark.
const SNAP: usize = 96;

/// Sees a probe's packets at one device.
#[derive(Debug)]
pub(crate) struct Witness {
    socket: Socket,
    mark: Mark,
    requests: BTreeSet<u16>,
    replies: BTreeSet<u16>,
}

impl Witness {
    /// Looks for what a socket sends at the interface with that index, in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_NET_RAW.
    pub(crate) fn of(interface: u32, socket: &OpenEcho) -> io::Result<Self> {
        Self::open(interface, socket.mark())
    }

    /// Looks at the interface with that index, in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_NET_RAW.
    fn open(interface: u32, mark: Mark) -> io::Result<Self> {
        // It hears nothing before it is bound (packet(7)): all that it hears has passed the filter.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        socket.attach_filter(&echoes(mark.id))?;
        socket.set_nonblocking(true)?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            // All: sockets for one protocol see no outgoing packets.
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: interface.cast_signed(),
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
                size_of_val(&address) as libc::socklen_t,
            )
        };
        match bound {
            0 => Ok(Self {
                socket,
                mark,
                requests: BTreeSet::new(),
                replies: BTreeSet::new(),
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether the request with that number has passed, and the reply to it. Of one that was answered both are known:
    /// they have passed before the answer was read.
    pub(super) fn saw(&mut self, sequence: u16) -> (bool, bool) {
        self.read();
        (
            self.requests.contains(&sequence),
            self.replies.contains(&sequence),
        )
    }

    fn read(&mut self) {
        let mut buffer = [0; SNAP];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let Some(echo) = packet::echo(&buffer[..length], self.mark) else {
                        continue;
                    };
                    let seen = match echo.is_reply {
                        true => &mut self.replies,
                        false => &mut self.requests,
                    };
                    seen.insert(echo.sequence);
                    // Numbers are used again after 65,536 packets.
                    let opposite = echo.sequence.wrapping_add(1 << 15);
                    seen.remove(&opposite);
                }
                // Reading a pending error, such as that the device is down, takes it away.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(_) => return,
            }
        }
    }
}

/// A filter (classic BPF over the IPv4 packet) that lets in echoes with this identifier alone.
fn echoes(id: u16) -> [SockFilter; 10] {
    // BPF_LD|BPF_B|BPF_ABS, BPF_LDX|BPF_B|BPF_MSH, BPF_LD|BPF_H|BPF_IND, BPF_ALU|BPF_AND|BPF_K, BPF_JMP|BPF_JEQ|BPF_K and
    // BPF_RET|BPF_K of linux/bpf_common.h. Type and code are one half word: zero in a reply, 0x0800 in a request.
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HEADER_LENGTH: u16 = 0xb1;
    const LOAD_HALF: u16 = 0x48;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let icmp = libc::IPPROTO_ICMP.unsigned_abs();
    [
        SockFilter::new(LOAD_BYTE, 0, 0, 9),
        SockFilter::new(JUMP_IF_EQUAL, 0, 7, icmp),
        SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 0),
        SockFilter::new(LOAD_HALF, 0, 0, 0),
        SockFilter::new(AND, 0, 0, 0xf7ff),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, 0),
        SockFilter::new(LOAD_HALF, 0, 0, 4),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from(id)),
        SockFilter::new(RETURN, 0, 0, SNAP as u32),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
