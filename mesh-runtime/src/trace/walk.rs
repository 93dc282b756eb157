//! Goes a packet's way by what was looked at. Pure.

use std::{collections::BTreeSet, net::Ipv4Addr};

use mesh_layout::PassReason;
use mesh_model::{Arrival, Ethernet, Ipv4, Node, Program, Redirect, Udp, Vxlan};

use super::{Facts, Hop, Protocol, Trace, Verdict, party::Party};
use crate::{apply::firewall::look::Family, diff::change::DisplayMac, ebpf::Mac};

/// Goes the way.
pub(super) fn walk(facts: &Facts) -> Trace {
    let mut walk = Walk {
        facts,
        hops: Vec::new(),
        path: "",
    };
    walk.check_rules();
    // Where it ends is the last hop, whatever that says.
    let _ended = match facts.source {
        Party::Container => walk.start_at_container(),
        Party::Peer(_) => walk.start_at_peer(),
        Party::Host => walk.start_at_host(),
        Party::Nobody if matches!(facts.destination, Party::Container) => walk.start_at_peer(),
        Party::Nobody | Party::Outside => walk.start_outside(),
    };
    Trace {
        hops: walk.hops,
        path: walk.path,
        other_node: match facts.peer() {
            Some(_) => facts.peer_name(),
            None => String::new(),
        },
    }
}

/// On the way. What ends it returns `None`.
pub(super) struct Walk<'a> {
    pub(super) facts: &'a Facts,
    hops: Vec<Hop>,
    pub(super) path: &'static str,
}

/// What a program does with the packet that does not drop it.
pub(super) enum Step {
    Carried(Redirect),
    Left,
}

/// A hook of somebody's rules.
#[derive(Clone, Copy)]
pub(super) enum Rules {
    /// Of IPv4, by its number (`NF_INET_*`), with those tables of the older iptables.
    Ip(u32, &'static [&'static str]),
    /// Of the bridge (`NF_BR_*`).
    Bridge(u32),
    /// Of one interface: 0 for what comes, 1 for what leaves.
    Interface(u32, u32),
}

/// Before the routing of what comes, to this host, through it, from it, and before anything leaves.
pub(super) const PREROUTING: Rules = Rules::Ip(0, &["raw", "mangle", "nat"]);
pub(super) const INPUT: Rules = Rules::Ip(1, &["mangle", "filter", "nat"]);
pub(super) const FORWARD: Rules = Rules::Ip(2, &["mangle", "filter"]);
pub(super) const OUTPUT: Rules = Rules::Ip(3, &["raw", "mangle", "nat", "filter"]);
pub(super) const POSTROUTING: Rules = Rules::Ip(4, &["mangle", "nat"]);

impl Walk<'_> {
    pub(super) fn hop(
        &mut self,
        place: impl Into<String>,
        decision: impl Into<String>,
        evidence: &[&str],
        verdict: Verdict,
    ) {
        self.hops.push(Hop {
            place: place.into(),
            decision: decision.into(),
            evidence: evidence
                .iter()
                .filter(|it| !it.is_empty())
                .map(|&it| it.to_owned())
                .collect(),
            verdict,
        });
    }

    /// It goes on.
    pub(super) fn passes(
        &mut self,
        place: impl Into<String>,
        decision: impl Into<String>,
        evidence: &[&str],
    ) -> Option<()> {
        self.hop(place, decision, evidence, Verdict::Passes);
        Some(())
    }

    /// It ends here.
    pub(super) fn drops(
        &mut self,
        place: impl Into<String>,
        decision: impl Into<String>,
        evidence: &[&str],
    ) -> Option<()> {
        self.hop(place, decision, evidence, Verdict::Drops);
        None
    }

    /// Nobody can tell, and what follows depends on it.
    pub(super) fn unknown(
        &mut self,
        place: impl Into<String>,
        decision: impl Into<String>,
        evidence: &[&str],
    ) -> Option<()> {
        self.hop(place, decision, evidence, Verdict::NotEvaluated);
        None
    }

    /// An interface by which it goes.
    pub(super) fn by_link(&mut self, index: u32, what: &str) -> Option<()> {
        let name = self.facts.name_of(index);
        match self.facts.links.get(&index) {
            Some(link) if link.up => Some(()),
            Some(_) => self.drops(name, format!("{what} is down"), &[]),
            None => self.drops(name, format!("{what} is not there"), &[]),
        }
    }

    /// Names others' rules at a place, if there are any. They may drop the packet, or change it.
    pub(super) fn others(&mut self, place: &str, at: &[Rules]) {
        let tables = &self.facts.tables;
        let mut names: BTreeSet<String> = BTreeSet::new();
        for rules in at {
            let at_hook = |family, hook, interface: &str| {
                tables
                    .chains
                    .iter()
                    .filter(move |chain| chain.family == family && chain.hook == hook)
                    .filter(move |chain| !chain.empty)
                    // One of several interfaces is told without their names.
                    .filter(move |chain| chain.interface.is_empty() || chain.interface == interface)
                    .map(|chain| chain.name.clone())
                    .collect::<Vec<_>>()
            };
            match *rules {
                Rules::Ip(hook, legacy) => {
                    names.extend(at_hook(Family::Ip, hook, ""));
                    let legacy = legacy
                        .iter()
                        .filter(|name| tables.legacy.iter().any(|it| it == *name));
                    names.extend(legacy.map(|name| format!("iptables (legacy), table {name}")));
                }
                Rules::Bridge(hook) => names.extend(at_hook(Family::Bridge, hook, "")),
                Rules::Interface(hook, link) => {
                    let name = self.facts.name_of(link);
                    names.extend(at_hook(Family::Netdev, hook, &name));
                }
            }
        }
        if !names.is_empty() {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self.hop(
                place,
                "somebody else's rules: not evaluated",
                &names,
                Verdict::NotEvaluated,
            );
        }
    }

    /// Names others' programs at an interface, if there are any.
    pub(super) fn others_programs(&mut self, link: u32, ingress: bool) {
        let Some(hooked) = self.facts.hooked.get(&link) else {
            return;
        };
        let names = match ingress {
            true => &hooked.ingress,
            false => &hooked.egress,
        };
        let ours = |name: &&String| Program::ALL.iter().any(|it| it.name() == name.as_str());
        let others: Vec<&str> = names
            .iter()
            .filter(|name| !ours(name))
            .map(String::as_str)
            .collect();
        if !others.is_empty() {
            let place = format!(
                "{}, {}",
                self.facts.name_of(link),
                if ingress { "what comes" } else { "what leaves" }
            );
            self.hop(
                place,
                "somebody else's program or filter (tc): not evaluated",
                &others,
                Verdict::NotEvaluated,
            );
        }
    }

    /// What a program of ours does with a frame.
    pub(super) fn program(
        &mut self,
        program: Program,
        link: u32,
        frame: &[u8],
        evidence: &[&str],
        claims_anothers: bool,
    ) -> Option<Step> {
        let facts = self.facts;
        let place = format!("{}, program {}", facts.name_of(link), program.name());
        let node = facts.node.as_ref();
        let Some(node) = node.filter(|_| facts.has_program(link, program.name())) else {
            self.passes(place, "no program here: left to the kernel path", &[])?;
            return Some(Step::Left);
        };
        let arrival = Arrival {
            claims_anothers,
            ..Arrival::single(frame, link)
        };
        use mesh_model::Verdict as Judged;
        match program.judge(node, &arrival).verdict {
            Judged::Drop(reason) => {
                self.drops(place, format!("dropped: {}", reason.name()), evidence)?;
                None
            }
            Judged::Pass(reason) => {
                let why = self.why_left(reason);
                let evidence: Vec<&str> = evidence.iter().copied().chain([why.as_str()]).collect();
                let decision = format!("left to the kernel path: {}", reason.name());
                self.passes(place, decision, &evidence)?;
                Some(Step::Left)
            }
            Judged::Continue => {
                self.passes(place, "left to the kernel path", evidence)?;
                Some(Step::Left)
            }
            Judged::Redirect(redirect) => {
                let decision = match redirect {
                    Redirect::Neighbour { link, next_hop } => format!(
                        "carried by the fast path: out of {} to {next_hop}",
                        facts.name_of(link)
                    ),
                    Redirect::Container { link } => format!(
                        "delivered by the program, into the container behind {}",
                        facts.name_of(link)
                    ),
                };
                self.passes(place, decision, evidence)?;
                Some(Step::Carried(redirect))
            }
        }
    }

    /// What a program has gone by when it left a packet to the kernel.
    fn why_left(&self, reason: PassReason) -> String {
        let facts = self.facts;
        let length = facts.question.length;
        match reason {
            PassReason::TooBig => {
                let mtu = facts.outer.as_ref().and_then(|route| route.mtu);
                let mtu = mtu.map_or_else(String::new, |mtu| format!(", the way takes {mtu}"));
                let config = facts.node.as_ref().map_or(0, |node| node.config.overlay_mtu);
                format!("{length} bytes, and 50 around them; the overlay's MTU is {config}{mtu}")
            }
            PassReason::LeftToKernel => {
                "its container, port or peer is marked so (map endpoints, strict_ports or peers): shaping, or IPsec"
                    .to_owned()
            }
            PassReason::NoEndpoint => format!(
                "map endpoints: nothing for {}, or its interface is gone",
                facts.question.destination
            ),
            PassReason::NoNextHop => facts.outer.as_ref().map_or_else(String::new, |route| {
                format!("to the peer: {}, by {}", route.entry, facts.name_of(route.link))
            }),
            _ => String::new(),
        }
    }

    /// Says where our tables are not what they were written as.
    fn check_rules(&mut self) {
        let there = self.facts.tables.rules;
        match self.facts.ground.rules {
            Some(written) if written != there && there != 0 => {
                let evidence = format!("{there} rules instead of {written}");
                self.hop(
                    "tables inet and bridge quilt_mesh",
                    "our tables are being written, or somebody changed them: their rules are not evaluated",
                    &[&evidence],
                    Verdict::NotEvaluated,
                );
            }
            _ => {}
        }
    }

    /// The IPv4 packet itself, to whom it is for by now.
    pub(super) fn packet(&self, destination: Ipv4Addr, port: u16) -> Vec<u8> {
        let question = &self.facts.question;
        // Whoever sends it has one of these.
        let [from, to] = [40_000_u16, port].map(u16::to_be_bytes);
        let mut body = match question.protocol {
            // An echo request.
            Protocol::Icmp => vec![8, 0, 0, 0, 0, 1, 0, 1],
            Protocol::Udp => [from, to, [0, 8], [0, 0]].concat(),
            // Its first: five words, SYN.
            Protocol::Tcp => [
                &[from, to].concat()[..],
                &[0; 8],
                &[0x50, 2, 0xff, 0xff, 0, 0, 0, 0],
            ]
            .concat(),
        };
        let length = usize::try_from(question.length).unwrap_or(usize::MAX);
        let length = length.clamp(20 + body.len(), usize::from(u16::MAX));
        body.resize(length - 20, 0);
        let header = Ipv4 {
            version: 4,
            words: 5,
            tos: 0,
            total_length: u16::try_from(length).unwrap_or(u16::MAX),
            identification: 1,
            dont_fragment: !question.may_be_fragmented,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: question.protocol.number(),
            source: question.source,
            destination,
        };
        [header.bytes(&[]), body].concat()
    }

    /// The packet in a frame.
    pub(super) fn frame(&self, from: Mac, to: Mac) -> Vec<u8> {
        let question = &self.facts.question;
        let packet = self.packet(question.destination, question.port);
        [&ethernet(from, to)[..], &packet].concat()
    }

    /// The packet in VXLAN, as a peer sends it.
    pub(super) fn vxlan_frame(&self, node: &Node, outer_source: Ipv4Addr) -> Vec<u8> {
        let ground = &self.facts.ground;
        let inner = self.frame([2, 0, 0, 0, 0, 1], node.config.overlay_mac);
        let vxlan = Vxlan {
            flags: mesh_layout::VXLAN_FLAG_VNI,
            vni: ground.vni,
        };
        let data = [&vxlan.bytes()[..], &inner].concat();
        let length = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        let udp = Udp {
            source: 50_000,
            destination: ground.vxlan_port,
            length: length(data.len() + 8),
            checksum: 0,
        };
        let outer = Ipv4 {
            version: 4,
            words: 5,
            tos: 0,
            total_length: length(data.len() + 28),
            identification: 1,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: mesh_layout::PROTOCOL_UDP,
            source: outer_source,
            destination: ground.host_address,
        };
        let frame = [
            &ethernet([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3])[..],
            &outer.bytes(&[]),
        ];
        [&frame.concat()[..], &udp.bytes(), &data].concat()
    }

    /// What is not for this node to say.
    pub(super) fn elsewhere(&mut self, decision: &str) -> Option<()> {
        let question = &self.facts.question;
        let port = match (question.protocol, question.port) {
            (Protocol::Icmp, _) => String::new(),
            (Protocol::Tcp, port) => format!(" --proto tcp --port {port}"),
            (Protocol::Udp, port) => format!(" --proto udp --port {port}"),
        };
        let command = format!(
            "there: meshctl trace {} {}{port}",
            question.source, question.destination
        );
        let place = self.facts.peer_name();
        self.hop(place, decision, &[&command], Verdict::Elsewhere);
        Some(())
    }
}

fn ethernet(from: Mac, to: Mac) -> [u8; 14] {
    Ethernet {
        destination: to,
        source: from,
        ethertype: mesh_layout::ETHERTYPE_IPV4,
    }
    .bytes()
}

/// A MAC address in words.
pub(super) fn mac(mac: Mac) -> String {
    DisplayMac(mac).to_string()
}
