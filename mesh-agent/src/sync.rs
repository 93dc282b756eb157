//! The sync task: keeps the peers equal to what the control plane lists and the node's own
//! data plane hears.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use crate::{
    feed::Listed,
    node::Registration,
    peers::{
        KnownPeers, OwnNode, PeerSet, assess, judge, next_departure, peer_set, without_departed,
    },
    probe::Report,
    register::Revocation,
};

mod log;

use log::SyncLog;

/// How long peers stay that are not listed as up.
#[derive(Debug, Clone, Copy)]
pub struct Graces {
    /// One that is heard of neither in lists nor in the data plane.
    pub absent: Duration,
    /// One that deregistered and whose packets arrive.
    pub departure: Duration,
}

/// What the sync task learns from others.
#[derive(Debug)]
pub struct Sources {
    /// The node as registered.
    pub registration: watch::Receiver<Option<Registration>>,
    /// The node's address on the underlay.
    pub host_address: watch::Receiver<Ipv4Addr>,
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
    /// Asks for a list at once.
    pub lookup: watch::Sender<()>,
    /// Whether the control plane forgot this node.
    pub revocation: Revocation,
}

/// Makes peers of lists and reports until `stop`. Before the first usable list, and before
/// the runtime said whom it has, it publishes nothing: a restarted agent must not mistake
/// "not asked yet" for "no peers".
pub async fn run(graces: Graces, mut sources: Sources, results: Results, stop: CancellationToken) {
    let mut peers = Peers {
        known: KnownPeers::new(),
        graces,
        log: SyncLog::default(),
    };
    let Some(Report::Present(present)) = (tokio::select! {
        () = stop.cancelled() => return,
        report = sources.reports.recv() => report,
    }) else {
        return;
    };
    peers.known = present;
    loop {
        let registration = sources.registration.borrow_and_update().clone();
        let host_address = *sources.host_address.borrow_and_update();
        let listed = sources.listed.borrow_and_update().clone();
        if let (Some(registration), Some(listed)) = (registration, listed) {
            let own = OwnNode {
                node_id: registration.node_id,
                subnet: registration.subnet,
                host_address,
            };
            let usable = peers.take_list(&listed, &own);
            if usable {
                results.publish(&peers.known);
            } else if listed.epoch >= registration.epoch {
                results.revocation.revoke(registration.epoch);
            }
        }
        let mut departure = next_departure(&peers.known, graces.departure);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = at(departure) => {
                    departure = None;
                    results.lookup.send_replace(());
                    continue;
                }
                changed = sources.registration.changed() => if changed.is_err() { return },
                changed = sources.host_address.changed() => if changed.is_err() { return },
                changed = sources.listed.changed() => if changed.is_err() { return },
                report = sources.reports.recv() => {
                    let Some(report) = report else { return };
                    peers.take_report(&report);
                    if results.peers.borrow().is_some() {
                        results.publish(&peers.known);
                    }
                    continue;
                }
            }
            break;
        }
    }
}

/// Waits for a moment, if there is one to wait for.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

impl Results {
    fn publish(&self, known: &KnownPeers) {
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
    graces: Graces,
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
                let departure_grace = self.graces.departure;
                self.replace(without_departed(assessment.peers, now, departure_grace));
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
            let peers = judge(&self.known, verdicts, *asked, self.graces.absent);
            self.replace(peers);
        }
    }

    fn replace(&mut self, peers: KnownPeers) {
        self.log.changed(&self.known, &peers);
        self.known = peers;
    }
}
