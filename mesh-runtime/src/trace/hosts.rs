//! From this host, and from outside the mesh. Pure.

use mesh_model::Program;

use super::{
    Protocol, Verdict,
    party::Party,
    route::RouteKind,
    walk::{FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING, Rules, Walk},
};

impl Walk<'_> {
    pub(super) fn start_at_host(&mut self) -> Option<()> {
        let facts = self.facts;
        let route = facts.route.as_ref()?;
        let question = &facts.question;
        if question.protocol == Protocol::Udp && question.port == facts.ground.vxlan_port {
            self.hop(
                "from this host",
                "VXLAN: our rules let root alone send it, and who sends is not evaluated",
                &[],
                Verdict::NotEvaluated,
            );
        }
        self.published();
        let name = facts.name_of(route.link);
        match &route.kind {
            RouteKind::Refused(why) => {
                return self.drops(
                    "routing",
                    format!("the kernel routes it nowhere: {why}"),
                    &[&route.entry],
                );
            }
            RouteKind::Other(kind) => {
                return self.unknown(
                    "routing",
                    format!("a route of kind {kind}"),
                    &[&route.entry],
                );
            }
            RouteKind::Local => {
                self.passes("routing", "to this host itself", &[&route.entry])?;
                self.others("from this host", &[OUTPUT, POSTROUTING]);
                return self.end_at_host();
            }
            RouteKind::Unicast => {
                self.passes(
                    "routing",
                    format!("to {name}, from this host"),
                    &[&route.entry],
                )?;
            }
        }
        if facts
            .overlay()
            .is_some_and(|(link, _)| link.index == route.link)
        {
            return self.by_overlay(route, &[OUTPUT, POSTROUTING]);
        }
        self.others("from this host", &[OUTPUT]);
        if facts.bridge().is_some_and(|link| link.index == route.link) {
            return self.reach_container(question.destination);
        }
        self.by_link(route.link, "the interface")?;
        if self.is_for_the_mesh() || facts.destination == Party::Nobody {
            return self.unknown(
                name,
                format!(
                    "leaves this host past {}: what becomes of it there is not known",
                    facts.ground.overlay
                ),
                &[&route.entry],
            );
        }
        self.others("before it leaves", &[POSTROUTING]);
        self.others(&name, &[Rules::Interface(1, route.link)]);
        self.others_programs(route.link, false);
        self.passes(name, "leaves", &[])?;
        self.hop(
            "outside the mesh",
            "not known here",
            &[],
            Verdict::Elsewhere,
        );
        Some(())
    }

    pub(super) fn start_outside(&mut self) -> Option<()> {
        let facts = self.facts;
        let Some(link) = facts.arrival.filter(|link| *link != 0) else {
            return self.unknown(
                "outside the mesh",
                "no way leads to its sender, so nobody knows by which interface it comes: name it with --from",
                &[],
            );
        };
        let name = facts.name_of(link);
        self.by_link(link, "the interface")?;
        self.hop(
            name.clone(),
            "taken to arrive here",
            &["the way to its sender leads by it, or --from names it"],
            Verdict::Passes,
        );
        self.others_programs(link, true);
        if facts.has_program(link, Program::Decapsulate.name()) {
            let frame = self.frame([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            self.program(Program::Decapsulate, link, &frame, &[], false)?;
        }
        self.others(&name, &[Rules::Interface(0, link)]);
        let place = format!("{name}, before routing");
        self.ruled(&place, facts.early_from_outside(&name))?;
        self.others(&place, &[PREROUTING]);
        self.published();
        let route = facts.route.as_ref()?;
        let to = facts.name_of(route.link);
        let overlay = facts
            .overlay()
            .is_some_and(|(it, _)| it.index == route.link);
        let bridge = facts.bridge().is_some_and(|it| it.index == route.link);
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
                self.others("to this host", &[INPUT]);
                self.passes(
                    "this host",
                    "handed to whoever listens there, which is not looked at",
                    &[],
                )
            }
            RouteKind::Unicast if bridge || overlay => {
                self.passes("routing", format!("to {to}, from {name}"), &[&route.entry])?;
                let let_in = self.ruled("forwarding", facts.forward_in(&name, overlay))?;
                self.passes("forwarding", "let in by our rules", &[&let_in])?;
                match overlay {
                    true => self.by_overlay(route, &[FORWARD, POSTROUTING]),
                    false => {
                        self.others("forwarding", &[FORWARD]);
                        self.reach_container(facts.question.destination)
                    }
                }
            }
            RouteKind::Unicast => self.unknown(
                "routing",
                format!("through this host to {to}: not of the mesh"),
                &[&route.entry],
            ),
        }
    }
}
