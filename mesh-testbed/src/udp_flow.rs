//! A flow of numbered UDP datagrams, and what became of each.

mod fate;

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    entrance::Entrance,
    error::{Error, Result},
};
use fate::{Arrivals, Sent, datagram, report};
pub use fate::{Outage, UdpFlowReport};

/// Bytes of the receiver's buffer: seconds of small datagrams.
const RECEIVE_BUFFER: usize = 8 << 20;

/// How fast, how big, how long.
#[derive(Debug, Clone, Copy)]
pub struct UdpFlowOptions {
    /// Datagrams per second.
    pub rate: u32,
    /// Bytes of UDP payload, at least 16.
    pub payload: usize,
    /// The flow ends by itself after this many datagrams.
    pub max_packets: u64,
    /// How long the receiver waits for stragglers after the sender has stopped.
    pub drain: Duration,
}

impl Default for UdpFlowOptions {
    fn default() -> Self {
        Self {
            rate: 1000,
            payload: 64,
            max_packets: 1_000_000,
            drain: Duration::from_millis(500),
        }
    }
}

/// A flow in progress. Dropping it stops it.
#[derive(Debug)]
pub struct UdpFlow {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<io::Result<Sent>>>,
    receiver: Option<JoinHandle<io::Result<Arrivals>>>,
    sender_done: Arc<AtomicBool>,
    progress: Arc<Progress>,
    from: String,
    to: String,
}

/// How far a flow in progress has come.
#[derive(Debug, Default)]
struct Progress {
    /// Numbers handed to the kernel or refused by it.
    sent: AtomicU64,
    /// One above the highest number that arrived; 0 before the first.
    arrived: AtomicU64,
}

impl UdpFlow {
    /// Starts a flow from one namespace to an address of another.
    ///
    /// # Errors
    ///
    /// When the sockets or threads cannot be made.
    pub fn start(
        from: &impl AsRef<Entrance>,
        to: &impl AsRef<Entrance>,
        to_address: Ipv4Addr,
        options: UdpFlowOptions,
    ) -> Result<Self> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let failed = |source| Error::Traffic {
            tool: "UDP flow",
            from: from.name().into(),
            to: to_address.to_string(),
            source,
        };
        let incoming = to
            .run(|| UdpSocket::bind(SocketAddrV4::new(to_address, 0)))?
            .map_err(failed)?;
        let target = incoming.local_addr().map_err(failed)?;
        // A pause of the receiving thread must not look like loss in the network. The forced
        // size is not bound by net.core.rmem_max; it needs the capability that we have anyway.
        nix::sys::socket::setsockopt(
            &incoming,
            nix::sys::socket::sockopt::RcvBufForce,
            &RECEIVE_BUFFER,
        )
        .map_err(|errno| failed(errno.into()))?;
        let outgoing = from
            .run(|| UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)))?
            .map_err(failed)?;

        let stop = Arc::new(AtomicBool::new(false));
        let sender_done = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Progress::default());
        let sender = {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&sender_done));
            let progress = Arc::clone(&progress);
            thread::Builder::new()
                .name("udp-send".into())
                .spawn(move || {
                    let sent = send(&outgoing, target, &stop, &progress, options);
                    done.store(true, Ordering::Release);
                    sent
                })
        }
        .map_err(failed)?;
        let receiver = {
            let (done, progress) = (Arc::clone(&sender_done), Arc::clone(&progress));
            thread::Builder::new()
                .name("udp-receive".into())
                .spawn(move || receive(&incoming, &done, &progress, options))
        };
        let mut flow = Self {
            stop,
            sender: Some(sender),
            receiver: None,
            sender_done,
            progress,
            from: from.name().into(),
            to: to_address.to_string(),
        };
        // On failure dropping the flow stops its sender.
        flow.receiver = Some(receiver.map_err(failed)?);
        Ok(flow)
    }

    /// Whether the sender has sent all it was to send.
    pub fn is_finished(&self) -> bool {
        self.sender_done.load(Ordering::Acquire)
    }

    /// How many datagrams have been sent so far; the next one has this number.
    pub fn sent(&self) -> u64 {
        self.progress.sent.load(Ordering::Acquire)
    }

    /// One above the highest number that has arrived so far; 0 before the first.
    pub fn arrived(&self) -> u64 {
        self.progress.arrived.load(Ordering::Acquire)
    }

    /// Stops the sender, waits for stragglers and reports.
    ///
    /// # Errors
    ///
    /// [`Error::Traffic`] when a socket failed for another reason than the network's state.
    pub async fn stop(mut self) -> Result<UdpFlowReport> {
        self.stop.store(true, Ordering::Release);
        let (sender, receiver) = (self.sender.take(), self.receiver.take());
        let joined = tokio::task::spawn_blocking(move || {
            let sent = sender.map(JoinHandle::join);
            let arrivals = receiver.map(JoinHandle::join);
            match (sent, arrivals) {
                (Some(Ok(sent)), Some(Ok(arrivals))) => Ok(report(&sent?, &arrivals?)),
                _ => Err(io::Error::other("a thread of the flow has ended early")),
            }
        })
        .await;
        joined
            .map_err(io::Error::other)
            .and_then(|result| result)
            .map_err(|source| Error::Traffic {
                tool: "UDP flow",
                from: self.from.clone(),
                to: self.to.clone(),
                source,
            })
    }
}

impl Drop for UdpFlow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn send(
    socket: &UdpSocket,
    to: std::net::SocketAddr,
    stop: &AtomicBool,
    progress: &Progress,
    options: UdpFlowOptions,
) -> io::Result<Sent> {
    let mut refused = Vec::new();
    let mut times = Vec::new();
    let interval = Duration::from_secs(1) / options.rate.max(1);
    let mut next = Instant::now();
    let mut number = 0;
    while number < options.max_packets && !stop.load(Ordering::Acquire) {
        times.push(Instant::now());
        match socket.send_to(&datagram(number, options.payload), to) {
            Ok(_) => {}
            // The network's state, which is what the flow is there to see.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(
                        libc::ENETUNREACH
                            | libc::EHOSTUNREACH
                            | libc::ENETDOWN
                            | libc::ECONNREFUSED
                            | libc::ENOBUFS
                            | libc::EMSGSIZE
                    )
                ) =>
            {
                refused.push(number);
            }
            Err(error) => return Err(error),
        }
        number += 1;
        progress.sent.store(number, Ordering::Release);
        next += interval;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(Sent {
        times,
        refused,
        ended: Instant::now(),
    })
}

fn receive(
    socket: &UdpSocket,
    done: &AtomicBool,
    progress: &Progress,
    options: UdpFlowOptions,
) -> io::Result<Arrivals> {
    let mut arrivals = Arrivals::default();
    let mut buffer = vec![0; 1 << 16];
    let mut quiet_since = None;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                arrivals.note(&buffer[..length], options.max_packets);
                let arrived = arrivals.seen.len() as u64;
                progress.arrived.store(arrived, Ordering::Release);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
        if done.load(Ordering::Acquire) {
            let since: Instant = *quiet_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= options.drain {
                return Ok(arrivals);
            }
        }
    }
}
