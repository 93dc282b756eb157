//! One request at a time, and how long its response takes.
//!
//! Both ends sleep until something arrives, as servers do.

use std::{
    io,
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    Path, SMALL, Window,
    cpus::{self, Cpus},
    udp_pair,
};
use crate::{dataplane::statistics, figure::microseconds};

/// A response later than this is none.
const PATIENCE: Duration = Duration::from_secs(2);
/// How soon the server notices that nobody asks any more.
const LOOK: Duration = Duration::from_millis(50);

/// Microseconds of an exchange.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Exchanges small datagrams over the path, both ends on one CPU, or on one each: then every
/// arrival has to wake a sleeping CPU, which takes a virtual machine longer than the network
/// takes for the packet.
pub(crate) fn exchange(
    path: &Path,
    cpus: &Cpus,
    one_cpu: bool,
    window: Window,
) -> anyhow::Result<Times> {
    let here = cpus.sending[0];
    let there = if one_cpu { here } else { cpus.receiving[0] };
    let (client, server) = udp_pair(path)?;
    client.set_read_timeout(Some(PATIENCE))?;
    server.set_read_timeout(Some(LOOK))?;
    let stop = AtomicBool::new(false);
    let times = thread::scope(|scope| {
        let serving = scope.spawn(|| {
            cpus::pin(there)?;
            serve(&server, &stop).context("the responding end failed")
        });
        let asking = scope.spawn(|| {
            cpus::pin(here)?;
            ask(&client, window).with_context(|| {
                format!(
                    "no response from {} to {}",
                    path.to_address,
                    path.from.name()
                )
            })
        });
        let times = asking.join();
        stop.store(true, Ordering::Relaxed);
        match (times, serving.join()) {
            (Ok(times), Ok(served)) => served.and(times),
            (Err(panic), _) | (_, Err(panic)) => std::panic::resume_unwind(panic),
        }
    })?;
    let at = |share| statistics::quantile(&times, share).context("no exchange was finished");
    Ok(Times {
        p50: at(0.5)?,
        p99: at(0.99)?,
    })
}

/// The microseconds of each exchange within the window.
fn ask(client: &UdpSocket, window: Window) -> io::Result<Vec<f64>> {
    let mut buffer = [0; SMALL];
    let mut times = Vec::with_capacity(1 << 16);
    let started = Instant::now();
    let measured_from = started + window.warm_up;
    let until = measured_from + window.measured;
    let mut before = started;
    while before < until {
        client.send(&[0x51; SMALL])?;
        client.recv(&mut buffer)?;
        let after = Instant::now();
        if before >= measured_from {
            times.push(microseconds(after - before));
        }
        before = after;
    }
    Ok(times)
}

fn serve(server: &UdpSocket, stop: &AtomicBool) -> io::Result<()> {
    let mut buffer = [0; SMALL];
    while !stop.load(Ordering::Relaxed) {
        match server.recv(&mut buffer) {
            Ok(length) => server.send(&buffer[..length]).map(drop)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
