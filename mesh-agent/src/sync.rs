//! The sync task: keeps the peers equal to what the control plane lists and the node's own
//! data plane hears.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    feed::Listed,
    measured::Measured,
    node::{Node, Registered},
    peers::{KnownPeers, OwnNode, PeerSet, assess, judge, peer_set},
    probe::Report,
    problems::Problems,
    register::Revocation,
};

mod claim;
mod log;

use claim::Claim;
use log::SyncLog;

/// What the sync task learns from others.
#[derive(Debug)]
pub struct Sources {
    /// The node as registered.
    pub registration: watch::Receiver<Option<Registered>>,
    /// The node's address on the underlay, once it is known.
    pub host_address: watch::Receiver<Option<Ipv4Addr>>,
    /// The node list.
    pub listed: watch::Receiver<Option<Listed>>,
    /// What the runtime says about the peers.
    pub reports: mpsc::Receiver<Report>,
}

/// What the sync task tells others.
#[derive(Debug)]
pub struct Results {
    /// The peers, once they are known.
    pub peers: watch::Sender<Option<Arc<PeerSet>>>,
    /// Those about whom the runtime is to be asked.
    pub doubtful: watch::Sender<BTreeSet<Ipv4Net>>,
    /// Whether the control plane forgot this node.
    pub revocation: Revocation,
    /// What is wrong.
    pub problems: Problems,
    /// What is measured.
    pub measured: Measured,
}

/// What woke the task up.
enum Woken {
    Stopped,
    /// The list, the registration or the node's address is another.
    Told,
    /// The runtime said something about the peers.
    Reported(Report),
}

/// Makes peers of lists and reports until `stop`. Before the first usable list, and before
/// the runtime said whom it has, it publishes nothing: a restarted agent must not mistake
/// "not asked yet" for "no peers".
///
/// A peer that is heard of neither in lists nor in the data plane stays for `absent_peer_grace`.
pub async fn run(
    absent_peer_grace: Duration,
    mut sources: Sources,
    results: Results,
    stop: CancellationToken,
) {
    let mut peers = Peers {
        known: KnownPeers::new(),
        absent_peer_grace,
        log: SyncLog::new(results.problems.clone()),
    };
    let Some(Report::Present(present)) = (tokio::select! {
        () = stop.cancelled() => return,
        report = sources.reports.recv() => report,
    }) else {
        return;
    };
    peers.known = present;
    let mut claim = Claim::default();
    let mut woken = Woken::Told;
    loop {
        match woken {
            Woken::Stopped => return,
            Woken::Told => {
                if let Some((listed, own, epoch)) = sources.told() {
                    let is_usable = peers.take_list(&listed, &own);
                    if is_usable {
                        results.publish(&peers.known);
                    }
                    // What was asked for before the registration says nothing about it.
                    if listed.epoch >= epoch {
                        let elsewhere = elsewhere(&listed, &own);
                        let is_first = claim.is_first();
                        let is_due = claim.is_due(elsewhere.is_some(), Instant::now());
                        if let Some(listed) = elsewhere.filter(|_| is_due && is_first) {
                            peers.log.elsewhere(listed, own.host_address);
                        }
                        if is_due || !is_usable {
                            results.revocation.revoke(epoch);
                        }
                    }
                }
            }
            Woken::Reported(report) => {
                peers.take_report(&report);
                if results.peers.borrow().is_some() {
                    results.publish(&peers.known);
                }
            }
        }
        woken = tokio::select! {
            () = stop.cancelled() => Woken::Stopped,
            woken = sources.next() => woken,
        };
    }
}

/// The address at which the list has this node, if that is another than it has: it has moved, and registers the new
/// address, or a copy of its host was taken for it.
fn elsewhere<'a>(listed: &'a Listed, own: &OwnNode) -> Option<&'a str> {
    let entry: &Node = listed.nodes.get(&own.node_id)?;
    let is_here = entry.host_ip.parse() == Ok(own.host_address);
    (!is_here).then_some(&entry.host_ip)
}

impl Sources {
    /// Waits for the next thing that is told. Cancel safe.
    async fn next(&mut self) -> Woken {
        let changed = tokio::select! {
            changed = self.registration.changed() => changed,
            changed = self.host_address.changed() => changed,
            changed = self.listed.changed() => changed,
            report = self.reports.recv() => return report.map_or(Woken::Stopped, Woken::Reported),
        };
        // Whoever tells ends with the agent.
        changed.map_or(Woken::Stopped, |()| Woken::Told)
    }

    /// The list, who this node is, and the epoch of its registration, once all are known.
    fn told(&mut self) -> Option<(Listed, OwnNode, u64)> {
        let registration = self.registration.borrow_and_update().clone();
        let host_address = *self.host_address.borrow_and_update();
        let listed = self.listed.borrow_and_update().clone();
        let registration = registration?;
        let own = OwnNode {
            node_id: registration.node_id,
            subnet: registration.subnet,
            host_address: host_address?,
        };
        Some((listed?, own, registration.epoch))
    }
}

impl Results {
    fn publish(&self, known: &KnownPeers) {
        self.measured.peers(known);
        let doubtful: BTreeSet<_> = known
            .iter()
            .filter(|(_, peer)| peer.doubt.is_some())
            .map(|(subnet, _)| *subnet)
            .collect();
        self.doubtful.send_if_modified(|published| {
            let news = *published != doubtful;
            *published = doubtful;
            news
        });
        let peers = peer_set(known);
        self.peers.send_if_modified(|published| {
            let news = published.as_deref() != Some(&peers);
            if news {
                *published = Some(Arc::new(peers));
            }
            news
        });
    }
}

#[derive(Debug)]
struct Peers {
    known: KnownPeers,
    absent_peer_grace: Duration,
    log: SyncLog,
}

impl Peers {
    /// Whether the list was about this cluster.
    fn take_list(&mut self, listed: &Listed, own: &OwnNode) -> bool {
        let (nodes, now) = (listed.nodes.values(), Instant::now());
        match assess(&self.known, nodes, &listed.removed, own, now) {
            Ok(assessment) => {
                self.log.usable();
                self.log.skipped(assessment.skipped);
                self.replace(assessment.peers);
                true
            }
            Err(unusable) => {
                self.log.unusable(&unusable);
                false
            }
        }
    }

    fn take_report(&mut self, report: &Report) {
        if let Report::Verdicts { asked, verdicts } = report {
            let peers = judge(&self.known, verdicts, *asked, self.absent_peer_grace);
            self.replace(peers);
        }
    }

    fn replace(&mut self, peers: KnownPeers) {
        self.log.changed(&self.known, &peers);
        self.known = peers;
    }
}
