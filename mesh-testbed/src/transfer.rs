//! A TCP transfer whose content is checked at the end.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use socket2::{Domain, Socket, Type};

use crate::{
    entrance::Entrance,
    error::{Error, Result},
};

/// A finished transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes sent and received.
    pub bytes: usize,
    /// From the connection's start until the last byte had arrived, without the hashing.
    pub elapsed: Duration,
    /// SHA-256 of what was sent, in hexadecimal.
    pub sent_sha256: String,
    /// SHA-256 of what arrived.
    pub received_sha256: String,
}

impl Transfer {
    /// Whether every byte arrived as it was sent.
    pub fn is_intact(&self) -> bool {
        self.sent_sha256 == self.received_sha256
    }

    /// Throughput.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn bits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elapsed.as_secs_f64()
    }
}

/// Sends `bytes` pseudo-random bytes over one TCP connection from a namespace to an address
/// of another. Both sides hold all of them in memory.
///
/// # Errors
///
/// [`Error::Traffic`] when the connection fails, stalls beyond `within`, or ends early.
pub async fn transfer(
    from: &impl AsRef<Entrance>,
    to: &impl AsRef<Entrance>,
    to_address: Ipv4Addr,
    bytes: usize,
    within: Duration,
) -> Result<Transfer> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let failed = |source| Error::Traffic {
        tool: "TCP transfer",
        from: from.name().into(),
        to: to_address.to_string(),
        source,
    };
    let until = Instant::now() + within;
    let listener = to
        .run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddrV4::new(to_address, 0).into())?;
            socket.listen(1)?;
            Ok::<_, io::Error>(socket)
        })?
        .map_err(failed)?;
    let target = listener
        .local_addr()
        .map_err(failed)?
        .as_socket_ipv4()
        .ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
    let receiver = to.run_blocking(move || receive(&listener, bytes, until));
    let sender = from.run_blocking(move || send(target, bytes, until));
    let (received, sent) = futures_util::future::join(receiver, sender).await;
    // The sender's error names the cause; the receiver then only sees an early end.
    let (sent_sha256, started) = sent?.map_err(failed)?;
    let (received_sha256, ended) = received?.map_err(failed)?;
    Ok(Transfer {
        bytes,
        elapsed: ended.saturating_duration_since(started),
        sent_sha256,
        received_sha256,
    })
}

fn send(to: SocketAddrV4, bytes: usize, until: Instant) -> io::Result<(String, Instant)> {
    let content = pseudo_random(bytes, u64::from(to.port()));
    let sum = hex(&Sha256::digest(&content));
    let started = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to.into(), remaining(until)?)?;
    for chunk in content.chunks(1 << 18) {
        stream.set_write_timeout(Some(remaining(until)?))?;
        stream.write_all(chunk)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // Until the other side has closed, an early end could still be an error.
    stream.set_read_timeout(Some(remaining(until)?))?;
    let _ = stream.read(&mut [0; 1])?;
    Ok((sum, started))
}

fn receive(listener: &Socket, bytes: usize, until: Instant) -> io::Result<(String, Instant)> {
    // Linux applies the receive timeout to accept too (socket(7), SO_RCVTIMEO).
    listener.set_read_timeout(Some(remaining(until)?))?;
    let (stream, _) = listener.accept()?;
    let mut stream: TcpStream = stream.into();
    let mut content = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        stream.set_read_timeout(Some(remaining(until)?))?;
        match stream.read(&mut content[filled..])? {
            0 => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("only {filled} of {bytes} bytes arrived"),
                ));
            }
            length => filled += length,
        }
    }
    let ended = Instant::now();
    drop(stream);
    Ok((hex(&Sha256::digest(&content)), ended))
}

fn remaining(until: Instant) -> io::Result<Duration> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the deadline has passed",
        )),
        remaining => Ok(remaining),
    }
}

/// xorshift64*: bytes that no two offsets share, so that misplaced ones show.
fn pseudo_random(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1 << 63;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
