//! Between messages of `mesh.MeshInspect` about ways to peers and what they stand for.

use std::{
    net::Ipv4Addr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use mesh_problems::Problem;
use mesh_proto::mesh::{
    self, PathFinding, PathLeg, PathSubject, PingRequest, ProbePathRequest, ping_event::Event,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::probe::path::{
    PathResult, Terms,
    ask::Asker,
    judge::{PeerFacts, is_fine},
    questions::USUAL_SIZE,
    run::{PingEvent, PingTerms, ping},
    seen::{Answer, CarriedBy, HostSeen, Leg},
    target::Subject,
};

/// How often is asked where the caller names nothing.
const USUAL_COUNT: u32 = 5;
/// How often at most.
const MAX_COUNT: u32 = 10_000;
/// Where the caller names no time between two questions, or none for an answer.
const USUAL_TIME: u32 = 1000;
/// The shortest and the longest time between two questions, in milliseconds.
const INTERVALS: [u32; 2] = [100, 60_000];
/// The shortest and the longest wait for an answer, in milliseconds.
const TIMEOUTS: [u32; 2] = [10, 10_000];
/// The shortest packet: headers, and room for what makes it known again.
const SHORTEST: u32 = 44;
/// By when all have to be asked, in milliseconds: the usual, the shortest, the longest.
const DEADLINES: [u32; 3] = [20_000, 500, 60_000];
/// The most targets of one call.
const MAX_TARGETS: usize = 65_536;
/// The longest target: a host name.
const MAX_TARGET: usize = 253;

/// Events that wait for a caller that reads slowly.
const EVENTS: usize = 4;

pub(super) fn number(
    what: &str,
    given: u32,
    usual: u32,
    [least, most]: [u32; 2],
) -> Result<u32, Status> {
    match given {
        0 => Ok(usual),
        _ if (least..=most).contains(&given) => Ok(given),
        _ => Err(Status::invalid_argument(format!(
            "{what} {given} is not between {least} and {most}"
        ))),
    }
}

fn millis(milliseconds: u32) -> Duration {
    Duration::from_millis(milliseconds.into())
}

fn check_target(target: &str) -> Result<(), Status> {
    match target.len() {
        0 => Err(Status::invalid_argument(
            "target is empty: name a peer or an address of the overlay",
        )),
        length if length > MAX_TARGET => Err(Status::invalid_argument(format!(
            "target has {length} bytes, at most {MAX_TARGET} are taken"
        ))),
        _ => Ok(()),
    }
}

/// What a ping is to do. Its size is checked by [`fit`].
pub(super) fn ping_terms(request: &PingRequest) -> Result<PingTerms, Status> {
    check_target(&request.target)?;
    let interval = number("interval_ms", request.interval_ms, USUAL_TIME, INTERVALS)?;
    let timeout = number("timeout_ms", request.timeout_ms, USUAL_TIME, TIMEOUTS)?;
    Ok(PingTerms {
        count: number("count", request.count, USUAL_COUNT, [1, MAX_COUNT])?,
        interval: millis(interval),
        size: request.size,
        timeout: millis(timeout),
    })
}

/// Checks the size of a ping's packets, which may not be fragmented.
pub(super) fn fit(terms: &mut PingTerms, mtu: u32) -> Result<(), Status> {
    if terms.size > mtu {
        return Err(Status::invalid_argument(format!(
            "size {} is more than containers can send: the overlay's MTU is {mtu}",
            terms.size
        )));
    }
    terms.size = number("size", terms.size, USUAL_SIZE, [SHORTEST, mtu])?;
    Ok(())
}

/// How many ways are to be asked, and by when.
pub(super) fn look_terms(request: &ProbePathRequest) -> Result<(Terms, Duration), Status> {
    if request.targets.len() > MAX_TARGETS {
        return Err(Status::invalid_argument(format!(
            "{} targets are given, at most {MAX_TARGETS} are taken",
            request.targets.len()
        )));
    }
    request.targets.iter().try_for_each(|it| check_target(it))?;
    let [usual, least, most] = DEADLINES;
    let deadline = number("deadline_ms", request.deadline_ms, usual, [least, most])?;
    let timeout = number("timeout_ms", request.timeout_ms, USUAL_TIME, TIMEOUTS)?;
    let terms = Terms {
        timeout: millis(timeout),
        search: !request.without_mtu,
    };
    Ok((terms, millis(deadline)))
}

/// The events of a ping, which ends when they are dropped.
#[derive(Debug)]
pub struct PingStream {
    first: Option<mesh::PingEvent>,
    events: ReceiverStream<PingEvent>,
    task: JoinHandle<()>,
    _permit: OwnedSemaphorePermit,
}

impl PingStream {
    pub(super) fn begin(asker: Asker, terms: PingTerms, permit: OwnedSemaphorePermit) -> Self {
        let (events, receiver) = mpsc::channel(EVENTS);
        let subject = subject(asker.subject(), asker.peer(), asker.source());
        Self {
            first: Some(mesh::PingEvent {
                event: Some(Event::Subject(subject)),
            }),
            events: ReceiverStream::new(receiver),
            task: tokio::spawn(ping(asker, terms, events)),
            _permit: permit,
        }
    }
}

impl Drop for PingStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stream for PingStream {
    type Item = Result<mesh::PingEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let event = ready!(self.events.poll_next_unpin(context));
        Poll::Ready(event.map(|event| Ok(message(event))))
    }
}

fn message(event: PingEvent) -> mesh::PingEvent {
    let event = match event {
        PingEvent::Pong { sequence, answer } => Event::Pong(pong(sequence, answer)),
        PingEvent::Result(result) => Event::Result(result_of(&result)),
    };
    mesh::PingEvent { event: Some(event) }
}

fn pong(sequence: u32, answer: Result<Option<Answer>, String>) -> mesh::Pong {
    let mut pong = mesh::Pong {
        sequence,
        ..mesh::Pong::default()
    };
    match answer {
        Ok(Some(answer)) => {
            pong.answered = true;
            pong.round_trip_ns = nanos(answer.round_trip);
            pong.set_out(carried_by(answer.out));
            pong.set_in(carried_by(answer.back));
        }
        Ok(None) => {}
        Err(reason) => pong.error = reason,
    }
    pong
}

/// The result of a way that was asked along.
pub(super) fn result_of(result: &PathResult) -> mesh::PathResult {
    let (without_fast_path, peer_mtu) = match &result.peer {
        Some(peer) => (peer.without_fast_path.clone(), peer.mtu),
        None => (None, None),
    };
    let of_peer = result.peer.is_some();
    mesh::PathResult {
        subject: Some(subject(
            &result.subject,
            result.peer.as_ref(),
            result.source,
        )),
        error: String::new(),
        ok: is_fine(&result.findings),
        container: Some(leg(&result.container)),
        kernel: of_peer.then(|| leg(&result.kernel)),
        underlay: result
            .peer
            .as_ref()
            .map(|peer| underlay(&result.host, peer)),
        without_fast_path: without_fast_path.unwrap_or_default(),
        mtu: result.mtu,
        peer_mtu: peer_mtu.unwrap_or_default(),
        findings: result.findings.iter().map(finding).collect(),
    }
}

/// The result of a way of which nothing is known.
pub(super) fn unknown(target: String, error: String) -> mesh::PathResult {
    mesh::PathResult {
        subject: Some(PathSubject {
            target,
            ..PathSubject::default()
        }),
        error,
        ..mesh::PathResult::default()
    }
}

fn subject(subject: &Subject, peer: Option<&PeerFacts>, source: Ipv4Addr) -> PathSubject {
    let text = |value: Option<String>| value.unwrap_or_default();
    let subnet = text(subject.peer.map(|subnet| subnet.to_string()));
    let hostname = text(
        peer.map(|peer| peer.name.clone())
            .filter(|name| *name != subnet),
    );
    PathSubject {
        target: subject.target.clone(),
        address: subject.address.to_string(),
        host_address: text(peer.and_then(|peer| peer.host).map(|host| host.to_string())),
        subnet,
        hostname,
        source: source.to_string(),
        probe_endpoint: subject.probe_endpoint,
    }
}

fn leg(leg: &Leg) -> PathLeg {
    let [min, median, max] = leg.round_trips();
    PathLeg {
        sent: leg.sent,
        answered: leg.answered(),
        round_trip_min_ns: nanos(min),
        round_trip_median_ns: nanos(median),
        round_trip_max_ns: nanos(max),
        carried_by: carried_by(leg.carried_by()).into(),
        largest: leg.largest.unwrap_or_default(),
        error: leg.error.clone().unwrap_or_default(),
    }
}

fn underlay(host: &HostSeen, peer: &PeerFacts) -> mesh::Underlay {
    mesh::Underlay {
        answered: host.round_trip.is_some(),
        round_trip_ns: nanos(host.round_trip.unwrap_or_default()),
        largest: host.largest.unwrap_or_default(),
        port_unserved: host.unserved,
        interface: peer.interface.clone(),
        error: host.error.clone().unwrap_or_default(),
    }
}

fn finding(problem: &Problem) -> PathFinding {
    let kind = problem.kind;
    PathFinding {
        code: kind.code.to_owned(),
        severity: kind.severity.to_string(),
        observed: problem.observed.clone(),
        breaks: kind.breaks.to_owned(),
        remedy: problem.remedy().into_owned(),
        title: kind.title.to_owned(),
    }
}

fn carried_by(path: CarriedBy) -> mesh::CarriedBy {
    match path {
        CarriedBy::Unknown => mesh::CarriedBy::Unknown,
        CarriedBy::FastPath => mesh::CarriedBy::FastPath,
        CarriedBy::KernelPath => mesh::CarriedBy::KernelPath,
        CarriedBy::Both => mesh::CarriedBy::Both,
        CarriedBy::Bridge => mesh::CarriedBy::Bridge,
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_usual_and_what_is_out_of_bounds_is_refused_with_the_bounds() {
        let request = |change: fn(&mut PingRequest)| {
            let mut request = PingRequest {
                target: "host2".to_owned(),
                ..PingRequest::default()
            };
            change(&mut request);
            request
        };
        let terms = |change| {
            let mut terms = ping_terms(&request(change))?;
            fit(&mut terms, 1450)?;
            Ok::<_, Status>(terms)
        };
        let expected = PingTerms {
            count: 5,
            interval: Duration::from_secs(1),
            size: 84,
            timeout: Duration::from_secs(1),
        };
        assert_eq!(terms(|_| ()).unwrap(), expected);
        for (change, words) in [
            (
                (|it| it.target.clear()) as fn(&mut PingRequest),
                "target is empty",
            ),
            (|it| it.target = "x".repeat(254), "at most 253"),
            (|it| it.count = 10_001, "between 1 and 10000"),
            (
                |it| it.interval_ms = 99,
                "interval_ms 99 is not between 100 and 60000",
            ),
            (|it| it.timeout_ms = 10_001, "between 10 and 10000"),
            (|it| it.size = 43, "size 43 is not between 44 and 1450"),
            (|it| it.size = 1451, "the overlay's MTU is 1450"),
        ] {
            let refusal = terms(change).unwrap_err();
            assert!(refusal.message().contains(words), "{refusal}");
        }
    }

    #[test]
    fn a_call_for_many_has_a_deadline_within_bounds() {
        let (terms, deadline) = look_terms(&ProbePathRequest::default()).unwrap();
        assert!(terms.search);
        assert_eq!(deadline, Duration::from_secs(20));
        for deadline_ms in [499, 60_001] {
            let request = ProbePathRequest {
                deadline_ms,
                ..ProbePathRequest::default()
            };
            assert!(look_terms(&request).is_err(), "{deadline_ms}");
        }
    }
}
