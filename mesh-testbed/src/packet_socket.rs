//! Raw frames into and out of one interface.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    netns::NetNs,
};

/// The longest frame there is, one that is still to be segmented.
const LONGEST: usize = 65_536;

/// A packet socket (packet(7)) bound to one interface, which is what `CAP_NET_RAW` gives a
/// container. It hears what arrives there, not what it sends itself. The kernel has taken VLAN
/// tags off what arrives, and takes those in what is sent.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens one on an interface of a namespace.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or has no such interface.
    pub fn open(namespace: &NetNs, interface: &str) -> Result<Self> {
        let opened = namespace.run(|| Self::open_here(interface))?;
        opened.map_err(|source| Error::System {
            action: "open a packet socket on",
            subject: format!("{interface} in {}", namespace.name()),
            source,
        })
    }

    fn open_here(interface: &str) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(interface)?;
        let everything = (libc::ETH_P_ALL as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no memory is passed; the descriptor is new and nobody else's.
        let socket = unsafe {
            let fd = check(libc::socket(libc::AF_PACKET, kind, everything.into()))?;
            Self(OwnedFd::from_raw_fd(fd))
        };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: everything,
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is one of this family, and as long as said.
        check(unsafe {
            libc::bind(
                socket.0.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        })?;
        socket.set_option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        Ok(socket)
    }

    fn set_option<T>(&self, level: i32, name: i32, value: &T) -> io::Result<()> {
        // SAFETY: the value is as long as said.
        check(unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                level,
                name,
                std::ptr::from_ref(value).cast(),
                size_of_val(value) as libc::socklen_t,
            )
        })?;
        Ok(())
    }

    /// Has each frame that is sent begin with a `struct virtio_net_hdr` (linux/virtio_net.h), by which a
    /// sender leaves checksums and segmentation to others (`PACKET_VNET_HDR`, packet(7)).
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn with_offload_headers(self) -> io::Result<Self> {
        self.set_option(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)?;
        Ok(self)
    }

    /// Sends a frame out of the interface.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let flags = nix::sys::socket::MsgFlags::empty();
        nix::sys::socket::send(self.0.as_raw_fd(), frame, flags)?;
        Ok(())
    }

    /// The next frame that `wanted` accepts; `None` if none comes in time.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn receive(
        &self,
        within: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + within;
        let mut buffer = vec![0; LONGEST];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let timeout = libc::timeval {
                tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_usec: i64::from(left.subsec_micros()).max(1),
            };
            self.set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)?;
            let flags = nix::sys::socket::MsgFlags::empty();
            match nix::sys::socket::recv(self.0.as_raw_fd(), &mut buffer, flags) {
                Ok(length) if wanted(&buffer[..length]) => {
                    buffer.truncate(length);
                    return Ok(Some(buffer));
                }
                Ok(_) | Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
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
