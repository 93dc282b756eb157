//! How long the ports of the bridge have been there, as far as this daemon knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{Reconciler, fast_path::Progress};
use crate::{observed::dirty::Dirty, wanted::endpoint::strict_ports};

/// How long a port is new where programs are filters: what is to be made at it before its container starts, as by the
/// plugins that CNI runs one after the other, is made by then.
const NEW: Duration = Duration::from_secs(10);

/// How long a registered port is new where programs are links. The kernel holds its network configuration lock while it
/// attaches one and lets a grace period pass (`tcx_link_attach`), 5 to 15 ms, for which whoever sets the container's
/// interface up would wait: by then that is done.
const BEING_SET_UP: Duration = Duration::from_millis(200);

/// Since when each port is known.
#[derive(Debug, Default)]
pub(super) struct NewPorts {
    since: BTreeMap<u32, Instant>,
    /// Those that came with the last look.
    arrived: BTreeSet<u32>,
    /// Whether none is left free any more, because this daemon ends.
    over: bool,
}

impl NewPorts {
    /// Notes the ports that are there, as of `now`. One that goes is forgotten.
    pub(super) fn seen(&mut self, ports: impl IntoIterator<Item = u32>, now: Instant) {
        let before = std::mem::take(&mut self.since);
        let since = |port| before.get(&port).copied().unwrap_or(now);
        self.since = ports.into_iter().map(|port| (port, since(port))).collect();
        let ports = self.since.keys().copied();
        self.arrived = ports.filter(|port| !before.contains_key(port)).collect();
    }

    /// Those that have been there for less than `new`.
    fn new_at(&self, now: Instant, new: Duration) -> BTreeSet<u32> {
        let new = self.since.iter().filter(|(_, since)| **since + new > now);
        new.map(|(&port, _)| port).collect()
    }

    /// When the first of those ports has been there for `new`.
    fn first_end(&self, of: &BTreeSet<u32>, new: Duration) -> Option<Instant> {
        let since = of.iter().filter_map(|port| self.since.get(port));
        since.min().map(|&since| since + new)
    }
}

impl Reconciler {
    /// When the first of the ports that are left free gets its program.
    pub(super) fn next_to_occupy(&self) -> Option<Instant> {
        let left_free = &self.desired.containers.left_free;
        self.new_ports.first_end(left_free, self.stays_new())
    }

    /// Has the ports that are left free, where programs are links, get theirs before this daemon ends: they may have to do
    /// without it for long.
    pub(super) async fn occupy_all(&mut self) {
        self.new_ports.over = true;
        if self.observed.by_filters || self.desired.containers.left_free.is_empty() {
            return;
        }
        // One job at a time.
        if self.fast_path.is_attaching()
            && let Progress::Attached(done) = self.fast_path.progress().await
        {
            self.note_attached(*done);
        }
        self.round(Dirty::default()).await;
    }

    /// How long a port is new.
    fn stays_new(&self) -> Duration {
        match self.observed.by_filters {
            true => NEW,
            false => BEING_SET_UP,
        }
    }

    /// Notes which ports have just come, and are left free for a while. Without the packet filter, which guards them
    /// meanwhile, none is taken for new. Where programs are links, only those are that the filter holds to what is
    /// registered of them, and only beside the bridge's program, which carries their packets.
    pub(super) fn note_new_ports(&mut self) {
        let now = Instant::now();
        let bridge = self.observed.link_named(&self.settings.bridge);
        // Attached by this daemon, so that what an earlier one left attached is not taken for new.
        let stands = bridge.is_some_and(|link| self.fast_path.has_program(link.index));
        let ports = bridge.map(|link| self.observed.ports_of(link.index));
        let ports = ports.into_iter().flatten().map(|port| port.index);
        self.new_ports.seen(ports, now);
        self.observed.by_filters = self.fast_path.attaches_filters();
        let by_filters = self.observed.by_filters;
        let left_free = &self.desired.containers.left_free;
        let awaiting = &mut self.observed.awaiting_programs;
        awaiting.extend(left_free);
        awaiting.retain(|&port| {
            let comes = by_filters || stands;
            comes && self.observed.links.contains_key(&port) && !self.fast_path.has_program(port)
        });
        let mut new = match self.firewall.stands() {
            true => self.new_ports.new_at(now, self.stays_new()),
            false => BTreeSet::new(),
        };
        if !by_filters {
            let strict = strict_ports(&self.wanted.endpoints);
            // Whose program was on its way once is not left free again.
            let was_free =
                |port: &u32| left_free.contains(port) || self.new_ports.arrived.contains(port);
            let ends = self.new_ports.over;
            new.retain(|port| stands && !ends && strict.contains(port) && was_free(port));
        }
        self.observed.new_ports = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_new_for_a_while_after_it_was_first_seen_and_again_when_it_comes_again() {
        let (mut ports, start) = (NewPorts::default(), Instant::now());
        let moment = Duration::from_secs(1);
        ports.seen([7], start);
        ports.seen([7, 8], start + moment);
        assert_eq!(ports.new_at(start + moment, NEW), [7, 8].into());
        assert_eq!(ports.first_end(&[7, 8].into(), NEW), Some(start + NEW));
        assert_eq!(
            ports.first_end(&[8].into(), NEW),
            Some(start + moment + NEW)
        );
        // When its time is over, it is over: nobody wakes up in vain.
        assert_eq!(ports.new_at(start + NEW, NEW), [8].into());
        assert_eq!(ports.first_end(&[].into(), NEW), None);

        let later = start + 2 * NEW;
        ports.seen([8], later);
        ports.seen([7, 8], later + moment);
        assert_eq!(ports.new_at(later + moment, NEW), [7].into());
    }
}
