//! The packet socket by which frames are captured (packet(7)).

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use libc::sock_filter;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::filter::SNAP;

/// Room for frames that were not read yet.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Hears the frames that a program takes, of those that arrive and of those that leave. The kernel shows them before any
/// program of the traffic control sees what arrives, and behind all of them what leaves.
pub(crate) struct PacketSocket {
    socket: Socket,
    buffer: Vec<u8>,
}

/// A frame.
pub(crate) struct Frame<'a> {
    /// When, in nanoseconds since 1970.
    pub(crate) time: u64,
    pub(crate) bytes: &'a [u8],
    /// How long it was.
    pub(crate) length: usize,
}

/// What the kernel counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Frames that did not fit the socket's buffer.
    pub(crate) lost: u32,
}

impl PacketSocket {
    /// Opens one in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_NET_RAW`; whatever else the kernel says.
    pub(crate) fn open(program: &[sock_filter]) -> io::Result<Self> {
        // Of no protocol yet: it hears nothing before it has its filter.
        let socket = Socket::new_raw(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        let lines = program.iter();
        let lines: Vec<_> = lines
            .map(|it| SockFilter::new(it.code, it.jt, it.jf, it.k))
            .collect();
        socket.attach_filter(&lines)?;
        socket.set_nonblocking(true)?;
        // Beyond what the system allows everybody; as much as that where we may not.
        if set_option(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            &(RECEIVE_BUFFER as i32),
        )
        .is_err()
        {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1_i32)?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            // All: the filter goes by the interface.
            sll_ifindex: 0,
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
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            socket,
            buffer: vec![0; SNAP as usize],
        })
    }

    /// A handle by which is waited for frames.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub(crate) fn handle(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// The next frame.
    ///
    /// # Errors
    ///
    /// `WouldBlock` while there is none.
    pub(crate) fn receive(&mut self) -> io::Result<Frame<'_>> {
        // Aligned as control messages have to be, and long enough for a time stamp's.
        let mut control = [0_u64; 16];
        let mut part = libc::iovec {
            iov_base: self.buffer.as_mut_ptr().cast(),
            iov_len: self.buffer.len(),
        };
        // SAFETY: all zeros are a message header without anything.
        let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        // SAFETY: the header points to the buffers above, which are as long as it says and outlive the call.
        let length =
            unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, libc::MSG_TRUNC) };
        let Ok(length) = usize::try_from(length) else {
            return Err(io::Error::last_os_error());
        };
        Ok(Frame {
            time: time_of(&header),
            bytes: &self.buffer[..length.min(self.buffer.len())],
            length,
        })
    }

    /// What the kernel has counted since it was asked last.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub(crate) fn statistics(&self) -> io::Result<Statistics> {
        let mut counted = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the value is as long as said, and any bytes are numbers.
        let got = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counted).cast(),
                &raw mut length,
            )
        };
        match got {
            0 => Ok(Statistics {
                lost: counted.tp_drops,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The time stamp that came with a frame; 0 without one.
fn time_of(header: &libc::msghdr) -> u64 {
    // SAFETY: the kernel has filled the header's control buffer, and the macros stay within what it says is there.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(this) = message.as_ref() {
            if this.cmsg_level == libc::SOL_SOCKET && this.cmsg_type == libc::SCM_TIMESTAMPNS {
                let time: libc::timespec = libc::CMSG_DATA(this)
                    .cast::<libc::timespec>()
                    .read_unaligned();
                let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
                return seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0);
            }
            message = libc::CMSG_NXTHDR(header, this);
        }
    }
    0
}

fn set_option<T>(socket: &Socket, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value is as long as said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
