//! The sockets over which peers are asked.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendto, setsockopt,
    sockopt::{Ipv4RecvErr, RcvBufForce},
};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::packet::{self, Mark};

/// Where a datagram goes that is only to be refused: the discard service (RFC 863), which
/// nobody serves.
const DISCARD_PORT: u16 = 9;

/// What is sent to the port of VXLAN: the header of a network that nobody has (RFC 7348, section 5), which programs of
/// ours leave to the kernel without a word, and the kernel drops.
const NOBODYS_VXLAN: [u8; 8] = [8, 0, 0, 0, 0xff, 0xff, 0xff, 0];

/// Room for the answers of a few thousand peers that come at once.
const RECEIVE_BUFFER: usize = 2 << 20;

const ICMP_DESTINATION_UNREACHABLE: u8 = 3;

/// Asks for signs of life from one address.
///
/// An ICMP echo request is answered by every kernel that is not told otherwise, but sending
/// one takes CAP_NET_RAW. A datagram to a port that is not served takes nothing, and the
/// refusal (ICMP port unreachable) is a sign of life too; but kernels limit how many of those
/// they send. So the first attempt is an echo where the process may send one, and the later
/// ones are both.
pub(crate) struct ProbeSocket {
    /// A raw ICMP socket in the type that Tokio has for datagrams, and the mark of its
    /// questions.
    echo: Option<(UdpSocket, Mark)>,
    datagram: UdpSocket,
    /// The port to which datagrams go, and what is in them.
    port: u16,
    content: &'static [u8],
}

/// The same before it is registered with the Tokio runtime on which the answers are waited for.
pub(crate) struct OpenProbeSocket {
    echo: Option<(Socket, Mark)>,
    datagram: Socket,
    port: u16,
    content: &'static [u8],
}

impl OpenProbeSocket {
    /// Registers it with the current Tokio runtime.
    pub(crate) fn register(self) -> io::Result<ProbeSocket> {
        let echo = self
            .echo
            .map(|(socket, mark)| Ok::<_, io::Error>((into_tokio(socket)?, mark)));
        Ok(ProbeSocket {
            echo: echo.transpose()?,
            datagram: into_tokio(self.datagram)?,
            port: self.port,
            content: self.content,
        })
    }

    /// Opens the sockets in the network namespace of this thread. Without an interface, questions
    /// go where the host's routes lead.
    pub(crate) fn open(source: Ipv4Addr, interface: Option<&str>) -> io::Result<Self> {
        let mark = Mark::random();
        let echo = match open(Type::RAW, Some(Protocol::ICMPV4), source, interface) {
            Ok(socket) => {
                socket.attach_filter(&echo_replies(mark.id))?;
                Some((socket, mark))
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            echo,
            datagram: open_datagram(source, interface)?,
            port: DISCARD_PORT,
            content: &[],
        })
    }

    /// Opens a socket that sends nothing but datagrams, to the port of VXLAN: whoever refuses them does
    /// not serve it. In the network namespace of this thread.
    pub(crate) fn to_port(source: Ipv4Addr, port: u16) -> io::Result<Self> {
        Ok(Self {
            echo: None,
            datagram: open_datagram(source, None)?,
            port,
            content: &NOBODYS_VXLAN,
        })
    }
}

impl ProbeSocket {
    /// Asks `to` for the `attempt`-th time, counted from 0.
    pub(super) fn send(&self, to: Ipv4Addr, attempt: u32) -> io::Result<()> {
        let echo = self.echo.as_ref().map(|(socket, mark)| {
            let sequence = u16::try_from(attempt).unwrap_or(u16::MAX);
            send(socket, &packet::request(*mark, sequence), to, 0)
        });
        match echo {
            Some(result) if attempt == 0 => result,
            Some(result) => send(&self.datagram, self.content, to, self.port).or(result),
            None => send(&self.datagram, self.content, to, self.port),
        }
    }

    /// Waits for an answer and says who gave it. Cancel safe.
    pub(super) async fn answer(&self) -> Ipv4Addr {
        tokio::select! {
            from = self.reply() => from,
            from = self.refusal() => from,
        }
    }

    async fn reply(&self) -> Ipv4Addr {
        let Some((socket, mark)) = &self.echo else {
            return std::future::pending().await;
        };
        let mut buffer = [0; 128];
        loop {
            match socket.recv(&mut buffer).await {
                Ok(length) => {
                    if let Some(from) = packet::answered_by(&buffer[..length], *mark) {
                        return from;
                    }
                }
                Err(error) => note(&error).await,
            }
        }
    }

    async fn refusal(&self) -> Ipv4Addr {
        let wanted = Interest::READABLE | Interest::ERROR;
        loop {
            let read = || read_refusal(&self.datagram);
            match self.datagram.async_io(wanted, read).await {
                Ok(Some(from)) => return from,
                Ok(None) => {}
                Err(error) => note(&error).await,
            }
        }
    }
}

/// Reading a pending error takes it away, as when the interface goes down. One that is not the kernel's is the end of
/// the Tokio runtime: nothing comes any more.
async fn note(error: &io::Error) {
    if error.raw_os_error().is_none() {
        return std::future::pending().await;
    }
    tracing::debug!(name: "probe-socket-reports-error", %error, "a probe's socket reports an error");
}

fn open_datagram(source: Ipv4Addr, interface: Option<&str>) -> io::Result<Socket> {
    let socket = open(Type::DGRAM, Some(Protocol::UDP), source, interface)?;
    setsockopt(&socket, Ipv4RecvErr, &true)?;
    Ok(socket)
}

fn open(
    kind: Type,
    protocol: Option<Protocol>,
    source: Ipv4Addr,
    interface: Option<&str>,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, protocol)?;
    socket.set_nonblocking(true)?;
    // Before 5.7 this takes CAP_NET_RAW. Without it the route leads over the overlay all the
    // same, unless it is missing.
    match socket.bind_device(interface.map(str::as_bytes)) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        other => other?,
    }
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
    Ok(socket)
}

fn into_tokio(socket: Socket) -> io::Result<UdpSocket> {
    UdpSocket::from_std(socket.into())
}

/// Sends by the system call itself: Tokio sends nothing on a socket of which it has not yet heard that it may, as it
/// has of none that was registered just now.
pub(super) fn send(socket: &UdpSocket, bytes: &[u8], to: Ipv4Addr, port: u16) -> io::Result<()> {
    let to = SockaddrIn::from(SocketAddrV4::new(to, port));
    let send = || sendto(socket.as_raw_fd(), bytes, &to, MsgFlags::MSG_DONTWAIT);
    // The kernel reports the refusal of an earlier question to whoever sends next, once.
    for _ in 0..2 {
        match send() {
            Err(nix::errno::Errno::ECONNREFUSED) => {}
            other => return Ok(other.map(|_| ())?),
        }
    }
    Ok(send().map(|_| ())?)
}

/// Takes one message off the error queue, or a datagram nobody asked for. Whoever refused is
/// named if it is the host itself that says so.
fn read_refusal(socket: &UdpSocket) -> io::Result<Option<Ipv4Addr>> {
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    match recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut [], Some(&mut control), flags) {
        Ok(message) => {
            let refusal = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4RecvErr(error, Some(from))
                    if error.ee_origin == libc::SO_EE_ORIGIN_ICMP
                        && error.ee_type == ICMP_DESTINATION_UNREACHABLE =>
                {
                    Some(Ipv4Addr::from(from.sin_addr.s_addr.to_ne_bytes()))
                }
                _ => None,
            });
            Ok(refusal)
        }
        Err(nix::errno::Errno::EAGAIN) => {
            let mut buffer = [0; 1];
            let read =
                nix::sys::socket::recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
            read.map(|_| None).map_err(io::Error::from)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// A filter (classic BPF over the IPv4 packet) that lets in echo replies with this identifier
/// alone: a raw socket gets a copy of every ICMP packet otherwise, such as all the questions
/// of peers that probe this node.
pub(super) fn echo_replies(id: u16) -> [SockFilter; 7] {
    // BPF_LDX|BPF_B|BPF_MSH, BPF_LD|BPF_H|BPF_IND, BPF_JMP|BPF_JEQ|BPF_K and BPF_RET|BPF_K of
    // linux/bpf_common.h. Type and code are one half word, which is zero in a reply.
    const LOAD_HEADER_LENGTH: u16 = 0xb1;
    const LOAD_HALF: u16 = 0x48;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 0),
        SockFilter::new(LOAD_HALF, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, 0),
        SockFilter::new(LOAD_HALF, 0, 0, 4),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from(id)),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{runtime, time::timeout};

    use super::*;

    #[test]
    fn who_waits_on_a_socket_whose_tokio_runtime_has_ended_waits_and_does_not_spin() {
        let runtime = || runtime::Builder::new_current_thread().enable_all().build();
        let ended = runtime().unwrap();
        let socket = ended.block_on(async {
            ProbeSocket {
                echo: None,
                datagram: UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
                port: DISCARD_PORT,
                content: &[],
            }
        });
        drop(ended);
        let waited = runtime().unwrap().block_on(async {
            // One that spins lets no time pass.
            timeout(Duration::from_millis(50), socket.answer()).await
        });
        assert!(waited.is_err());
    }
}
