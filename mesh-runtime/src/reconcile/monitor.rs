//! Those who look at what becomes of packets: the loop switches it on for the programs while there are any, and reads
//! what our rules drop.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use ipnet::Ipv4Net;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use super::{FastPathSlot, Reconciler};
use crate::{
    api::{
        command::Refusal,
        monitor_event::{Names, Seen},
    },
    apply::firewall::rule_drops::{self, RuleCounts},
    ebpf::{
        listeners::{Listener, RuleDrops, Told},
        watch::{Untold, Watched},
    },
    wanted::peer_named::peer_named,
};

/// Events that one who looks may be behind.
const ROOM: usize = 1024;

/// The time between two readings of what our rules drop, and of what the programs did not tell of.
const PACE: Duration = Duration::from_secs(1);

/// How long the programs tell without being told to go on.
const LONGEST: Duration = Duration::from_secs(4);

/// What somebody asks to look at.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) drops_only: bool,
    /// As the caller wrote it; empty for all peers.
    pub(crate) peer: String,
}

/// What one who looks reads.
#[derive(Debug)]
pub(crate) struct Looking {
    pub(crate) told: mpsc::Receiver<Told>,
    /// How many events found no room in `told`.
    pub(crate) missed: Arc<AtomicU64>,
    /// What is known beside them.
    pub(crate) seen: watch::Receiver<Arc<Seen>>,
    /// The one peer that is asked about.
    pub(crate) peer: Option<Ipv4Net>,
    /// What is not seen here.
    pub(crate) notes: Vec<String>,
    /// Says when it ends.
    _end: End,
}

/// Says when it is dropped.
#[derive(Debug)]
struct End(Arc<Notify>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Those who look.
#[derive(Debug, Default)]
pub(super) struct Monitors {
    all: Vec<Monitor>,
    /// Notified when one ends.
    ended: Arc<Notify>,
    /// When the next reading is due, while anybody looks.
    due: Option<Instant>,
    /// The rules' counters when they were read last.
    counts: Option<RuleCounts>,
}

#[derive(Debug)]
struct Monitor {
    listener: Listener,
    /// Whether the programs' events reach it.
    listens: bool,
    watched: Watched,
    seen: watch::Sender<Arc<Seen>>,
    /// What had not been told of when it began.
    before: Untold,
}

impl Monitors {
    /// When there is something to do; `None` while nobody looks.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Notified when one of those who look ends.
    pub(super) fn ended(&self) -> Arc<Notify> {
        Arc::clone(&self.ended)
    }
}

impl Reconciler {
    /// Lets somebody look.
    pub(super) fn begin_monitor(&mut self, look: &Look) -> Result<Looking, Refusal> {
        let peer = match look.peer.as_str() {
            "" => None,
            text => Some(peer_named(text, &self.wanted.peers).map_err(Refusal::because)?),
        };
        let watched = Watched {
            carried: !look.drops_only,
            only: peer.map(|subnet| subnet.network()),
        };
        let (listener, told) = Listener::new(ROOM);
        let missed = listener.missed();
        let before = self.untold();
        let (sender, seen) = watch::channel(Arc::new(Seen {
            names: self.names(),
            untold: Untold::default(),
        }));
        let mut notes = Vec::new();
        match &self.fast_path {
            FastPathSlot::Open(_) => {}
            FastPathSlot::Unavailable(reason) => notes.push(format!(
                "no programs on this node ({reason}): only what our rules drop is seen"
            )),
            FastPathSlot::Unopened | FastPathSlot::Opening(_) => {
                notes.push("the programs are being loaded: they tell in a moment".to_owned());
            }
        }
        self.monitors.all.push(Monitor {
            listener,
            listens: false,
            watched,
            seen: sender,
            before,
        });
        if self.monitors.counts.is_none() {
            match rule_drops::read() {
                Ok(counts) => self.monitors.counts = Some(counts),
                Err(error) => notes.push(format!("what our rules drop cannot be read: {error}")),
            }
        }
        self.switch().map_err(Refusal::because)?;
        Ok(Looking {
            told,
            missed,
            seen,
            peer,
            notes,
            _end: End(self.monitors.ended()),
        })
    }

    /// Goes on for those who still look: once a second, and when one has ended.
    pub(super) fn go_on_monitoring(&mut self) {
        self.monitors.all.retain(|one| !one.listener.is_gone());
        if let Err(error) = self.switch() {
            tracing::warn!(name: "cannot-tell-programs-who-looks", %error, "cannot tell the programs who looks at packets");
        }
        if self.monitors.all.is_empty() {
            self.monitors.counts = None;
            return;
        }
        self.tell_of_rules();
        let (names, untold) = (self.names(), self.untold());
        for one in &self.monitors.all {
            let since = |now: u64, before: u64| now.saturating_sub(before);
            let untold = Untold {
                over_budget: since(untold.over_budget, one.before.over_budget),
                lost: since(untold.lost, one.before.lost),
            };
            let names = Arc::clone(&names);
            // Who has gone meanwhile is found out the next time.
            let _ = one.seen.send(Arc::new(Seen { names, untold }));
        }
    }

    /// Nobody is told of anything any more: the runtime ends.
    pub(super) fn end_monitoring(&mut self) {
        self.monitors.all.clear();
        // If not, it ends by itself in seconds.
        if self.monitors.due.is_some() {
            let _ = self.switch();
        }
    }

    /// Has the programs tell what those who look ask for.
    fn switch(&mut self) -> Result<(), crate::ebpf::FastPathError> {
        let watched = self.monitors.all.iter().map(|one| one.watched);
        let watched = watched.reduce(Watched::and);
        self.monitors.due = watched.map(|_| Instant::now() + PACE);
        match &mut self.fast_path {
            FastPathSlot::Open(open) => {
                for one in self.monitors.all.iter_mut().filter(|one| !one.listens) {
                    open.fast_path.listen(one.listener.clone());
                    one.listens = true;
                }
                open.fast_path.watch(watched, LONGEST)
            }
            _ => Ok(()),
        }
    }

    fn tell_of_rules(&mut self) {
        let after = match rule_drops::read() {
            Ok(after) => after,
            // The next reading has what this one would have had.
            Err(error) => {
                tracing::debug!(name: "cannot-read-what-our-rules", %error, "cannot read what our rules drop");
                return;
            }
        };
        let before = self.monitors.counts.replace(after.clone());
        for (id, count) in rule_drops::between(&before.unwrap_or_default(), &after) {
            let rule = self.firewall.rule(id.family, &count.chain, count.place);
            let told = Told::Rule(RuleDrops {
                family: id.family,
                chain: count.chain,
                rule: rule.unwrap_or_default(),
                packets: count.packets,
            });
            for one in &self.monitors.all {
                one.listener.tell(told.clone());
            }
        }
    }

    fn untold(&self) -> Untold {
        match &self.fast_path {
            FastPathSlot::Open(open) => open.fast_path.untold().unwrap_or_default(),
            _ => Untold::default(),
        }
    }

    fn names(&self) -> Arc<Names> {
        let links = self.observed.links.iter();
        let underlay = self.desired.underlay.as_ref();
        Arc::new(Names {
            host_address: underlay.map(|it| it.address).or(self.wanted.host_address),
            peers: Arc::clone(&self.wanted.peers),
            links: links
                .map(|(index, link)| (*index, link.name.clone()))
                .collect(),
        })
    }
}
