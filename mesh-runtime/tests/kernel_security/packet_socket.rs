//! Raw frames into and out of one interface.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use mesh_testbed::NetNs;

use crate::{inside::pinned, pair::SOON};

/// A packet socket (packet(7)) bound to one interface. It hears what arrives there, not what
/// it sends itself.
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    index: i32,
}

impl PacketSocket {
    pub(crate) fn open(namespace: &NetNs, interface: &str) -> Self {
        namespace
            .run(|| Self::open_here(interface))
            .unwrap()
            .unwrap()
    }

    fn open_here(interface: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)?.cast_signed();
        let everything = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no memory is passed; the descriptor is new and nobody else's.
        let fd = unsafe {
            let fd = check(libc::socket(libc::AF_PACKET, kind, everything.into()))?;
            OwnedFd::from_raw_fd(fd)
        };
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap(),
            sll_protocol: everything,
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
        // SAFETY: the address is one of this family, and as long as said.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
        let socket = Self { fd, index };
        socket.set_option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        Ok(socket)
    }

    fn set_option<T>(&self, level: i32, name: i32, value: &T) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of::<T>()).unwrap();
        // SAFETY: the value is as long as said.
        check(unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                name,
                std::ptr::from_ref(value).cast(),
                length,
            )
        })?;
        Ok(())
    }

    /// Sends frames out of the interface, in order. `netns` is the socket's, for its CPU's sake.
    pub(crate) fn send(&self, netns: &NetNs, frames: &[Vec<u8>]) {
        pinned(netns, || {
            for frame in frames {
                let flags = nix::sys::socket::MsgFlags::empty();
                nix::sys::socket::send(self.fd.as_raw_fd(), frame, flags)
                    .unwrap_or_else(|error| panic!("send over interface {}: {error}", self.index));
            }
        });
    }

    /// The next frame, or `None` if none comes within `patience`.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience.min(SOON);
        let mut buffer = vec![0; 65_536];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let timeout = libc::timeval {
                tv_sec: i64::try_from(left.as_secs()).unwrap(),
                tv_usec: i64::from(left.subsec_micros()).max(1),
            };
            self.set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)
                .unwrap();
            let flags = nix::sys::socket::MsgFlags::empty();
            match nix::sys::socket::recv(self.fd.as_raw_fd(), &mut buffer, flags) {
                Ok(length) => return Some(buffer[..length].to_vec()),
                Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn check(result: i32) -> io::Result<i32> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}
