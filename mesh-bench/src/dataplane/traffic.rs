//! Traffic between two places, and how much of it arrives.

pub(crate) mod bulk;
pub(crate) mod claim;
pub(crate) mod cpus;
pub(crate) mod flood;
pub(crate) mod request_response;

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use mesh_testbed::Entrance;

/// Bytes of UDP payload in a small packet.
pub(crate) const SMALL: usize = 64;

/// Where a flow starts and where it ends.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    pub(crate) from: Entrance,
    pub(crate) to: Entrance,
    pub(crate) to_address: Ipv4Addr,
}

/// How long traffic runs before it is measured, and how long it is measured then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// A counter that shares no cache line with another, so that counting on one CPU does not
/// slow the other one down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When nothing has arrived after this, nothing will.
const SILENCE: Duration = Duration::from_secs(5);

/// What the counters grow by per second within the window. A window in which nothing arrives,
/// because somebody else has the CPU, is made longer.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn rate<'a>(window: Window, counters: impl Fn() -> Vec<&'a Counter>) -> anyhow::Result<f64> {
    let read = || {
        let sum: u64 = counters().iter().map(|counter| counter.get()).sum();
        (sum, Instant::now())
    };
    thread::sleep(window.warm_up);
    let (before, started) = read();
    loop {
        thread::sleep(window.measured);
        let (after, ended) = read();
        let elapsed = ended - started;
        if after > before {
            return Ok((after - before) as f64 / elapsed.as_secs_f64());
        }
        ensure!(elapsed < SILENCE, "nothing arrived within {elapsed:?}");
    }
}

/// Two connected UDP sockets, the first at the path's start.
fn udp_pair(path: &Path) -> anyhow::Result<(UdpSocket, UdpSocket)> {
    let bind = |place: &Entrance, address| {
        place
            .run(|| UdpSocket::bind(SocketAddrV4::new(address, 0)))?
            .with_context(|| format!("cannot open a UDP socket in {}", place.name()))
    };
    let there = bind(&path.to, path.to_address)?;
    let here = bind(&path.from, Ipv4Addr::UNSPECIFIED)?;
    here.connect(there.local_addr()?)
        .with_context(|| format!("{} has no way to {}", path.from.name(), path.to_address))?;
    there.connect(here.local_addr()?)?;
    Ok((here, there))
}
