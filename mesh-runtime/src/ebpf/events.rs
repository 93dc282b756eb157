//! What the programs have to say: sampled drops, what whoever looks asked for, and their log where it is switched on.

use std::{net::Ipv6Addr, os::fd::AsFd, ptr, sync::Arc, time::Duration};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use aya_log::EbpfLogger;
use mesh_layout::{DropReason, EVENT_DROP, EVENT_VERSION, EventProgram, PacketEvent, VERDICT_DROP};
use tokio::{io::unix::AsyncFd, sync::Notify, task::JoinSet, time::Instant};

use super::{
    FastPathError,
    listeners::{Listeners, Told},
};

/// At most so many drops become log lines per [`LOG_PERIOD`]; the counters have them all.
const LOG_BUDGET: u32 = 10;
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// The tasks that read; dropping them ends them.
#[derive(Debug)]
pub(super) struct EventReader {
    _tasks: JoinSet<()>,
}

impl EventReader {
    /// Starts reading. Must be called within a Tokio runtime with I/O and time enabled.
    ///
    /// Whoever waits for the first of `whom` is woken by every drop that is reported; the others are told of everything.
    pub(super) fn start(
        ebpf: &mut Ebpf,
        drops: RingBuf<MapData>,
        whom: (Arc<Notify>, Listeners),
        log_programs: bool,
    ) -> Result<Self, FastPathError> {
        let mut tasks = JoinSet::new();
        let drops = register(drops)?;
        tasks.spawn(read_events(drops, whom));
        if log_programs {
            let logger =
                EbpfLogger::init(ebpf).map_err(|error| FastPathError::Events(error.to_string()))?;
            let logger = register(logger)?;
            tasks.spawn(read_log(logger));
        }
        Ok(Self { _tasks: tasks })
    }
}

fn register<T: AsFd + std::os::fd::AsRawFd>(inner: T) -> Result<AsyncFd<T>, FastPathError> {
    // SAFETY: the descriptor is that of the map, which `inner` owns and never exchanges.
    unsafe { AsyncFd::register(inner) }.map_err(|error| FastPathError::Events(error.to_string()))
}

async fn read_log(mut logger: AsyncFd<EbpfLogger<&'static dyn log::Log>>) {
    while let Ok(mut guard) = logger.readable_mut().await {
        guard.get_inner_mut().flush();
        guard.clear_ready();
    }
}

async fn read_events(
    mut events: AsyncFd<RingBuf<MapData>>,
    (dropped, listeners): (Arc<Notify>, Listeners),
) {
    let mut period = Instant::now();
    let mut budget = LOG_BUDGET;
    while let Ok(mut guard) = events.readable_mut().await {
        if period.elapsed() >= LOG_PERIOD {
            period = Instant::now();
            budget = LOG_BUDGET;
        }
        let mut drops = false;
        while let Some(item) = guard.get_inner_mut().next() {
            let Some(event) = parse(&item) else { continue };
            drops |= event.verdict == VERDICT_DROP;
            // The others were asked for, and not for the log.
            if event.kind == EVENT_DROP && budget > 0 {
                budget -= 1;
                log_drop(&event);
            }
            listeners.tell(&Told::Packet(event));
        }
        guard.clear_ready();
        if drops {
            dropped.notify_one();
        }
    }
}

/// The event in a ring buffer entry, or `None` if the entry is of another length or version.
fn parse(bytes: &[u8]) -> Option<PacketEvent> {
    if bytes.len() != size_of::<PacketEvent>() {
        return None;
    }
    // SAFETY: the length was checked, every byte pattern is a PacketEvent, and an unaligned read
    // asks for no alignment.
    let event: PacketEvent = unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) };
    (event.version == EVENT_VERSION).then_some(event)
}

fn log_drop(event: &PacketEvent) {
    let reason = DropReason::ALL
        .iter()
        .find(|reason| **reason as u32 == event.reason)
        .map_or("unknown", |reason| reason.name());
    let program = EventProgram::ALL
        .iter()
        .find(|program| **program as u8 == event.program)
        .map_or("unknown", |program| program.name());
    let address = |bytes: [u8; 16]| Ipv6Addr::from(bytes).to_canonical();
    tracing::warn!(name: "dropped-packet",
        reason,
        program,
        outer_source = %address(event.outer_source),
        outer_destination = %address(event.outer_destination),
        inner_source = %address(event.inner_source),
        inner_destination = %address(event.inner_destination),
        protocol = event.protocol,
        source_port = event.source_port,
        destination_port = event.destination_port,
        vni = event.vni,
        length = event.length,
        link = event.link,
        "dropped a packet (sampled)"
    );
}

#[cfg(test)]
mod tests {
    use mesh_layout::mapped;

    use super::*;

    #[test]
    fn an_event_survives_the_way_through_bytes_and_other_lengths_are_refused() {
        let event = PacketEvent {
            time_ns: 7,
            version: EVENT_VERSION,
            kind: EVENT_DROP,
            program: EventProgram::Decapsulate as u8,
            verdict: VERDICT_DROP,
            reason: DropReason::UnknownVtep as u32,
            link: 2,
            length: 148,
            vni: 100,
            source_port: 7777,
            destination_port: 4444,
            protocol: 17,
            pad: [0; 7],
            outer_source: mapped([192, 0, 2, 9]),
            outer_destination: mapped([192, 0, 2, 1]),
            inner_source: mapped([10, 42, 2, 5]),
            inner_destination: mapped([10, 42, 1, 5]),
        };
        // SAFETY: repr(C) without padding (checked in mesh-layout).
        let bytes: [u8; size_of::<PacketEvent>()] = unsafe { std::mem::transmute(event) };
        assert_eq!(parse(&bytes), Some(event));
        assert_eq!(parse(&bytes[1..]), None);
        let later = PacketEvent {
            version: EVENT_VERSION + 1,
            ..event
        };
        // SAFETY: as above.
        let bytes: [u8; size_of::<PacketEvent>()] = unsafe { std::mem::transmute(later) };
        assert_eq!(parse(&bytes), None, "of another version");
    }
}
