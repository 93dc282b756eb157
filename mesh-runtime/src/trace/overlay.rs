//! To another node, and from one. Pure.

use std::net::Ipv4Addr;

use mesh_model::{Program, Redirect};

use super::{
    party::Party,
    route::{Route, RouteKind},
    walk::{FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING, Rules, Step, Walk, mac},
};

/// An address that is no peer's, for what comes from nobody known (RFC 5737).
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

impl Walk<'_> {
    /// A program has encapsulated it.
    pub(super) fn sent_by_program(&mut self, link: u32) -> Option<()> {
        self.path = "fast";
        let place = self.facts.name_of(link);
        self.by_link(link, "the interface to the peer")?;
        self.others(&place, &[Rules::Interface(1, link)]);
        self.others_programs(link, false);
        self.elsewhere("on its way there: what becomes of it is not known here")
    }

    /// By the kernel's VXLAN device; `at` are the hooks on the way there.
    pub(super) fn by_overlay(&mut self, route: &Route, at: &[Rules]) -> Option<()> {
        let facts = self.facts;
        self.path = "kernel";
        let Some((overlay, vxlan)) = facts.overlay() else {
            return self.drops(&facts.ground.overlay, "is no VXLAN device", &[]);
        };
        let (index, name, vni) = (overlay.index, overlay.name.clone(), vxlan.vni);
        self.by_link(index, "the VXLAN device")?;
        if !self.fits(route.mtu, index) {
            return self.too_long(route.mtu, index);
        }
        for &rules in at {
            let place = match rules {
                Rules::Ip(4, _) => "before it leaves",
                Rules::Ip(3, _) => "from this host",
                _ => "forwarding",
            };
            self.others(place, &[rules]);
        }
        let next_hop = route.gateway.unwrap_or(facts.question.destination);
        let Some(neighbour) = facts.neighbour(index, next_hop) else {
            return self.drops(
                format!("{name}, neighbour"),
                format!(
                    "no neighbour entry for {next_hop}, and nobody there answers questions for one"
                ),
                &[],
            );
        };
        let evidence = format!("neighbour {next_hop} is {}", mac(neighbour));
        let entry = facts
            .forwarding
            .iter()
            .find(|it| it.link == index && it.mac == neighbour && it.remote.is_some());
        let Some(remote) = entry.and_then(|it| it.remote) else {
            return self.drops(
                format!("{name}, forwarding entry"),
                format!(
                    "no forwarding entry for {}: the device knows nobody to send it to",
                    mac(neighbour)
                ),
                &[&evidence],
            );
        };
        let Some((peer, _)) = facts.peer() else {
            return self.unknown(
                name,
                "nobody's subnet, and yet on the overlay",
                &[&evidence],
            );
        };
        if remote != peer {
            return self.unknown(
                format!("{name}, forwarding entry"),
                format!("leads to {remote}, and the peer is {peer}: what becomes of it there is not known"),
                &[&evidence],
            );
        }
        let entry = format!("forwarding entry: {} is at {remote}", mac(neighbour));
        self.others_programs(index, false);
        self.passes(
            format!("{name}, VXLAN"),
            format!("encapsulated for {remote}"),
            &[&evidence, &entry],
        )?;
        if vni != facts.ground.vni {
            let evidence = format!("VNI {vni}, and the cluster's is {}", facts.ground.vni);
            return self.drops(
                &name,
                "of another network, which no peer takes",
                &[&evidence],
            );
        }
        self.outer()
    }

    /// The kernel's VXLAN to the peer.
    fn outer(&mut self) -> Option<()> {
        let facts = self.facts;
        let route = facts.outer.as_ref()?;
        match &route.kind {
            RouteKind::Unicast => {}
            RouteKind::Refused(why) => {
                let decision = format!("the kernel routes nothing to the peer's host: {why}");
                return self.drops("underlay, routing", decision, &[&route.entry]);
            }
            RouteKind::Local | RouteKind::Other(_) => {
                return self.unknown(
                    "underlay, routing",
                    "leads to no other host",
                    &[&route.entry],
                );
            }
        }
        let name = facts.name_of(route.link);
        self.by_link(route.link, "the interface to the peer")?;
        self.passes(
            "underlay, routing",
            format!("out of {name}"),
            &[&route.entry],
        )?;
        self.others("underlay, from this host", &[OUTPUT, POSTROUTING]);
        if facts.transformed {
            self.hop(
                "underlay, IPsec",
                "a policy transforms it (ip xfrm policy): not evaluated",
                &[],
                super::Verdict::NotEvaluated,
            );
        }
        self.others(&name, &[Rules::Interface(1, route.link)]);
        self.others_programs(route.link, false);
        self.elsewhere("on its way there: what becomes of it is not known here")
    }

    /// From another node.
    pub(super) fn start_at_peer(&mut self) -> Option<()> {
        let facts = self.facts;
        let (outer_source, link) = match (facts.peer(), &facts.outer) {
            (Some((peer, _)), Some(outer)) => {
                self.elsewhere("what it does before it sends is not known here")?;
                let asked = facts.link_named(&facts.question.from_interface);
                (peer, asked.map_or(outer.link, |link| link.index))
            }
            // Whoever sends it is no peer of that subnet.
            _ => {
                self.hop(
                    "underlay",
                    "no peer has its sender's subnet: looked at as from a stranger",
                    &[],
                    super::Verdict::Passes,
                );
                (STRANGER, self.first_underlay()?)
            }
        };
        let name = facts.name_of(link);
        if let Some(outer) = &facts.outer
            && !matches!(outer.kind, RouteKind::Unicast)
        {
            return self.unknown(
                "underlay",
                "no way leads to the peer, so nobody knows by which interface it sends",
                &[&outer.entry],
            );
        }
        self.by_link(link, "the interface to the peer")?;
        self.others_programs(link, true);
        let evidence =
            format!("taken to arrive at {name}, by which the way to {outer_source} leads");
        let frame = match &facts.node {
            Some(node) => self.vxlan_frame(node, outer_source),
            None => Vec::new(),
        };
        let (peer, known) = (
            facts.peer_entry(),
            facts.container(facts.question.destination),
        );
        let known = known.map_or_else(String::new, |(.., how)| how);
        let evidence = [evidence.as_str(), &peer, &known];
        match self.program(Program::Decapsulate, link, &frame, &evidence, false)? {
            Step::Carried(Redirect::Container { link }) => {
                self.path = "fast";
                return self.by_link(link, "the container's port");
            }
            Step::Carried(Redirect::Neighbour { .. }) | Step::Left => {}
        }
        self.path = "kernel";
        self.others(&name, &[Rules::Interface(0, link)]);
        self.others("underlay, before routing", &[PREROUTING]);
        self.ruled(
            "underlay, before routing",
            facts.takes_vxlan(outer_source, &name),
        )?;
        if facts.transformed {
            self.hop(
                "underlay, IPsec",
                "a policy demands that it was transformed (ip xfrm policy): not evaluated",
                &[],
                super::Verdict::NotEvaluated,
            );
        }
        match facts.outer_in.as_ref().map(|route| &route.kind) {
            Some(RouteKind::Refused(why)) => {
                let decision = format!("the kernel does not take it: {why}");
                return self.drops("underlay, routing", decision, &[]);
            }
            Some(RouteKind::Unicast | RouteKind::Other(_)) => {
                return self.drops("underlay, routing", "not for an address of this host", &[]);
            }
            Some(RouteKind::Local) | None => {}
        }
        self.others("underlay, to this host", &[INPUT]);
        self.out_of_overlay()
    }

    /// What the kernel has taken out of VXLAN.
    fn out_of_overlay(&mut self) -> Option<()> {
        let facts = self.facts;
        let Some((overlay, vxlan)) = facts.overlay() else {
            return self.drops(
                &facts.ground.overlay,
                "is no VXLAN device: nobody takes it",
                &[],
            );
        };
        let (index, name) = (overlay.index, overlay.name.clone());
        self.by_link(index, "the VXLAN device")?;
        if (vxlan.vni, vxlan.port) != (facts.ground.vni, facts.ground.vxlan_port) {
            let evidence = format!("VNI {}, UDP port {}", vxlan.vni, vxlan.port);
            return self.drops(
                name,
                "is for another network: nobody takes it",
                &[&evidence],
            );
        }
        self.passes(&name, "taken out of VXLAN by the kernel", &[])?;
        self.others_programs(index, true);
        let frame = self.frame([2, 0, 0, 0, 0, 1], overlay.mac.unwrap_or_default());
        match self.program(Program::SafetyNet, index, &frame, &[], false)? {
            Step::Carried(Redirect::Container { link }) => {
                return self.by_link(link, "the container's port");
            }
            Step::Carried(Redirect::Neighbour { .. }) | Step::Left => {}
        }
        let place = format!("{name}, before routing");
        self.ruled(&place, facts.inner())?;
        self.others(&place, &[PREROUTING]);
        let route = facts.route.as_ref()?;
        match &route.kind {
            RouteKind::Refused(why) => self.drops(
                "routing",
                format!("the kernel routes it nowhere: {why}"),
                &[&route.entry],
            ),
            RouteKind::Local => {
                self.passes("routing", "to this host itself", &[&route.entry])?;
                self.end_at_host()
            }
            RouteKind::Unicast if facts.bridge().is_some_and(|it| it.index == route.link) => {
                let decision = format!("to {}, from {name}", facts.ground.bridge);
                self.passes("routing", decision, &[&route.entry])?;
                self.others("forwarding", &[FORWARD]);
                self.reach_container(facts.question.destination)
            }
            RouteKind::Unicast | RouteKind::Other(_) => {
                let decision = format!(
                    "leads to {}, and not to the containers",
                    facts.name_of(route.link)
                );
                self.unknown("routing", decision, &[&route.entry])
            }
        }
    }

    /// Some interface where what comes from peers is judged.
    fn first_underlay(&mut self) -> Option<u32> {
        let facts = self.facts;
        let judged = |link: &&u32| facts.links.contains_key(link);
        let node = facts.node.as_ref();
        let known = node.and_then(|node| node.underlays.keys().map(|key| &key.link).find(judged));
        let asked = facts
            .link_named(&facts.question.from_interface)
            .map(|link| link.index);
        match asked.or(known.copied()).or(facts.arrival) {
            Some(link) => Some(link),
            None => {
                self.unknown(
                    "underlay",
                    "no interface is known: name it with --from",
                    &[],
                )?;
                None
            }
        }
    }

    /// Whether the packet is for the mesh at all.
    pub(super) fn is_for_the_mesh(&self) -> bool {
        matches!(self.facts.destination, Party::Container | Party::Peer(_))
    }
}
