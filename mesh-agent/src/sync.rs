//! The sync task: keeps the known peers equal to what the control plane lists.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    control_plane::ControlPlane,
    excerpt::Excerpt,
    node::Registration,
    peers::{Assessment, KnownPeers, OwnNode, Skip, UnusableList, assess},
    reasons::Reasons,
    register::Revocation,
};

/// More changes than this in one sync are logged as one line.
const LOGGED_CHANGES: usize = 16;

/// What the sync task needs to know.
#[derive(Debug, Clone)]
pub struct SyncSettings {
    /// Time between two lists.
    pub interval: Duration,
    /// How long a peer stays that no list says anything usable about.
    pub grace: Duration,
    /// This node's address on the underlay.
    pub host_address: Ipv4Addr,
}

/// Fetches the node list every interval and publishes the peers when they change. Before
/// the first usable list it publishes nothing, so that a restarted agent does not mistake
/// "not asked yet" for "no peers".
pub async fn run(
    control_plane: ControlPlane,
    settings: SyncSettings,
    mut registration: watch::Receiver<Option<Registration>>,
    revocation: Revocation,
    published: watch::Sender<Option<Arc<KnownPeers>>>,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut log = SyncLog::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = registration.changed() => if changed.is_err() { return },
            _ = ticks.tick() => {}
        }
        let Some(current) = registration.borrow_and_update().clone() else {
            continue;
        };
        let list = tokio::select! {
            () = stop.cancelled() => return,
            list = control_plane.nodes() => list,
        };
        let nodes = match list {
            Ok(list) => list.nodes,
            Err(error) => {
                log.failed(&error.to_string());
                continue;
            }
        };
        let own = OwnNode {
            node_id: current.node_id,
            subnet: current.subnet,
            host_address: settings.host_address,
        };
        let known = published.borrow().clone().unwrap_or_default();
        match assess(&known, &nodes, &own, Instant::now(), settings.grace) {
            Ok(assessment) => {
                log.assessed(&known, &assessment);
                let Assessment { peers, .. } = assessment;
                published.send_if_modified(|published| {
                    let news = published.as_deref() != Some(&peers);
                    if news {
                        *published = Some(Arc::new(peers));
                    }
                    news
                });
            }
            Err(unusable) => {
                log.unusable(&unusable);
                revocation.revoke(current.epoch);
            }
        }
    }
}

/// Writes one line per change.
#[derive(Debug, Default)]
struct SyncLog {
    failure: Reasons<()>,
    skipped: BTreeMap<String, Skip>,
}

impl SyncLog {
    fn failed(&mut self, error: &str) {
        if self.failure.note((), error) {
            warn!(error, "no node list; the peers stay as they are");
        }
    }

    fn unusable(&mut self, unusable: &UnusableList) {
        if self.failure.note((), &unusable.to_string()) {
            warn!(
                reason = %unusable,
                "the node list is not about this cluster; the peers stay as they are, registering again"
            );
        }
    }

    fn assessed(&mut self, known: &KnownPeers, assessment: &Assessment) {
        if self.failure.resolve(&()) {
            info!("node lists arrive again");
        }
        let changes = changes(known, &assessment.peers);
        if changes.len() > LOGGED_CHANGES {
            info!(
                changes = changes.len(),
                peers = assessment.peers.len(),
                "peers changed"
            );
        }
        for change in &changes {
            if changes.len() > LOGGED_CHANGES {
                debug!("{change}");
            } else {
                info!("{change}");
            }
        }
        let news: Vec<_> = assessment
            .skipped
            .iter()
            .filter(|(node_id, skip)| self.skipped.get(*node_id) != Some(skip))
            .collect();
        for (node_id, skip) in news.iter().take(LOGGED_CHANGES) {
            warn!(node_id = %Excerpt(node_id), reason = %skip, "listed node is no peer");
        }
        if let Some(more) = news.len().checked_sub(LOGGED_CHANGES).filter(|n| *n > 0) {
            warn!(more, "further listed nodes are no peers");
        }
        self.skipped.clone_from(&assessment.skipped);
    }
}

/// One line for each peer that joined, left, moved, went unconfirmed or was confirmed.
fn changes(before: &KnownPeers, after: &KnownPeers) -> Vec<String> {
    let mut lines = Vec::new();
    for (subnet, old) in before {
        let name = Excerpt(&old.peer.hostname);
        match after.get(subnet) {
            None => lines.push(format!(
                "peer left: {name} {subnet} {}",
                old.peer.host_address
            )),
            Some(new) if new.node_id != old.node_id => lines.push(format!(
                "peer replaced: {subnet} went from {name} to {} {}",
                Excerpt(&new.peer.hostname),
                new.peer.host_address
            )),
            Some(new) if new.peer.host_address != old.peer.host_address => lines.push(format!(
                "peer moved: {name} {subnet} from {} to {}",
                old.peer.host_address, new.peer.host_address
            )),
            Some(new) if old.unconfirmed_since.is_none() && new.unconfirmed_since.is_some() => {
                lines.push(format!(
                    "peer unconfirmed: nothing usable is listed about {name} {subnet}; kept for now"
                ));
            }
            Some(_) => {}
        }
    }
    for (subnet, new) in after.iter().filter(|(s, _)| !before.contains_key(*s)) {
        let name = Excerpt(&new.peer.hostname);
        lines.push(format!(
            "peer joined: {name} {subnet} {}",
            new.peer.host_address
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::{KnownPeer, Peer};

    fn known(entries: &[(&str, &str, &str)]) -> KnownPeers {
        entries
            .iter()
            .map(|(subnet, node_id, address)| {
                let peer = Peer {
                    host_address: address.parse().unwrap(),
                    hostname: format!("host-{node_id}"),
                };
                let known = KnownPeer {
                    node_id: (*node_id).to_owned(),
                    peer,
                    unconfirmed_since: None,
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
        assert_eq!(
            changes(&before, &after),
            [
                r#"peer left: "host-b" 10.42.2.0/24 192.0.2.2"#,
                r#"peer moved: "host-c" 10.42.3.0/24 from 192.0.2.3 to 192.0.2.33"#,
                r#"peer replaced: 10.42.4.0/24 went from "host-d" to "host-e" 192.0.2.5"#,
                r#"peer joined: "host-f" 10.42.6.0/24 192.0.2.6"#,
            ]
        );
        assert!(changes(&after, &after).is_empty());
    }
}
