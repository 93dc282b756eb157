//! The call `Monitor`: what becomes of packets, as it happens.

use std::{
    pin::Pin,
    sync::atomic::Ordering,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{Stream, stream};
use mesh_proto::mesh::{MonitorEvent, MonitorRequest, MonitorResponse, monitor_event::Verdict};
use nix::time::{ClockId, clock_gettime};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    ask::ask,
    command::{Command, Commands},
    monitor_event::Names,
};
use crate::{
    ebpf::listeners::Told,
    reconcile::monitor::{Look, Looking},
};

/// Monitors at a time: each has room for a thousand events.
pub(super) const MONITORS: usize = 4;

/// Events in one message.
const BATCH: usize = 64;

/// A message comes at least so often: what is not told of is counted, also while nothing is.
const PULSE: Duration = Duration::from_secs(1);

/// The answers.
pub(crate) type Monitored = Pin<Box<dyn Stream<Item = Result<MonitorResponse, Status>> + Send>>;

/// Begins to look. It ends with the stream, or when the runtime does.
pub(super) async fn begin(
    commands: &Commands,
    request: MonitorRequest,
    (permit, ending): (OwnedSemaphorePermit, CancellationToken),
) -> Result<Monitored, Status> {
    let look = Look {
        drops_only: request.drops_only,
        peer: request.peer,
    };
    let drops_only = look.drops_only;
    let looking = ask(commands, |reply| Command::Monitor { look, reply })
        .await?
        .map_err(|refusal| Status::invalid_argument(refusal.to_string()))?;
    let reading = Reading {
        looking,
        drops_only,
        first: true,
        ending,
        _permit: permit,
    };
    let answers = stream::unfold(reading, |mut reading| async move {
        let response = reading.next().await?;
        Some((Ok(response), reading))
    });
    Ok(Box::pin(answers))
}

/// One who looks.
struct Reading {
    looking: Looking,
    drops_only: bool,
    first: bool,
    ending: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    /// The next message; `None` when nobody tells any more.
    async fn next(&mut self) -> Option<MonitorResponse> {
        if std::mem::take(&mut self.first) {
            return Some(MonitorResponse {
                notes: std::mem::take(&mut self.looking.notes),
                ..MonitorResponse::default()
            });
        }
        let mut told = Vec::with_capacity(BATCH);
        let some = self.looking.told.recv_many(&mut told, BATCH);
        tokio::select! {
            () = self.ending.cancelled() => return None,
            some = tokio::time::timeout(PULSE, some) => if let Ok(0) = some {
                return None;
            },
        }
        let seen = self.looking.seen.borrow().clone();
        let clock = Clock::read();
        let events = told
            .iter()
            .map(|told| match told {
                Told::Packet(event) => seen.names.of_program(event, clock.unix(event.time_ns)),
                Told::Rule(drops) => Names::of_rule(drops, clock.unix(clock.monotonic)),
            })
            .filter(|event| self.wants(event))
            .collect();
        Some(MonitorResponse {
            events,
            not_sampled: seen.untold.over_budget,
            lost: seen.untold.lost + self.looking.missed.load(Ordering::Relaxed),
            notes: Vec::new(),
        })
    }

    /// Whether it is what this one looks at: the programs tell what all together do.
    fn wants(&self, event: &MonitorEvent) -> bool {
        let peer = self.looking.peer.map(|peer| peer.to_string());
        (!self.drops_only || event.verdict() == Verdict::Dropped)
            && peer.is_none_or(|peer| event.peer == peer)
    }
}

/// The programs' clock and the calendar's, read together, in nanoseconds.
struct Clock {
    monotonic: u64,
    unix: u64,
}

impl Clock {
    fn read() -> Self {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            monotonic: monotonic.map_or(0, |time| nanoseconds(time.into())),
            unix: unix.map_or(0, nanoseconds),
        }
    }

    /// A moment of the programs' clock by the calendar.
    fn unix(&self, monotonic: u64) -> u64 {
        let ago = self.monotonic.saturating_sub(monotonic);
        self.unix.saturating_sub(ago)
    }
}
