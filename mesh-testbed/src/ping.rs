//! ICMP echo (RFC 792) from inside a namespace.

use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    deadline::Deadline,
    error::{Error, Result},
    netns::NetNs,
};

const ECHO_REPLY: u8 = 0;
const DESTINATION_UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;

/// How a ping is run.
#[derive(Debug, Clone, Copy)]
pub struct PingOptions {
    /// How many requests are sent.
    pub count: u16,
    /// Time between two requests.
    pub interval: Duration,
    /// How long a reply is waited for after the last request.
    pub timeout: Duration,
    /// Bytes of ICMP payload; 28 bytes of headers come on top.
    pub payload: usize,
}

impl Default for PingOptions {
    fn default() -> Self {
        Self {
            count: 3,
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(1),
            payload: 56,
        }
    }
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// Answered after this time.
    Reply(Duration),
    /// Not answered in time.
    Lost,
    /// Could not be sent, or a router answered that it is unreachable (RFC 792 code).
    Unreachable,
}

/// What became of all requests, in the order they were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingReport {
    /// One entry per request.
    pub echoes: Vec<Echo>,
    /// Replies to a request that had been answered before.
    pub duplicates: u32,
}

impl PingReport {
    /// The round trip times of what was answered.
    pub fn round_trips(&self) -> impl Iterator<Item = Duration> + '_ {
        self.echoes.iter().filter_map(|echo| match echo {
            Echo::Reply(time) => Some(*time),
            Echo::Lost | Echo::Unreachable => None,
        })
    }

    /// How many requests were answered.
    pub fn received(&self) -> usize {
        self.round_trips().count()
    }

    /// Whether every request was answered, exactly once.
    pub fn is_complete(&self) -> bool {
        self.received() == self.echoes.len() && self.duplicates == 0
    }

    /// The median round trip time.
    pub fn median(&self) -> Option<Duration> {
        let mut times: Vec<Duration> = self.round_trips().collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }
}

/// Sends ICMP echo requests from a namespace and reports each one's fate.
///
/// # Errors
///
/// [`Error::Traffic`] when the socket cannot be used; lost packets are no error.
pub async fn ping(from: &NetNs, to: Ipv4Addr, options: PingOptions) -> Result<PingReport> {
    from.run_blocking(move || ping_here(to, options))
        .await?
        .map_err(|source| Error::Traffic {
            tool: "ping",
            from: from.name().into(),
            to: to.to_string(),
            source,
        })
}

/// Pings until the first answer, and returns how long that took.
///
/// # Errors
///
/// [`Error::Deadline`] when there is none in time.
pub async fn wait_reachable(from: &NetNs, to: Ipv4Addr, within: Duration) -> Result<Duration> {
    let once = PingOptions {
        count: 1,
        timeout: Duration::from_millis(100),
        ..PingOptions::default()
    };
    let started = Instant::now();
    let deadline = Deadline::after(within);
    loop {
        let report = ping(from, to, once).await?;
        if report.received() > 0 {
            return Ok(started.elapsed());
        }
        if deadline.pause().await.is_err() {
            let what = format!("an answer of {to} to {}", from.name());
            let state = format!("{:?}; look inside: {}", report.echoes, from.enter_command());
            return Err(deadline.missed(what, state));
        }
    }
}

fn ping_here(to: Ipv4Addr, options: PingOptions) -> io::Result<PingReport> {
    // Raw sockets see all ICMP of their namespace: the identifier tells runs apart.
    static NEXT_IDENTIFIER: AtomicU16 = AtomicU16::new(1);
    let identifier = NEXT_IDENTIFIER.fetch_add(1, Ordering::Relaxed);
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    let target = SocketAddrV4::new(to, 0).into();

    let mut report = PingReport {
        echoes: vec![Echo::Lost; options.count.into()],
        duplicates: 0,
    };
    let mut sent_at = Vec::with_capacity(options.count.into());
    let started = Instant::now();
    for sequence in 0..options.count {
        sent_at.push(Instant::now());
        match socket.send_to(
            &echo_request(identifier, sequence, options.payload),
            &target,
        ) {
            Ok(_) => {}
            Err(error) if is_unreachable(&error) => {
                report.echoes[usize::from(sequence)] = Echo::Unreachable;
            }
            Err(error) => return Err(error),
        }
        let is_last = sequence + 1 == options.count;
        let until = match is_last {
            true => Instant::now() + options.timeout,
            false => started + options.interval * (u32::from(sequence) + 1),
        };
        receive_until(
            until,
            &socket,
            to,
            identifier,
            &sent_at,
            &mut report,
            is_last,
        )?;
    }
    Ok(report)
}

fn receive_until(
    until: Instant,
    socket: &Socket,
    to: Ipv4Addr,
    identifier: u16,
    sent_at: &[Instant],
    report: &mut PingReport,
    stop_when_complete: bool,
) -> io::Result<()> {
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 1 << 16];
    loop {
        let open = report.echoes.contains(&Echo::Lost);
        let remaining = until.saturating_duration_since(Instant::now());
        if remaining.is_zero() || (stop_when_complete && !open) {
            return Ok(());
        }
        socket.set_read_timeout(Some(remaining))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if is_timeout(&error) || is_unreachable(&error) => continue,
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        // SAFETY: recv has initialised the first `length` bytes.
        let packet = unsafe { buffer[..length].assume_init_ref() };
        let Some((sequence, outcome)) = parse(packet, to, identifier) else {
            continue;
        };
        let index = usize::from(sequence);
        match (report.echoes.get(index), outcome) {
            (Some(Echo::Reply(_)), Outcome::Reply) => report.duplicates += 1,
            (Some(_), Outcome::Reply) if index < sent_at.len() => {
                report.echoes[index] = Echo::Reply(now - sent_at[index]);
            }
            (Some(Echo::Lost), Outcome::Unreachable) => report.echoes[index] = Echo::Unreachable,
            _ => {}
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Reply,
    Unreachable,
}

/// Reads an IPv4 packet as the answer to one of our requests: its sequence number.
fn parse(packet: &[u8], to: Ipv4Addr, identifier: u16) -> Option<(u16, Outcome)> {
    let (source, icmp) = icmp_of(packet)?;
    match *icmp.first()? {
        ECHO_REPLY if source == to => echo_sequence(icmp, identifier).map(|s| (s, Outcome::Reply)),
        DESTINATION_UNREACHABLE => {
            // Behind 8 bytes of header comes the packet that could not be delivered.
            let original = icmp_without_length_check(icmp.get(8..)?)?;
            let is_ours = *original.first()? == ECHO_REQUEST;
            is_ours.then_some(())?;
            echo_sequence(original, identifier).map(|s| (s, Outcome::Unreachable))
        }
        _ => None,
    }
}

fn icmp_of(packet: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some((source.into(), icmp_without_length_check(packet)?))
}

fn icmp_without_length_check(packet: &[u8]) -> Option<&[u8]> {
    let header_length = usize::from(packet.first()? & 0x0f) * 4;
    packet.get(header_length..)
}

fn echo_sequence(icmp: &[u8], identifier: u16) -> Option<u16> {
    let word = |at: usize| Some(u16::from_be_bytes(icmp.get(at..at + 2)?.try_into().ok()?));
    (word(4)? == identifier).then(|| word(6))?
}

fn echo_request(identifier: u16, sequence: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![ECHO_REQUEST, 0, 0, 0];
    packet.extend(identifier.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend((0..payload).map(|byte| byte.to_le_bytes()[0]));
    let checksum = internet_checksum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .fold(0, |sum, word| (sum + word) % 0xffff);
    if sum == 0xffff {
        sum = 0;
    }
    !u16::try_from(sum).unwrap_or_default()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
    ) || error.raw_os_error() == Some(libc::EMSGSIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_checks_out_like_any_internet_packet() {
        let packet = echo_request(0x1234, 7, 5);
        // A packet with its checksum in place sums up to nothing (RFC 1071, section 1).
        assert!(matches!(internet_checksum(&packet), 0 | 0xffff));
        assert_eq!(echo_sequence(&packet, 0x1234), Some(7));
        assert_eq!(echo_sequence(&packet, 0x1235), None);
    }

    #[test]
    fn a_reply_counts_only_from_the_pinged_address() {
        let to = Ipv4Addr::new(10, 42, 1, 2);
        let mut packet = vec![0x45; 20];
        packet[12..16].copy_from_slice(&to.octets());
        let mut icmp = echo_request(3, 9, 0);
        icmp[0] = ECHO_REPLY;
        packet.extend(icmp);
        assert_eq!(parse(&packet, to, 3), Some((9, Outcome::Reply)));
        assert_eq!(parse(&packet, Ipv4Addr::new(10, 42, 1, 3), 3), None);
        for length in 0..packet.len() {
            assert_eq!(
                parse(&packet[..length], to, 3).filter(|_| length < 28),
                None
            );
        }
    }
}
