//! Asks by echo requests of any size that may not be fragmented, and measures how long the answers take.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    time::{Instant as TokioInstant, timeout_at},
};

use crate::probe::{
    packet::{self, Mark},
    socket::{echo_replies, send},
};

/// Room for the largest reply.
const LONGEST: usize = 65_535;

/// A socket that is not yet registered with the Tokio runtime on which answers are waited for.
#[derive(Debug)]
pub(crate) struct OpenEcho {
    socket: Socket,
    mark: Mark,
}

impl OpenEcho {
    /// Opens one in the network namespace of this thread. Without an interface, questions go where routes lead.
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_NET_RAW; `EADDRNOTAVAIL`, `ENODEV`.
    pub(crate) fn open(source: Ipv4Addr, interface: Option<&str>) -> io::Result<Self> {
        let mark = Mark::random();
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        socket.attach_filter(&echo_replies(mark.id))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(interface.map(str::as_bytes))?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        forbid_fragments(&socket)?;
        Ok(Self { socket, mark })
    }

    /// What makes its questions its own.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Registers it with the current Tokio runtime.
    pub(super) fn register(self) -> io::Result<Echo> {
        Ok(Echo {
            // A raw socket in the type that Tokio has for datagrams.
            socket: UdpSocket::from_std(self.socket.into())?,
            mark: self.mark,
            next: 1,
            buffer: vec![0; LONGEST],
        })
    }
}

/// Sends packets with DF, and as large as the interface takes them: what the kernel has learnt of the way is what is to be
/// found out (`IP_PMTUDISC_PROBE`, ip(7)).
fn forbid_fragments(socket: &Socket) -> io::Result<()> {
    let value = libc::IP_PMTUDISC_PROBE;
    // SAFETY: the value is an int, which is what the option takes, and as long as said.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What is asked of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) to: Ipv4Addr,
    /// Of the IPv4 packet, in bytes.
    pub(super) size: u32,
}

/// What came of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// How often it was sent.
    pub(super) sent: u32,
    /// The answer: how long it took, and the sequence number that it was to.
    pub(super) answer: Option<(Duration, u16)>,
    /// Why the last attempt could not be sent.
    pub(super) error: Option<String>,
}

/// Asks.
#[derive(Debug)]
pub(super) struct Echo {
    socket: UdpSocket,
    mark: Mark,
    next: u16,
    buffer: Vec<u8>,
}

impl Echo {
    /// Asks all questions at once, those that are not answered within `wait` again, `attempts` times in all. Says what came
    /// of each, in their order.
    pub(super) async fn ask(
        &mut self,
        questions: &[Question],
        wait: Duration,
        attempts: u32,
    ) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::default(); questions.len()];
        let mut under_way: BTreeMap<u16, (usize, Instant)> = BTreeMap::new();
        for _ in 0..attempts {
            for (place, question) in questions.iter().enumerate() {
                let outcome = &mut outcomes[place];
                if outcome.answer.is_some() {
                    continue;
                }
                let sequence = self.next;
                self.next = self.next.wrapping_add(1);
                let packet = packet::request_of(self.mark, sequence, question.size as usize);
                outcome.sent += 1;
                // Before it is sent: the answer may be there before the call returns.
                under_way.insert(sequence, (place, Instant::now()));
                outcome.error = self.send(&packet, question.to).err();
            }
            let until = TokioInstant::now() + wait;
            let open = |outcomes: &[Outcome]| {
                outcomes
                    .iter()
                    .any(|it| it.answer.is_none() && it.error.is_none())
            };
            while open(&outcomes) {
                let Ok((from, sequence)) = timeout_at(until, self.reply()).await else {
                    break;
                };
                let now = Instant::now();
                if let Some(&(place, at)) = under_way.get(&sequence)
                    && questions[place].to == from
                    && outcomes[place].answer.is_none()
                {
                    outcomes[place].answer = Some((now - at, sequence));
                }
            }
            if outcomes.iter().all(|it| it.answer.is_some()) {
                break;
            }
        }
        outcomes
    }

    fn send(&self, packet: &[u8], to: Ipv4Addr) -> Result<(), String> {
        send(&self.socket, packet, to, 0).map_err(|error| error.to_string())
    }

    /// Waits for a reply. Cancel safe.
    async fn reply(&mut self) -> (Ipv4Addr, u16) {
        loop {
            match self.socket.recv(&mut self.buffer).await {
                Ok(length) => {
                    let echo = packet::echo(&self.buffer[..length], self.mark);
                    if let Some(echo) = echo.filter(|echo| echo.is_reply) {
                        return (echo.source, echo.sequence);
                    }
                }
                // The end of the Tokio runtime: nothing comes any more.
                Err(error) if error.raw_os_error().is_none() => std::future::pending().await,
                // Reading a pending error takes it away.
                Err(error) => {
                    tracing::debug!(name: "probe-socket-reports-error", %error, "a probe's socket reports an error")
                }
            }
        }
    }
}
