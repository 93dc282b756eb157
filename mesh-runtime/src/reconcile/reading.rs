//! The loop's reading of the kernel: what may be out of date, until nothing new is told.

use tokio::time::Instant;

use super::{Reconciler, endpoints::forget_gone};
use crate::{
    desired::devices::is_own_bridge_mac,
    netlink::{Netlink, NetlinkError},
    observed::{
        containers::{far_ends, look_inside},
        dirty::{Dirty, Parts},
        events::Events,
        namespace_events::Changed,
        read::{Scope, observe},
    },
};

/// Readings in a row while the kernel keeps telling of changes.
const READINGS: usize = 8;

impl Reconciler {
    /// Reads the parts of the kernel's state that may be out of date.
    pub(super) async fn read(&mut self, dirty: Dirty) -> Result<(), NetlinkError> {
        let mut dirty = dirty | std::mem::take(&mut self.outdated) | self.events.take();
        self.unplanned = true;
        // Until it has worked, nothing is known.
        self.outdated = Dirty::all();
        let mut all_containers = false;
        for _ in 0..READINGS {
            self.look_at_programs |= dirty.any(Parts::PROGRAMS);
            all_containers |= dirty.any(Parts::CONTAINERS);
            let previous = std::mem::take(&mut self.observed);
            // Not the kernel's to tell, so not lost where reading fails.
            self.observed.holders = previous.holders.clone();
            let scope = Scope {
                cluster: self.settings.cluster.cidr,
                bridge: &self.settings.bridge,
                overlay: &self.settings.overlay,
                peers: &self.wanted.peers,
                source: self.wanted.host_address,
                vxlan_port: self.wanted.node_settings.vxlan_port,
            };
            self.observed = observe(&self.netlink, previous, dirty, scope).await?;
            // What was told meanwhile belongs to the same change: a bridge that is deleted lets go of its ports
            // first, one after the other.
            dirty = self.events.take();
            if dirty.is_clean() {
                break;
            }
        }
        self.note_devices();
        if forget_gone(&mut self.wanted, &self.observed) {
            self.state_writer.changed(self.wanted.generation);
        }
        self.registered
            .show(&mut self.wanted, &self.observed, &self.settings.bridge);
        self.look_inside(all_containers).await?;
        self.registered.occupy(&self.wanted, &self.observed);
        self.outdated = dirty;
        Ok(())
    }

    /// What the kernel has not told of, where it tells nothing of containers: their inside.
    pub(super) fn containers_unheard(&self) -> Dirty {
        match self.events.hears_containers() {
            true => Dirty::default(),
            false => Parts::CONTAINERS.into(),
        }
    }

    /// Looks into the containers that are new, or of which the kernel has told something.
    pub(super) async fn look_inside(&mut self, all: bool) -> Result<(), NetlinkError> {
        // Taken before looking, so that what changes meanwhile is looked at again.
        let changed = match self.events.take_namespaces() {
            _ if all => Changed::All,
            some => Changed::Only(some),
        };
        let far_ends = far_ends(&self.observed, &self.settings.bridge);
        let before = std::mem::take(&mut self.observed.containers);
        self.observed.containers = look_inside(&self.netlink, &far_ends, before, &changed).await?;
        if let Some(bridge) = self.observed.link_named(&self.settings.bridge) {
            let holders = &self.observed.holders;
            self.observed.holders =
                holders.after(&self.observed, bridge.index, &self.wanted.endpoints);
        }
        if !self.events.hears_containers() {
            let silent = self
                .observed
                .containers
                .iter()
                .filter(|(_, container)| container.is_silent())
                .map(|(&port, _)| port)
                .collect();
            self.silent_containers.seen(silent, Instant::now());
        }
        Ok(())
    }

    /// Remembers which bridge is ours, and whose neighbours are worth a look.
    pub(super) fn note_devices(&mut self) {
        let bridge = self.observed.link_named(&self.settings.bridge);
        let overlay = self.observed.link_named(&self.settings.overlay);
        if let Some(bridge) = bridge
            && is_own_bridge_mac(&self.settings.cluster, bridge.mac)
            && self.wanted.own_bridge != Some(bridge.index)
        {
            self.wanted.own_bridge = Some(bridge.index);
            // At the start, nothing is wanted yet.
            if self.wanted.subnet.is_some() {
                self.state_writer.changed(self.wanted.generation);
            }
        }
        if let Some(bridge) = bridge
            && self.wanted.own_bridge == Some(bridge.index)
        {
            let ports = self.observed.ports_of(bridge.index);
            self.wanted.bridge_ports = ports.map(|port| port.index).collect();
        }
        self.events.watch_neighbours(
            bridge.map_or(0, |link| link.index),
            overlay.map_or(0, |link| link.index),
        );
    }

    /// Opens the connections again after one broke.
    pub(super) fn reconnect(&mut self, error: &NetlinkError) {
        if !matches!(error, NetlinkError::Closed)
            && !self.netlink.is_closed()
            && !self.events.is_closed()
        {
            return;
        }
        let connected = Netlink::connect().and_then(|netlink| {
            let events = Events::listen(netlink.port, self.settings.cluster.cidr)?;
            Ok((netlink, events))
        });
        match connected {
            Ok((netlink, events)) => {
                self.netlink = netlink;
                self.events = events;
            }
            Err(error) => {
                tracing::warn!(name: "cannot-open-netlink-connection", %error, "cannot open a netlink connection")
            }
        }
    }
}
