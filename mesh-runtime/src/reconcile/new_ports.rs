//! How long the ports of the bridge have been there, as far as this daemon knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::Reconciler;

/// How long a port is new: what is to be made at it before its container starts, as by the plugins that CNI runs one
/// after the other, is made by then.
const NEW: Duration = Duration::from_secs(10);

/// Since when each port is known.
#[derive(Debug, Default)]
pub(super) struct NewPorts(BTreeMap<u32, Instant>);

impl NewPorts {
    /// Notes the ports that are there, as of `now`. One that goes is forgotten.
    pub(super) fn seen(&mut self, ports: impl IntoIterator<Item = u32>, now: Instant) {
        let before = std::mem::take(&mut self.0);
        let since = |port| before.get(&port).copied().unwrap_or(now);
        self.0 = ports.into_iter().map(|port| (port, since(port))).collect();
    }

    /// Those that are new.
    pub(super) fn new_at(&self, now: Instant) -> BTreeSet<u32> {
        let new = self.0.iter().filter(|(_, since)| **since + NEW > now);
        new.map(|(&port, _)| port).collect()
    }

    /// When the first of those ports is new no longer.
    pub(super) fn first_end(&self, of: &BTreeSet<u32>) -> Option<Instant> {
        let since = of.iter().filter_map(|port| self.0.get(port));
        since.min().map(|&since| since + NEW)
    }
}

impl Reconciler {
    /// Notes which ports have just come. Without the packet filter, which guards them meanwhile, none is taken for new.
    pub(super) fn note_new_ports(&mut self) {
        let now = Instant::now();
        let bridge = self.observed.link_named(&self.settings.bridge);
        let ports = bridge.map(|link| self.observed.ports_of(link.index));
        let ports = ports.into_iter().flatten().map(|port| port.index);
        self.new_ports.seen(ports, now);
        self.observed.by_filters = self.fast_path.attaches_filters();
        let awaiting = &mut self.observed.awaiting_programs;
        awaiting.extend(&self.desired.containers.left_free);
        awaiting.retain(|&port| {
            self.observed.links.contains_key(&port) && !self.fast_path.has_program(port)
        });
        self.observed.new_ports = match self.observed.by_filters && self.firewall.stands() {
            true => self.new_ports.new_at(now),
            false => BTreeSet::new(),
        };
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
        assert_eq!(ports.new_at(start + moment), [7, 8].into());
        assert_eq!(ports.first_end(&[7, 8].into()), Some(start + NEW));
        assert_eq!(ports.first_end(&[8].into()), Some(start + moment + NEW));
        // When its time is over, it is over: nobody wakes up in vain.
        assert_eq!(ports.new_at(start + NEW), [8].into());
        assert_eq!(ports.first_end(&[].into()), None);

        let later = start + 2 * NEW;
        ports.seen([8], later);
        ports.seen([7, 8], later + moment);
        assert_eq!(ports.new_at(later + moment), [7].into());
    }
}
