//! Asks along one way, at most as long as its terms say.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    Ground, PathResult, Terms,
    echo::{Echo, OpenEcho, Question},
    judge::{ENCAPSULATION, PeerFacts, SMALLEST, Way, judge},
    questions::{Asked, ask_host, ask_overlay, ask_port, is_unserved, largest, search},
    refusals::Refusals,
    seen::{Answer, CarriedBy},
    target::Subject,
    witness::Witness,
};
use crate::{
    api::{
        ask::ask,
        command::{Command, Commands},
    },
    probe::OpenProbeSocket,
    wanted::subnet::gateway,
};
use ipnet::Ipv4Net;

/// What the programs have counted of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FastCounts {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// A way that can be asked along.
pub(crate) struct Asker {
    commands: Commands,
    subject: Subject,
    peer: Option<PeerFacts>,
    source: Ipv4Addr,
    mtu: u32,
    no_endpoint: Option<String>,
    container: Result<Echo, String>,
    witness: Option<Witness>,
    kernel: Result<Echo, String>,
    host: Result<Echo, String>,
    port: Option<OpenProbeSocket>,
    refusals: Option<Refusals>,
    /// As of the last question.
    counts: FastCounts,
}

impl Asker {
    /// On the Tokio runtime on which it will ask.
    pub(crate) fn new(commands: Commands, ground: Ground) -> Self {
        let register = |socket: Result<OpenEcho, String>| {
            socket.and_then(|it| it.register().map_err(|error| error.to_string()))
        };
        let Ground {
            subject,
            peer,
            source,
            mtu,
            no_endpoint,
            sockets,
        } = ground;
        Self {
            commands,
            subject,
            peer,
            source,
            mtu,
            no_endpoint,
            container: register(sockets.container),
            witness: sockets.witness,
            kernel: register(sockets.kernel),
            host: register(sockets.host),
            port: sockets.port.ok(),
            refusals: sockets.refusals,
            counts: FastCounts::default(),
        }
    }

    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    pub(crate) fn peer(&self) -> Option<&PeerFacts> {
        self.peer.as_ref()
    }

    pub(crate) fn source(&self) -> Ipv4Addr {
        self.source
    }

    pub(crate) fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Asks once, as containers send where that can be had, and else by the kernel path.
    ///
    /// # Errors
    ///
    /// Why it could not be sent.
    pub(crate) async fn ping(
        &mut self,
        size: u32,
        wait: Duration,
    ) -> Result<Option<Answer>, String> {
        let question = Question {
            to: self.subject.address,
            size,
        };
        let as_container = self.container.is_ok();
        if as_container {
            self.counts = self.count().await;
        }
        let asked = match &mut self.container {
            Ok(echo) => Ok(echo),
            Err(_) => self.kernel.as_mut().map_err(|reason| reason.clone()),
        };
        let outcomes = asked?.ask(&[question], wait, 1).await;
        let Some(outcome) = outcomes.into_iter().next() else {
            return Ok(None);
        };
        match (outcome.answer, outcome.error) {
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
            (Some((round_trip, sequence)), _) => Ok(Some(match as_container {
                true => self.carried(round_trip, sequence).await,
                false => self.by_kernel(round_trip),
            })),
        }
    }

    /// Asks by every way, and judges. `asked`: how often it was asked before, and how often that was answered.
    pub(crate) async fn look(mut self, terms: Terms, asked: Option<(u32, u32)>) -> PathResult {
        let address = self.subject.address;
        let gateway = self.subject.peer.map(gateway);
        self.counts = self.count().await;
        let host = self.peer.as_ref().and_then(|peer| peer.host);
        let port = ask_port(self.port.take(), host);
        let (container, kernel, host_seen) = tokio::join!(
            ask_overlay(&mut self.container, address, gateway, terms.timeout),
            async {
                match gateway {
                    Some(_) => ask_overlay(&mut self.kernel, address, gateway, terms.timeout).await,
                    None => Asked::default(),
                }
            },
            ask_host(&mut self.host, host, terms.timeout),
        );
        let mut container_leg = container.leg();
        if let Some((round_trip, sequence)) = container.answer {
            let answer = self.carried(round_trip, sequence).await;
            container_leg.answers.push(answer);
        }
        let mut kernel_leg = kernel.leg();
        if let Some((round_trip, _)) = kernel.answer {
            kernel_leg.answers.push(self.by_kernel(round_trip));
        }
        let mut host_seen = host_seen;
        let legs = [&container_leg, &kernel_leg];
        let silent = legs
            .iter()
            .all(|leg| leg.answers.is_empty() && !leg.gateway);
        if silent && let Some(host) = host {
            let heard = self.refusals.as_ref().is_some_and(Refusals::heard);
            host_seen.unserved = heard || is_unserved(port, host, terms.timeout / 4).await;
        }
        let mut way = Way {
            address: Some(address),
            probe_endpoint: self.subject.probe_endpoint,
            peer: self.peer.clone(),
            no_endpoint: self.no_endpoint.clone(),
            mtu: self.mtu,
            asked,
            searched: terms.search,
            ..Way::default()
        };
        if terms.search {
            let top = way.expected_mtu();
            let ((by_container, by_kernel), by_host) = tokio::join!(
                async {
                    // They share the peer's patience, and mostly the way.
                    let one = largest(&mut self.container, address, &container_leg, top).await;
                    let other = largest(&mut self.kernel, address, &kernel_leg, top).await;
                    (one, other)
                },
                async {
                    let round_trip = host_seen.round_trip?;
                    let (bottom, top) = (SMALLEST + ENCAPSULATION, top + ENCAPSULATION);
                    search(&mut self.host, host?, bottom, top, round_trip).await
                }
            );
            container_leg.largest = by_container;
            kernel_leg.largest = by_kernel;
            host_seen.largest = by_host;
        }
        way.container = container_leg;
        way.kernel = kernel_leg;
        way.host = host_seen;
        let findings = judge(&way);
        PathResult {
            subject: self.subject,
            peer: self.peer,
            source: self.source,
            mtu: self.mtu,
            container: way.container,
            kernel: way.kernel,
            host: way.host,
            findings,
        }
    }

    /// What carried an answered question that was sent from the endpoint for probes.
    async fn carried(&mut self, round_trip: Duration, sequence: u16) -> Answer {
        if self.subject.peer.is_none() {
            return self.by_bridge(round_trip);
        }
        let Some(witness) = &mut self.witness else {
            return Answer {
                round_trip,
                out: CarriedBy::Unknown,
                back: CarriedBy::Unknown,
            };
        };
        let (request, reply) = witness.saw(sequence);
        let before = self.counts;
        let now = match request && reply {
            true => before,
            false => self.count().await,
        };
        Answer {
            round_trip,
            out: CarriedBy::of(request, now.sent > before.sent),
            back: CarriedBy::of(reply, now.received > before.received),
        }
    }

    /// What was sent over the VXLAN device takes the kernel path, and to an address of this node the bridge. The answer is
    /// for this host itself, to which programs leave packets.
    fn by_kernel(&self, round_trip: Duration) -> Answer {
        match self.subject.peer {
            Some(_) => Answer {
                round_trip,
                out: CarriedBy::KernelPath,
                back: CarriedBy::KernelPath,
            },
            None => self.by_bridge(round_trip),
        }
    }

    fn by_bridge(&self, round_trip: Duration) -> Answer {
        Answer {
            round_trip,
            out: CarriedBy::Bridge,
            back: CarriedBy::Bridge,
        }
    }

    async fn count(&self) -> FastCounts {
        let Some(peer): Option<Ipv4Net> = self.subject.peer else {
            return FastCounts::default();
        };
        let counts = ask(&self.commands, |reply| Command::FastCounts { peer, reply });
        counts.await.unwrap_or_default()
    }
}
