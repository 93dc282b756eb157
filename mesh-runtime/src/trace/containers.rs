//! From a container of this node, and the last steps to one. Pure.

use std::net::Ipv4Addr;

use mesh_model::{Program, Redirect};

use super::{
    Verdict,
    party::Party,
    route::RouteKind,
    rules::Refused,
    walk::{FORWARD, INPUT, POSTROUTING, PREROUTING, Rules, Step, Walk, mac},
};
use crate::ebpf::Mac;

/// Hooks of the bridge (`NF_BR_*`).
const FROM_PORT: Rules = Rules::Bridge(0);
const TO_HOST: Rules = Rules::Bridge(1);
const BETWEEN_PORTS: Rules = Rules::Bridge(2);
const FROM_HOST: Rules = Rules::Bridge(3);
const TO_PORT: Rules = Rules::Bridge(4);

impl Walk<'_> {
    /// What a rule of ours that drops comes to.
    pub(super) fn ruled<T>(&mut self, place: &str, judged: Result<T, Refused>) -> Option<T> {
        match judged {
            Ok(passed) => Some(passed),
            Err((chain, rule)) => {
                self.drops(
                    place,
                    format!("dropped by a rule of ours, in {chain}"),
                    &[&rule],
                )?;
                None
            }
        }
    }

    pub(super) fn start_at_container(&mut self) -> Option<()> {
        let facts = self.facts;
        let (port, from, how) = self.sender()?;
        self.by_link(port, "the container's port")?;
        let Some(bridge) = facts.bridge() else {
            return self.drops(&facts.ground.bridge, "the bridge is not there", &[]);
        };
        let bridge_index = bridge.index;
        // A neighbour is asked for its own address, everybody else for the gateway's.
        let sibling = match facts.destination {
            Party::Container => Some(facts.container(facts.question.destination)),
            _ => None,
        };
        let to = match &sibling {
            Some(Some((_, mac, _))) => *mac,
            Some(None) => {
                return self.unknown(
                    facts.question.destination.to_string(),
                    "nobody on this node is known to have this address: whether anybody answers is not evaluated",
                    &[],
                );
            }
            None => bridge.mac.unwrap_or_default(),
        };
        let frame = self.frame(from, to);
        self.others_programs(port, true);
        let peer = facts.peer_entry();
        let way = facts
            .outer
            .as_ref()
            .map_or("", |route| route.entry.as_str());
        let evidence = [how.as_str(), &peer, way];
        match self.program(Program::Encapsulate, port, &frame, &evidence, false)? {
            Step::Carried(Redirect::Neighbour { link, .. }) => return self.sent_by_program(link),
            Step::Carried(Redirect::Container { .. }) | Step::Left => {}
        }
        let place = format!("{}, port {}", facts.ground.bridge, facts.name_of(port));
        self.ruled(&place, facts.at_port(port, from))?;
        self.others(&place, &[FROM_PORT]);
        if facts.bridges_filtered {
            self.others(&format!("{place}, as IPv4"), &[PREROUTING]);
        }
        if let Some(Some((to_port, _, how))) = sibling {
            return self.between(&place, (port, from), to_port, &how);
        }
        let claims = self.ruled(&place, facts.up(port, from))?;
        self.others(&place, &[TO_HOST]);
        self.others_programs(bridge_index, true);
        if facts.has_program(bridge_index, Program::CatchAll.name()) {
            match self.program(Program::CatchAll, bridge_index, &frame, &[], claims)? {
                Step::Carried(Redirect::Neighbour { link, .. }) => {
                    return self.sent_by_program(link);
                }
                Step::Carried(Redirect::Container { .. }) | Step::Left => {}
            }
        }
        self.up_from_bridge()
    }

    /// The port by which the packet comes, the MAC address behind it, and how that is known.
    fn sender(&mut self) -> Option<(u32, Mac, String)> {
        let facts = self.facts;
        let name = facts.question.from_interface.as_str();
        let source = facts.question.source;
        if !name.is_empty() {
            let Some(link) = facts.link_named(name) else {
                self.unknown(name, "no interface of that name", &[])?;
                return None;
            };
            // Whoever is behind it speaks with its own, whatever its address.
            let from = facts.mac_behind(link.index).unwrap_or([2, 0, 0, 0, 0, 1]);
            let known = facts.container(source);
            let known = known.map_or_else(String::new, |(.., how)| format!("; {how}"));
            let how = format!("asked about {name}, behind which is {}{known}", mac(from));
            return Some((link.index, from, how));
        }
        match facts.container(source) {
            Some(known) => Some(known),
            None => {
                self.unknown(
                    source.to_string(),
                    "nobody on this node is known to have this address: name the port with --from",
                    &[],
                )?;
                None
            }
        }
    }

    /// From one port of the bridge to another.
    fn between(&mut self, place: &str, (port, from): (u32, Mac), to: u32, how: &str) -> Option<()> {
        let facts = self.facts;
        self.ruled(place, facts.between(port, from, to))?;
        self.others(place, &[BETWEEN_PORTS]);
        if facts.bridges_filtered {
            self.others(&format!("{place}, as IPv4"), &[FORWARD, POSTROUTING]);
        }
        if port == to {
            return self.drops(place, "a bridge gives no port its own frames back", &[how]);
        }
        self.others(place, &[TO_PORT]);
        self.at_last_port(
            to,
            &format!("handed by the bridge to {}", facts.name_of(to)),
            how,
        )
    }

    /// What came up from the bridge, until it is routed.
    fn up_from_bridge(&mut self) -> Option<()> {
        let facts = self.facts;
        let place = format!("{}, before routing", facts.ground.bridge);
        self.ruled(&place, facts.early_from_bridge())?;
        self.others(&place, &[PREROUTING]);
        self.published();
        self.routed("from the bridge")
    }

    /// Says whom a published port leads to.
    pub(super) fn published(&mut self) {
        if let Some((container, port)) = self.facts.published {
            let question = &self.facts.question;
            self.hop(
                "published ports",
                format!("led to {container}:{port}"),
                &[&format!(
                    "maps published and published_at: {}:{}",
                    question.destination, question.port
                )],
                Verdict::Passes,
            );
        }
    }

    /// Where the kernel routes what is not this host's own.
    pub(super) fn routed(&mut self, from: &str) -> Option<()> {
        let facts = self.facts;
        let route = facts.route.as_ref()?;
        let name = facts.name_of(route.link);
        let bridge = facts.bridge().map(|link| link.index);
        let overlay = facts.overlay().map(|(link, _)| link.index);
        match &route.kind {
            RouteKind::Refused(why) => self.drops(
                "routing",
                format!("the kernel routes it nowhere: {why}"),
                &[&route.entry],
            ),
            RouteKind::Other(kind) => self.unknown(
                "routing",
                format!("a route of kind {kind}"),
                &[&route.entry],
            ),
            RouteKind::Local => {
                self.passes("routing", "to this host itself", &[&route.entry])?;
                self.end_at_host()
            }
            RouteKind::Unicast if Some(route.link) == overlay => {
                self.passes("routing", format!("to {name}, {from}"), &[&route.entry])?;
                self.ruled("forwarding", facts.forward_out())?;
                self.by_overlay(route, &[FORWARD, POSTROUTING])
            }
            RouteKind::Unicast if Some(route.link) == bridge => {
                self.passes("routing", format!("to {name}, {from}"), &[&route.entry])?;
                self.others("forwarding", &[FORWARD]);
                self.reach_container(facts.question.destination)
            }
            RouteKind::Unicast => {
                self.passes("routing", format!("to {name}, {from}"), &[&route.entry])?;
                self.leaves(route.link)
            }
        }
    }

    /// Up into this host.
    pub(super) fn end_at_host(&mut self) -> Option<()> {
        self.others("to this host", &[INPUT]);
        self.passes(
            "this host",
            "handed to whoever listens there, which is not looked at",
            &[],
        )
    }

    /// Out of the mesh.
    fn leaves(&mut self, link: u32) -> Option<()> {
        let facts = self.facts;
        let name = facts.name_of(link);
        self.by_link(link, "the interface")?;
        self.ruled("forwarding", facts.forward_out())?;
        self.others("forwarding", &[FORWARD]);
        if !self.fits(facts.route.as_ref().and_then(|route| route.mtu), link) {
            return self.too_long(facts.route.as_ref().and_then(|route| route.mtu), link);
        }
        self.others("before it leaves", &[POSTROUTING]);
        self.others(&name, &[Rules::Interface(1, link)]);
        self.others_programs(link, false);
        if matches!(facts.destination, Party::Peer(_) | Party::Nobody) {
            let route = facts
                .route
                .as_ref()
                .map_or("", |route| route.entry.as_str());
            return self.unknown(
                name,
                format!(
                    "leaves this host past {}: what becomes of it there is not known",
                    facts.ground.overlay
                ),
                &[route],
            );
        }
        let routed = facts.ground.routed_from.iter();
        let own = routed
            .into_iter()
            .any(|net| net.contains(&facts.question.destination));
        let under = match facts.ground.masquerade && !own && facts.has_tables() {
            true => "leaves under this host's address, unless somebody else's rule says another",
            false => "leaves under its own address",
        };
        self.passes(name, under, &[])?;
        self.hop(
            "outside the mesh",
            "not known here",
            &[],
            Verdict::Elsewhere,
        );
        Some(())
    }

    /// From this host's routing to a container of it. `asked` is whom the packet was for.
    pub(super) fn reach_container(&mut self, asked: Ipv4Addr) -> Option<()> {
        let facts = self.facts;
        let address = facts.published.map_or(asked, |(container, _)| container);
        let Some(bridge) = facts.bridge().map(|link| link.index) else {
            return self.drops(&facts.ground.bridge, "the bridge is not there", &[]);
        };
        self.by_link(bridge, "the bridge")?;
        let mtu = facts.route.as_ref().and_then(|route| route.mtu);
        if !self.fits(mtu, bridge) {
            return self.too_long(mtu, bridge);
        }
        self.others("before it leaves", &[POSTROUTING]);
        self.others(&facts.ground.bridge, &[FROM_HOST, TO_PORT]);
        let Some((port, known, how)) = facts.container(address) else {
            return self.unknown(
                address.to_string(),
                "nobody on this node is known to have this address: whether anybody answers is not evaluated",
                &[],
            );
        };
        // Another than it has there answers for an address of its own alone.
        if let Some(neighbour) = facts.neighbour(bridge, address)
            && neighbour != known
        {
            let evidence = format!("neighbour {address} is {}; {how}", mac(neighbour));
            return self.unknown(
                &facts.ground.bridge,
                "the host's neighbour entry says something else than is known of the container",
                &[&evidence],
            );
        }
        self.at_last_port(
            port,
            &format!("handed by the bridge to {}", facts.name_of(port)),
            &how,
        )
    }

    /// Out of the port behind which the container is.
    fn at_last_port(&mut self, port: u32, decision: &str, how: &str) -> Option<()> {
        self.by_link(port, "the container's port")?;
        self.others(&self.facts.name_of(port), &[Rules::Interface(1, port)]);
        self.others_programs(port, false);
        self.passes(self.facts.name_of(port), decision, &[how])
    }

    /// Whether the packet fits an interface and the route there.
    pub(super) fn fits(&self, mtu: Option<u32>, link: u32) -> bool {
        let link = self.facts.links.get(&link).map(|link| link.mtu);
        [mtu, link]
            .into_iter()
            .flatten()
            .all(|mtu| mtu == 0 || self.facts.question.length <= mtu)
            || self.facts.question.may_be_fragmented
    }

    /// One that does not.
    pub(super) fn too_long(&mut self, mtu: Option<u32>, link: u32) -> Option<()> {
        let question = &self.facts.question;
        let own = self.facts.links.get(&link).map_or(0, |link| link.mtu);
        let most = mtu.filter(|mtu| *mtu != 0).map_or(own, |mtu| mtu.min(own));
        let evidence = format!("{} bytes, and {most} is the most", question.length);
        self.drops(
            self.facts.name_of(link),
            "too long, and must not be cut up: the sender is told so (fragmentation needed)",
            &[&evidence],
        )
    }
}
