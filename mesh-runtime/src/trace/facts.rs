//! What a packet's way is judged by.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use mesh_model::Node;

use super::{Ground, Question, party::Party, route::Route};
use crate::{
    apply::firewall::look::Looked,
    diff::change::DisplayMac,
    ebpf::{Mac, live::Hooked},
    observed::{Forwarding, Link, LinkKind, Neighbour, NeighbourState, Vxlan},
};

/// Everything that was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) ground: Ground,
    pub(crate) question: Question,
    /// Who the two are.
    pub(crate) source: Party,
    pub(crate) destination: Party,
    /// Interfaces by index.
    pub(crate) links: BTreeMap<u32, Link>,
    /// What the programs know; `None` without maps.
    pub(crate) node: Option<Node>,
    /// Programs by interface.
    pub(crate) hooked: BTreeMap<u32, Hooked>,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) forwarding: Vec<Forwarding>,
    pub(crate) tables: Looked,
    /// Whom a published port leads to, and by which port.
    pub(crate) published: Option<(Ipv4Addr, u16)>,
    /// Where the packet itself is routed.
    pub(crate) route: Option<Route>,
    /// Index of the interface by which a packet from outside the mesh comes.
    pub(crate) arrival: Option<u32>,
    /// Where this host sends VXLAN for the peer.
    pub(crate) outer: Option<Route>,
    /// Where VXLAN from the peer is routed.
    pub(crate) outer_in: Option<Route>,
    /// Whether the kernel has IP rules look at what bridges carry (`bridge-nf-call-iptables`).
    pub(crate) bridges_filtered: bool,
    /// Whether IPsec transforms what goes to the peer, or is to have transformed what comes.
    pub(crate) transformed: bool,
}

impl Facts {
    pub(crate) fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    pub(crate) fn name_of(&self, index: u32) -> String {
        let link = self.links.get(&index);
        link.map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }

    pub(crate) fn bridge(&self) -> Option<&Link> {
        self.link_named(&self.ground.bridge)
            .filter(|link| link.kind == LinkKind::Bridge)
    }

    pub(crate) fn overlay(&self) -> Option<(&Link, &Vxlan)> {
        let link = self.link_named(&self.ground.overlay)?;
        match &link.kind {
            LinkKind::Vxlan(vxlan) => Some((link, vxlan)),
            _ => None,
        }
    }

    /// The peer's underlay address, and what it is called.
    pub(crate) fn peer(&self) -> Option<(Ipv4Addr, &str)> {
        let subnet = match (self.destination, self.source) {
            (Party::Peer(subnet), _) | (_, Party::Peer(subnet)) => subnet,
            _ => return None,
        };
        let (address, name) = self.ground.peers.get(&subnet)?;
        Some((*address, name))
    }

    /// What the programs know of the peer, for people; nothing where none is concerned.
    pub(crate) fn peer_entry(&self) -> String {
        let (Some(node), Some(_)) = (&self.node, self.peer()) else {
            return String::new();
        };
        let address = match self.destination {
            Party::Peer(_) => self.question.destination,
            _ => self.question.source,
        };
        match node.peer(address) {
            Some(peer) => format!(
                "map peers: the subnet of {address} is at {}",
                Ipv4Addr::from(peer.address)
            ),
            None => format!("map peers: nothing for {address}"),
        }
    }

    /// How a peer is called: by its name, if it has one.
    pub(crate) fn peer_name(&self) -> String {
        match self.peer() {
            Some((address, "")) => address.to_string(),
            Some((_, name)) => name.to_owned(),
            None => "nobody".to_owned(),
        }
    }

    /// Whether a program of ours stands at an interface.
    pub(crate) fn has_program(&self, link: u32, name: &str) -> bool {
        self.hooked
            .get(&link)
            .is_some_and(|hooked| hooked.ingress.contains(name) || hooked.egress.contains(name))
    }

    /// A usable neighbour.
    pub(crate) fn neighbour(&self, link: u32, address: Ipv4Addr) -> Option<Mac> {
        let usable = |it: &&Neighbour| {
            it.link == link && it.address == address && it.state != NeighbourState::Unusable
        };
        self.neighbours.iter().find(usable)?.mac
    }

    /// The port of a bridge behind which a MAC address is.
    pub(crate) fn port_of(&self, bridge: u32, mac: Mac) -> Option<u32> {
        let behind = |it: &&Forwarding| it.bridge == Some(bridge) && it.mac == mac && !it.permanent;
        self.forwarding.iter().find(behind).map(|it| it.link)
    }

    /// Where a container is: its port, its MAC address, and how that is known.
    pub(crate) fn container(&self, address: Ipv4Addr) -> Option<(u32, Mac, String)> {
        let entry = self.node.as_ref().and_then(|node| node.endpoint(address));
        if let Some(entry) = entry.filter(|entry| self.links.contains_key(&entry.link)) {
            let how = format!(
                "map endpoints: {address} is behind {} with {}",
                self.name_of(entry.link),
                DisplayMac(entry.mac)
            );
            return Some((entry.link, entry.mac, how));
        }
        let bridge = self.bridge()?.index;
        let mac = self.neighbour(bridge, address)?;
        let port = self.port_of(bridge, mac)?;
        let how = format!(
            "neighbour and forwarding entry of {}: {address} is behind {} with {}",
            self.ground.bridge,
            self.name_of(port),
            DisplayMac(mac)
        );
        Some((port, mac, how))
    }

    /// The MAC address of whoever is behind a port, whatever its address.
    pub(crate) fn mac_behind(&self, port: u32) -> Option<Mac> {
        let node = self.node.as_ref();
        let mut macs = node.into_iter().flat_map(|node| &node.macs);
        let known = macs.find(|(_, holder)| holder.link == port);
        known.map(|(key, _)| key.mac).or_else(|| {
            let learnt = |it: &&Forwarding| it.link == port && it.bridge.is_some() && !it.permanent;
            self.forwarding.iter().find(learnt).map(|it| it.mac)
        })
    }

    /// Whether a named set of ours has an element.
    pub(crate) fn in_set(&self, set: &str, element: &[u8]) -> bool {
        let elements = self.tables.elements.get(set);
        elements.is_some_and(|elements: &BTreeSet<Vec<u8>>| elements.contains(element))
    }
}
