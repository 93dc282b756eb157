//! A flow of numbered UDP datagrams, and what became of each.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    netns::NetNs,
};

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

/// A run of consecutive datagrams of which none arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// When the first of them was sent.
    pub from: Instant,
    /// When the next one that did arrive was sent; the end of the flow if there was none.
    pub until: Instant,
    /// How many they are, those that the sender's kernel refused included.
    pub packets: u64,
}

impl Outage {
    /// From the first datagram that did not arrive to the next one that did.
    pub fn duration(&self) -> Duration {
        self.until.saturating_duration_since(self.from)
    }
}

/// What became of the datagrams of a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpFlowReport {
    /// Handed to the kernel by the sender.
    pub sent: u64,
    /// Different ones that arrived.
    pub received: u64,
    /// Arrivals of one that had arrived before.
    pub duplicates: u64,
    /// Arrivals behind one with a higher number.
    pub reordered: u64,
    /// Arrivals with a changed payload.
    pub corrupted: u64,
    /// Sends that the kernel refused, e.g. for want of a route. Not counted as sent.
    pub refused: u64,
    /// The longest run of consecutive numbers of which none arrived.
    pub longest_gap: u64,
    /// Every run of datagrams that did not arrive, in order.
    pub outages: Vec<Outage>,
}

impl UdpFlowReport {
    /// Sent and never arrived.
    pub fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

/// A flow in progress. Dropping it stops it.
#[derive(Debug)]
pub struct UdpFlow {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<io::Result<Sent>>>,
    receiver: Option<JoinHandle<io::Result<Arrivals>>>,
    sender_done: Arc<AtomicBool>,
    from: String,
    to: String,
}

#[derive(Debug)]
struct Sent {
    /// When each number was sent.
    times: Vec<Instant>,
    refused: Vec<u64>,
    ended: Instant,
}

impl Sent {
    fn numbers(&self) -> u64 {
        self.times.len() as u64
    }
}

impl UdpFlow {
    /// Starts a flow from one namespace to an address of another.
    ///
    /// # Errors
    ///
    /// When the sockets or threads cannot be made.
    pub fn start(
        from: &NetNs,
        to: &NetNs,
        to_address: Ipv4Addr,
        options: UdpFlowOptions,
    ) -> Result<Self> {
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
        let sender = {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&sender_done));
            thread::Builder::new()
                .name("udp-send".into())
                .spawn(move || {
                    let sent = send(&outgoing, target, &stop, options);
                    done.store(true, Ordering::Release);
                    sent
                })
        }
        .map_err(failed)?;
        let receiver = {
            let done = Arc::clone(&sender_done);
            thread::Builder::new()
                .name("udp-receive".into())
                .spawn(move || receive(&incoming, &done, options))
        };
        let mut flow = Self {
            stop,
            sender: Some(sender),
            receiver: None,
            sender_done,
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

/// Each datagram: its number, the number's complement, then a pattern of the number.
fn datagram(number: u64, payload: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.max(16));
    bytes.extend(number.to_be_bytes());
    bytes.extend((!number).to_be_bytes());
    let pattern = number.to_le_bytes()[0];
    bytes.resize(payload.max(16), pattern);
    bytes
}

fn number_of(datagram: &[u8]) -> Option<u64> {
    let word = |at: usize| {
        Some(u64::from_be_bytes(
            datagram.get(at..at + 8)?.try_into().ok()?,
        ))
    };
    let number = word(0)?;
    let pattern = number.to_le_bytes()[0];
    let intact = word(8)? == !number && datagram[16..].iter().all(|byte| *byte == pattern);
    intact.then_some(number)
}

fn send(
    socket: &UdpSocket,
    to: std::net::SocketAddr,
    stop: &AtomicBool,
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
        next += interval;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(Sent {
        times,
        refused,
        ended: Instant::now(),
    })
}

/// What the receiver saw, by number.
#[derive(Debug, Default)]
struct Arrivals {
    seen: Vec<bool>,
    duplicates: u64,
    reordered: u64,
    corrupted: u64,
}

impl Arrivals {
    fn note(&mut self, datagram: &[u8], max_packets: u64) {
        let Some(number) = number_of(datagram).filter(|number| *number < max_packets) else {
            self.corrupted += 1;
            return;
        };
        let Ok(index) = usize::try_from(number) else {
            self.corrupted += 1;
            return;
        };
        if index >= self.seen.len() {
            self.seen.resize(index + 1, false);
        } else if self.seen[index] {
            self.duplicates += 1;
        } else {
            self.reordered += 1;
        }
        self.seen[index] = true;
    }
}

fn receive(socket: &UdpSocket, done: &AtomicBool, options: UdpFlowOptions) -> io::Result<Arrivals> {
    let mut arrivals = Arrivals::default();
    let mut buffer = vec![0; 1 << 16];
    let mut quiet_since = None;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => arrivals.note(&buffer[..length], options.max_packets),
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

fn report(sent: &Sent, arrivals: &Arrivals) -> UdpFlowReport {
    let arrived = |number: &u64| {
        usize::try_from(*number)
            .ok()
            .and_then(|index| arrivals.seen.get(index))
            .is_some_and(|seen| *seen)
    };
    let refused: std::collections::BTreeSet<u64> = sent.refused.iter().copied().collect();
    let mut gap = 0;
    let mut longest_gap = 0;
    for number in (0..sent.numbers()).filter(|number| !refused.contains(number)) {
        gap = if arrived(&number) { 0 } else { gap + 1 };
        longest_gap = longest_gap.max(gap);
    }
    UdpFlowReport {
        sent: sent.numbers() - refused.len() as u64,
        received: arrivals.seen.iter().filter(|seen| **seen).count() as u64,
        duplicates: arrivals.duplicates,
        reordered: arrivals.reordered,
        corrupted: arrivals.corrupted,
        refused: refused.len() as u64,
        longest_gap,
        outages: outages(sent, &arrivals.seen),
    }
}

/// Runs of numbers that did not arrive, whether lost or refused.
fn outages(sent: &Sent, seen: &[bool]) -> Vec<Outage> {
    let mut outages = Vec::new();
    let mut open: Option<Outage> = None;
    for (number, &time) in sent.times.iter().enumerate() {
        if seen.get(number).copied().unwrap_or(false) {
            outages.extend(open.take().map(|outage| Outage {
                until: time,
                ..outage
            }));
        } else {
            open.get_or_insert(Outage {
                from: time,
                until: sent.ended,
                packets: 0,
            })
            .packets += 1;
        }
    }
    outages.extend(open);
    outages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(numbers: &[u64]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for number in numbers {
            arrivals.note(&datagram(*number, 40), 100);
        }
        arrivals
    }

    #[test]
    fn every_datagram_is_accounted_for() {
        let start = Instant::now();
        let at = |number: u64| start + Duration::from_millis(number);
        let sent = Sent {
            times: (0..8).map(at).collect(),
            refused: vec![6],
            ended: at(8),
        };
        // 2, 3 and 7 are lost, 6 was never sent, 4 comes twice, 1 comes late.
        let report = report(&sent, &arrivals(&[0, 4, 1, 4, 5]));
        let expected = UdpFlowReport {
            sent: 7,
            received: 4,
            duplicates: 1,
            reordered: 1,
            corrupted: 0,
            refused: 1,
            longest_gap: 2,
            outages: vec![
                Outage {
                    from: at(2),
                    until: at(4),
                    packets: 2,
                },
                Outage {
                    from: at(6),
                    until: at(8),
                    packets: 2,
                },
            ],
        };
        assert_eq!(report, expected);
        assert_eq!(report.lost(), 3);
    }

    #[test]
    fn one_changed_byte_anywhere_is_noticed() {
        for at in 0..40 {
            let mut bytes = datagram(5, 40);
            bytes[at] ^= 1;
            assert_eq!(number_of(&bytes), None, "byte {at}");
        }
    }
}
