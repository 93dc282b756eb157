//! One log line per change of the peers.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, time::Instant};

use ipnet::Ipv4Net;
use mesh_problems::catalog::agent::FOREIGN_NODE_LIST;
use tracing::{debug, info, warn};

use crate::{
    excerpt::Excerpt,
    peers::{Cause, KnownPeer, KnownPeers, Skip, UnusableList},
    problems::Problems,
    reasons::Reasons,
    tally::{Line, Tally},
};

/// More changes than this at one time are logged as one line.
const LOGGED_CHANGES: usize = 16;

/// What the sync task said already.
#[derive(Debug)]
pub(super) struct SyncLog {
    problems: Problems,
    unusable: Reasons<()>,
    skipped: BTreeMap<String, Skip>,
    /// Those among them that were not said yet, by the rule that they break.
    broken: BTreeMap<&'static str, (&'static str, Tally)>,
}

impl SyncLog {
    pub(super) fn new(problems: Problems) -> Self {
        Self {
            problems,
            unusable: Reasons::default(),
            skipped: BTreeMap::new(),
            broken: BTreeMap::new(),
        }
    }

    pub(super) fn usable(&mut self) {
        if self.unusable.resolve(&()) {
            info!(name: "node-list-about-cluster-again", "the node list is about this cluster again");
        }
        self.problems.clear(&FOREIGN_NODE_LIST);
    }

    pub(super) fn unusable(&mut self, list: &UnusableList) {
        if self.unusable.note((), &list.to_string()) {
            warn!(name: "node-list-not-about-cluster",
                code = FOREIGN_NODE_LIST.code,
                reason = %list,
                "the node list is not about this cluster; the peers stay as they are, registering again"
            );
            self.problems.raise(&FOREIGN_NODE_LIST, list.to_string());
        }
    }

    /// Once; the registrations that follow have lines of their own.
    pub(super) fn elsewhere(&self, listed: &str, own: Ipv4Addr) {
        info!(name: "control-plane-lists-node-another",
            listed = %Excerpt(listed), %own,
            "the control plane lists this node at another address than it has; registering again"
        );
    }

    pub(super) fn skipped(&mut self, skipped: BTreeMap<String, Skip>) {
        let news = skipped
            .iter()
            .filter(|(node_id, skip)| self.skipped.get(*node_id) != Some(skip));
        for (node_id, skip) in news {
            let (_, tally) = self
                .broken
                .entry(skip.rule())
                .or_insert_with(|| (skip.kind().code, Tally::default()));
            tally.add(|| format!("{}: {skip}", Excerpt(node_id)));
        }
        let now = Instant::now();
        for (rule, (code, tally)) in &mut self.broken {
            if let Some(Line { count, examples }) = tally.line(now) {
                warn!(name: "listed-nodes-no-peers", code, rule, count, %examples, "listed nodes are no peers");
            }
        }
        for kind in Skip::KINDS {
            let of_kind = skipped.iter().filter(|(_, skip)| skip.kind() == kind);
            let having_it = of_kind.map(|(node_id, skip)| {
                fmt::from_fn(move |f| write!(f, "{}: {skip}", Excerpt(node_id)))
            });
            self.problems.set(kind, having_it);
        }
        self.skipped = skipped;
    }

    pub(super) fn changed(&mut self, before: &KnownPeers, after: &KnownPeers) {
        let changes = changes(before, after);
        if changes.len() > LOGGED_CHANGES {
            info!(name: "peers-changed",
                changes = changes.len(),
                peers = after.len(),
                "peers changed; --log-level debug names them"
            );
        }
        for change in &changes {
            change.log(changes.len() <= LOGGED_CHANGES);
        }
    }
}

/// What became of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Joined,
    Left,
    Replaced,
    Moved,
    Doubted,
    Suspect,
    Confirmed,
}

#[derive(Debug)]
struct Change<'a> {
    event: Event,
    subnet: Ipv4Net,
    /// As it is now, or was last.
    peer: &'a KnownPeer,
    /// As it was before it moved or was replaced.
    before: Option<&'a KnownPeer>,
}

impl Change<'_> {
    fn log(&self, at_info: bool) {
        let node = Excerpt(&self.peer.peer.hostname);
        let (subnet, host_address) = (self.subnet, self.peer.peer.host_address);
        let before = self.before.map(|before| before.peer.host_address);
        let before = before.map(tracing::field::display);
        let listed = self.peer.doubt.as_ref().map(|doubt| match doubt.cause() {
            Cause::Down => "down",
            Cause::Absent => "not at all",
        });
        // A message is a constant of the macro, and so is a level.
        macro_rules! line {
            ($name:literal, $message:literal) => {
                if at_info {
                    info!(name: $name, %node, %subnet, %host_address, before, listed, $message)
                } else {
                    debug!(name: $name, %node, %subnet, %host_address, before, listed, $message)
                }
            };
        }
        match self.event {
            Event::Joined => line!("peer-joined", "peer joined"),
            Event::Left => line!("peer-left", "peer left"),
            Event::Replaced => line!(
                "peer-replaced",
                "peer replaced: another node has its subnet"
            ),
            Event::Moved => line!("peer-moved", "peer moved"),
            Event::Doubted => line!(
                "peer-in-doubt",
                "peer in doubt: kept while the data plane is asked"
            ),
            Event::Suspect => line!(
                "peer-suspect",
                "peer suspect: its packets arrive, so it is kept"
            ),
            Event::Confirmed => line!("peer-confirmed", "peer confirmed again"),
        }
    }
}

/// One entry for each peer that joined, left, moved, came into doubt or out of it.
fn changes<'a>(before: &'a KnownPeers, after: &'a KnownPeers) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    for (subnet, old) in before {
        let Some(new) = after.get(subnet) else {
            changes.push(Change {
                event: Event::Left,
                subnet: *subnet,
                peer: old,
                before: None,
            });
            continue;
        };
        let Some(event) = event(old, new) else {
            continue;
        };
        changes.push(Change {
            event,
            subnet: *subnet,
            peer: new,
            before: matches!(event, Event::Moved | Event::Replaced).then_some(old),
        });
    }
    for (subnet, peer) in after.iter().filter(|(s, _)| !before.contains_key(*s)) {
        changes.push(Change {
            event: Event::Joined,
            subnet: *subnet,
            peer,
            before: None,
        });
    }
    changes
}

fn event(old: &KnownPeer, new: &KnownPeer) -> Option<Event> {
    if old.node_id.is_some() && new.node_id != old.node_id {
        Some(Event::Replaced)
    } else if new.peer.host_address != old.peer.host_address {
        Some(Event::Moved)
    } else if new.is_suspect() && !old.is_suspect() {
        Some(Event::Suspect)
    } else if new.doubt.is_some() && old.doubt.is_none() {
        Some(Event::Doubted)
    } else if new.doubt.is_none() && old.doubt.is_some() {
        Some(Event::Confirmed)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Peer;

    fn known(entries: &[(&str, &str, &str)]) -> KnownPeers {
        entries
            .iter()
            .map(|(subnet, node_id, address)| {
                let peer = Peer {
                    host_address: address.parse().unwrap(),
                    hostname: format!("host-{node_id}"),
                    mtu: None,
                };
                let known = KnownPeer {
                    node_id: Some((*node_id).to_owned()),
                    peer,
                    doubt: None,
                };
                (subnet.parse().unwrap(), known)
            })
            .collect()
    }

    #[test]
    fn each_change_is_one_line_and_no_change_is_none() {
        let before = known(&[
            ("10.42.2.0/24", "b", "192.0.2.2"),
            ("10.42.3.0/24", "c", "192.0.2.3"),
            ("10.42.4.0/24", "d", "192.0.2.4"),
        ]);
        let after = known(&[
            ("10.42.3.0/24", "c", "192.0.2.33"),
            ("10.42.4.0/24", "e", "192.0.2.5"),
            ("10.42.6.0/24", "f", "192.0.2.6"),
        ]);
        let lines: Vec<_> = changes(&before, &after)
            .iter()
            .map(|change| {
                (
                    change.event,
                    change.subnet.to_string(),
                    change.peer.name().to_owned(),
                )
            })
            .collect();
        let line = |event, subnet: &str, node: &str| (event, subnet.to_owned(), node.to_owned());
        assert_eq!(
            lines,
            [
                line(Event::Left, "10.42.2.0/24", "b"),
                line(Event::Moved, "10.42.3.0/24", "c"),
                line(Event::Replaced, "10.42.4.0/24", "e"),
                line(Event::Joined, "10.42.6.0/24", "f"),
            ]
        );
        assert!(changes(&after, &after).is_empty());
    }
}
