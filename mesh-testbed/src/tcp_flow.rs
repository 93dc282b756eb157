//! A long-lived TCP connection at a steady pace, whose bytes are checked as they arrive.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{
    error::{Error, Result},
    netns::NetNs,
};

/// How long a read or write blocks before its thread looks whether it is to end.
const TURN: Duration = Duration::from_millis(50);

/// How fast.
#[derive(Debug, Clone, Copy)]
pub struct TcpFlowOptions {
    /// Bytes of one write.
    pub chunk: usize,
    /// Time between two writes.
    pub interval: Duration,
}

impl Default for TcpFlowOptions {
    /// 3.2 MB/s.
    fn default() -> Self {
        Self {
            chunk: 1 << 15,
            interval: Duration::from_millis(10),
        }
    }
}

/// What became of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpFlowReport {
    /// Bytes the sender's kernel took.
    pub sent: u64,
    /// Bytes that arrived, in order and unchanged.
    pub received: u64,
    /// The longest time in which nothing arrived.
    pub longest_stall: Duration,
    /// What broke the connection, or the first byte that arrived changed.
    pub failure: Option<String>,
}

impl TcpFlowReport {
    /// Whether the connection lived to its end and every byte arrived as it was sent.
    pub fn is_intact(&self) -> bool {
        self.failure.is_none() && self.sent == self.received
    }
}

/// A connection in progress. Dropping it ends it.
#[derive(Debug)]
pub struct TcpFlow {
    stop: Arc<AtomicBool>,
    deadline: Arc<Mutex<Option<Instant>>>,
    sender: Option<JoinHandle<Side>>,
    receiver: Option<JoinHandle<Side>>,
    from: String,
    to: String,
}

/// What one end saw.
#[derive(Debug, Default)]
struct Side {
    bytes: u64,
    longest_stall: Duration,
    failure: Option<String>,
}

impl TcpFlow {
    /// Connects from one namespace to an address of another and starts to send.
    ///
    /// # Errors
    ///
    /// When the connection is not made within `within`.
    pub async fn start(
        from: &NetNs,
        to: &NetNs,
        to_address: Ipv4Addr,
        options: TcpFlowOptions,
        within: Duration,
    ) -> Result<Self> {
        let failed = |source| Error::Traffic {
            tool: "TCP flow",
            from: from.name().into(),
            to: to_address.to_string(),
            source,
        };
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
            .as_socket()
            .ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
        let outgoing = from
            .run_blocking(move || TcpStream::connect_timeout(&target, within))
            .await?
            .map_err(failed)?;
        // The handshake is over, so this does not block.
        let incoming: TcpStream = listener.accept().map_err(failed)?.0.into();
        for stream in [&outgoing, &incoming] {
            stream.set_read_timeout(Some(TURN)).map_err(failed)?;
            stream.set_write_timeout(Some(TURN)).map_err(failed)?;
        }
        let mut flow = Self {
            stop: Arc::default(),
            deadline: Arc::default(),
            sender: None,
            receiver: None,
            from: from.name().into(),
            to: to_address.to_string(),
        };
        let (stop, deadline) = (Arc::clone(&flow.stop), Arc::clone(&flow.deadline));
        let spawn = |name: &str| thread::Builder::new().name(name.into());
        flow.receiver = Some(
            spawn("tcp-receive")
                .spawn(move || receive(incoming, &deadline))
                .map_err(failed)?,
        );
        let deadline = Arc::clone(&flow.deadline);
        flow.sender = Some(
            spawn("tcp-send")
                .spawn(move || send(outgoing, options, &stop, &deadline))
                .map_err(failed)?,
        );
        Ok(flow)
    }

    /// Stops sending, waits until the rest has arrived, and reports. A connection that does
    /// not deliver everything within `within` has failed.
    ///
    /// # Errors
    ///
    /// [`Error::Traffic`] when a thread panicked.
    pub async fn stop(mut self, within: Duration) -> Result<TcpFlowReport> {
        self.end(within);
        let (sender, receiver) = (self.sender.take(), self.receiver.take());
        let joined = tokio::task::spawn_blocking(move || {
            let join = |side: Option<JoinHandle<Side>>| side.and_then(|side| side.join().ok());
            Some((join(sender)?, join(receiver)?))
        })
        .await;
        let (sent, received) = joined.ok().flatten().ok_or_else(|| Error::Traffic {
            tool: "TCP flow",
            from: self.from.clone(),
            to: self.to.clone(),
            source: io::Error::other("a thread of the flow has panicked"),
        })?;
        Ok(TcpFlowReport {
            sent: sent.bytes,
            received: received.bytes,
            longest_stall: received.longest_stall,
            // What the receiver saw of bytes comes before what the sender saw of the end.
            failure: received.failure.or(sent.failure),
        })
    }

    fn end(&self, within: Duration) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Instant::now() + within);
        self.stop.store(true, Ordering::Release);
    }
}

impl Drop for TcpFlow {
    fn drop(&mut self) {
        if self.sender.is_some() {
            self.end(Duration::ZERO);
        }
    }
}

fn is_over(deadline: &Mutex<Option<Instant>>) -> bool {
    let deadline = deadline.lock().unwrap_or_else(PoisonError::into_inner);
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}

fn is_turn(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// The byte at this offset: no two blocks of 251 bytes within 64 KiB are alike.
fn byte_at(offset: u64) -> u8 {
    (offset % 251 + offset / 251 % 241).to_le_bytes()[0]
}

fn send(
    mut stream: TcpStream,
    options: TcpFlowOptions,
    stop: &AtomicBool,
    deadline: &Mutex<Option<Instant>>,
) -> Side {
    let mut side = Side::default();
    let mut next = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let chunk: Vec<u8> = (side.bytes..).take(options.chunk).map(byte_at).collect();
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(length) => {
                    side.bytes += length as u64;
                    rest = &rest[length..];
                }
                // A connection that is stalled when it is to end waits no longer to send.
                Err(error) if is_turn(&error) && !stop.load(Ordering::Acquire) => {}
                Err(error) if is_turn(&error) => break,
                Err(error) => {
                    side.failure = Some(format!("the sender after {} bytes: {error}", side.bytes));
                    return side;
                }
            }
        }
        next = (next + options.interval).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    // Ends the stream; what is under way still arrives. The other side closes when it has all.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    while !is_over(deadline) {
        match stream.read(&mut [0; 1]) {
            Err(error) if is_turn(&error) => {}
            _ => break,
        }
    }
    side
}

fn receive(mut stream: TcpStream, deadline: &Mutex<Option<Instant>>) -> Side {
    let mut side = Side::default();
    let mut buffer = vec![0; 1 << 16];
    let mut last = Instant::now();
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => return side,
            Ok(length) => length,
            Err(error) if is_turn(&error) && !is_over(deadline) => continue,
            Err(error) if is_turn(&error) => {
                side.failure = Some(format!(
                    "the rest did not arrive in time after {} bytes, silent for {:.1} s",
                    side.bytes,
                    last.elapsed().as_secs_f64()
                ));
                return side;
            }
            Err(error) => {
                side.failure = Some(format!("the receiver after {} bytes: {error}", side.bytes));
                return side;
            }
        };
        side.longest_stall = side.longest_stall.max(last.elapsed());
        last = Instant::now();
        for (offset, &byte) in (side.bytes..).zip(&buffer[..length]) {
            if byte != byte_at(offset) {
                side.failure = Some(format!("the byte at {offset} arrived changed"));
                return side;
            }
        }
        side.bytes += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_stream_differs_within_a_block() {
        for shift in [1, 250, 251, 1448, 4096, 1 << 15] {
            let differs = (0..1000).any(|offset| byte_at(offset) != byte_at(offset + shift));
            assert!(differs, "{shift}");
        }
    }
}
