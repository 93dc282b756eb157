//! As many small packets as arrive.
//!
//! Senders keep a bounded number of datagrams in flight instead of drowning the receiver, so
//! what is measured is what the path carries, not what it can drop. Receivers poll and never
//! sleep, so no sender spends its time waking one up.

use std::{
    io,
    net::UdpSocket,
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    Counter, Path, SMALL, Window,
    cpus::{self, Cpus},
    rate, udp_pair,
};

/// Datagrams per system call.
const BATCH: usize = 32;
/// Datagrams of one flow on their way at any time: more than any CPU needs to stay busy,
/// less than the smallest queue on the way (a veth's ring of 256).
const IN_FLIGHT: u64 = 192;
/// When nothing has arrived for so long, what was in flight is lost.
const LOST: Duration = Duration::from_millis(20);

struct Flow {
    sender: UdpSocket,
    receiver: UdpSocket,
    received: Counter,
}

/// Packets per second that arrive over all paths together.
pub(crate) fn flood(paths: &[Path], cpus: &Cpus, window: Window) -> anyhow::Result<f64> {
    let flows: Vec<Flow> = paths
        .iter()
        .map(|path| {
            let (sender, receiver) = udp_pair(path)?;
            Ok(Flow {
                sender,
                receiver,
                received: Counter::default(),
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let share = |cpus: usize| flows.chunks(flows.len().div_ceil(cpus).max(1));
        let mut threads = Vec::new();
        for (flows, cpu) in share(cpus.receiving.len()).zip(&cpus.receiving) {
            let stop = &stop;
            threads.push(scope.spawn(move || {
                cpus::pin(*cpu)?;
                receive(flows, stop).context("a receiver of small packets failed")
            }));
        }
        for (flows, cpu) in share(cpus.sending.len()).zip(&cpus.sending) {
            let stop = &stop;
            threads.push(scope.spawn(move || {
                cpus::pin(*cpu)?;
                send(flows, stop).context("a sender of small packets failed")
            }));
        }
        let rate = rate(window, || flows.iter().map(|flow| &flow.received).collect());
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        rate
    })
}

fn send(flows: &[Flow], stop: &AtomicBool) -> io::Result<()> {
    let mut batch = Batch::new();
    let mut sent = vec![0_u64; flows.len()];
    let mut progress = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for (flow, sent) in flows.iter().zip(&mut sent) {
            // Less than none in flight: what was given up arrived after all.
            if sent.saturating_sub(flow.received.get()) + BATCH as u64 <= IN_FLIGHT {
                *sent += batch.send(&flow.sender)?;
                idle = false;
            }
        }
        if !idle {
            progress = Instant::now();
        } else if progress.elapsed() > LOST {
            for (flow, sent) in flows.iter().zip(&mut sent) {
                *sent = flow.received.get();
            }
        } else {
            // The CPU may have softirqs to run that it put off.
            thread::yield_now();
        }
    }
    Ok(())
}

fn receive(flows: &[Flow], stop: &AtomicBool) -> io::Result<()> {
    let mut batch = Batch::new();
    while !stop.load(Ordering::Relaxed) {
        for flow in flows {
            flow.received.add(batch.receive(&flow.receiver)?);
        }
    }
    Ok(())
}

/// The memory of one `sendmmsg` or `recvmmsg`. All messages share one buffer: nobody reads
/// what arrives.
struct Batch {
    _buffer: Box<[u8; SMALL]>,
    _vector: Box<libc::iovec>,
    messages: [libc::mmsghdr; BATCH],
}

impl Batch {
    fn new() -> Self {
        let mut buffer = Box::new([0x51; SMALL]);
        let mut vector = Box::new(libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: SMALL,
        });
        // SAFETY: all zeroes is a valid mmsghdr: no address, no vector, no control data.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for message in &mut messages {
            message.msg_hdr.msg_iov = &raw mut *vector;
            message.msg_hdr.msg_iovlen = 1;
        }
        Self {
            _buffer: buffer,
            _vector: vector,
            messages,
        }
    }

    /// Sends up to [`BATCH`] datagrams and returns how many the kernel took.
    fn send(&mut self, socket: &UdpSocket) -> io::Result<u64> {
        // SAFETY: every message points to the vector and it to the buffer, both of which this
        // value owns on the heap; the kernel only reads them and writes the lengths.
        let taken = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                0,
            )
        };
        count(taken, &[libc::EAGAIN, libc::ENOBUFS])
    }

    /// Takes up to [`BATCH`] datagrams that have arrived and returns how many.
    fn receive(&mut self, socket: &UdpSocket) -> io::Result<u64> {
        // SAFETY: as in `send`; the kernel writes at most the vector's length into the buffer.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        count(taken, &[libc::EAGAIN])
    }
}

/// What a system call answered; `none` are the errors that mean "nothing this time".
fn count(answer: libc::c_int, none: &[libc::c_int]) -> io::Result<u64> {
    u64::try_from(answer).or_else(|_| {
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(errno) if none.contains(&errno) => Ok(0),
            _ => Err(error),
        }
    })
}
