//! An event as the call `Monitor` tells of it. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::Ipv4Net;
use mesh_layout::{
    DropReason, ENCAPSULATION_LEN, ETHERNET_LEN, EventProgram, PacketEvent, PassReason,
    VERDICT_DELIVER, VERDICT_DROP, VERDICT_FORWARD, VERDICT_PASS,
};
use mesh_proto::mesh::{
    MonitorEvent,
    monitor_event::{Path, Verdict},
};

use crate::{
    ebpf::{listeners::RuleDrops, watch::Untold},
    wanted::peer::Peer,
};

/// Names of what events have numbers of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// This node's underlay address.
    pub(crate) host_address: Option<Ipv4Addr>,
    pub(crate) peers: Arc<BTreeMap<Ipv4Net, Peer>>,
    /// Interfaces by index.
    pub(crate) links: BTreeMap<u32, String>,
}

/// What is known beside the events.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) names: Arc<Names>,
    /// Since one began to look.
    pub(crate) untold: Untold,
}

impl Names {
    /// The peer that a packet is from or to. Whom it says it is from may be a lie: who sent it from the underlay is known
    /// by the address it came from, and what a container sent is for whom it says and no more.
    fn peer_of(
        &self,
        program: Option<EventProgram>,
        outer_source: IpAddr,
        [source, destination]: [IpAddr; 2],
    ) -> Option<(&Ipv4Net, &Peer)> {
        let in_subnet = |address: IpAddr| match address {
            IpAddr::V4(address) => self
                .peers
                .iter()
                .find(|(subnet, _)| subnet.contains(&address)),
            IpAddr::V6(_) => None,
        };
        match program {
            Some(EventProgram::Decapsulate) if is_known(outer_source) => self
                .peers
                .iter()
                .find(|it| IpAddr::V4(it.1.address) == outer_source),
            Some(
                EventProgram::Encapsulate | EventProgram::CatchAll | EventProgram::CountEgress,
            ) => in_subnet(destination),
            Some(EventProgram::Decapsulate | EventProgram::SafetyNet) | None => in_subnet(source),
        }
    }

    /// What a program told, at that many nanoseconds since 1970.
    pub(crate) fn of_program(&self, event: &PacketEvent, time_ns: u64) -> MonitorEvent {
        let [outer_source, outer_destination, source, destination] = [
            event.outer_source,
            event.outer_destination,
            event.inner_source,
            event.inner_destination,
        ]
        .map(|bytes| Ipv6Addr::from(bytes).to_canonical());
        let program = EventProgram::ALL
            .into_iter()
            .find(|program| *program as u8 == event.program);
        let peer = self.peer_of(program, outer_source, [source, destination]);
        // What the fast path took off its guards had compared with these.
        let delivered = (event.verdict == VERDICT_DELIVER
            && program == Some(EventProgram::Decapsulate))
        .then_some(())
        .and(peer);
        let outer = match delivered {
            Some((_, peer)) => [Some(peer.address.into()), self.host_address.map(IpAddr::V4)],
            None => [Some(outer_source), Some(outer_destination)],
        }
        .map(|address| address.map_or_else(String::new, shown));
        let headers = match is_known(outer_source) && is_known(source) {
            true => ETHERNET_LEN + ENCAPSULATION_LEN,
            false => ETHERNET_LEN,
        };
        let [outer_source, outer_destination] = outer;
        MonitorEvent {
            time_ns,
            verdict: verdict(event.verdict).into(),
            path: path(event.verdict, program).into(),
            reason: reason(event).to_owned(),
            program: program.map_or("unknown", |it| it.name()).to_owned(),
            peer: peer.map_or_else(String::new, |(subnet, _)| subnet.to_string()),
            peer_name: peer.map_or_else(String::new, |(_, peer)| peer.hostname.clone()),
            outer_source,
            outer_destination,
            source: shown(source),
            destination: shown(destination),
            source_port: event.source_port.into(),
            destination_port: event.destination_port.into(),
            protocol: protocol(event.protocol),
            vni: event.vni,
            length: event.length.saturating_sub(headers as u32),
            interface: self.links.get(&event.link).cloned().unwrap_or_default(),
            packets: 1,
            rule: String::new(),
        }
    }

    /// What a rule of ours dropped.
    pub(crate) fn of_rule(drops: &RuleDrops, time_ns: u64) -> MonitorEvent {
        MonitorEvent {
            time_ns,
            verdict: Verdict::Dropped.into(),
            path: Path::Kernel.into(),
            reason: "rule".to_owned(),
            program: format!("{} quilt_mesh {}", drops.family, drops.chain),
            packets: drops.packets,
            rule: drops.rule.clone(),
            ..MonitorEvent::default()
        }
    }
}

fn is_known(address: IpAddr) -> bool {
    !address.is_unspecified()
}

fn shown(address: IpAddr) -> String {
    match is_known(address) {
        true => address.to_string(),
        false => String::new(),
    }
}

fn verdict(verdict: u8) -> Verdict {
    match verdict {
        VERDICT_DROP => Verdict::Dropped,
        VERDICT_PASS => Verdict::Passed,
        VERDICT_FORWARD => Verdict::Forwarded,
        VERDICT_DELIVER => Verdict::Delivered,
        _ => Verdict::Unspecified,
    }
}

/// Which path has it, or had it when it was dropped.
fn path(verdict: u8, program: Option<EventProgram>) -> Path {
    use EventProgram as Program;
    match program {
        _ if verdict == VERDICT_PASS => Path::Kernel,
        Some(Program::SafetyNet | Program::CountEgress) => Path::Kernel,
        Some(Program::Encapsulate | Program::CatchAll | Program::Decapsulate) => Path::Fast,
        None => Path::Unspecified,
    }
}

fn reason(event: &PacketEvent) -> &'static str {
    const UNKNOWN: &str = "unknown";
    match event.verdict {
        VERDICT_DROP => DropReason::ALL
            .iter()
            .find(|reason| **reason as u32 == event.reason)
            .map_or(UNKNOWN, |reason| reason.name()),
        VERDICT_PASS => PassReason::ALL
            .iter()
            .find(|reason| **reason as u32 == event.reason)
            .map_or(UNKNOWN, |reason| reason.name()),
        _ => "",
    }
}

/// The protocol by its name, where it is one that everybody knows.
fn protocol(number: u8) -> String {
    match number {
        0 => String::new(),
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        number => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use mesh_layout::{EVENT_VERSION, EVENT_WATCHED, mapped};

    use super::*;

    fn names() -> Names {
        let peer = Peer {
            address: Ipv4Addr::new(192, 0, 2, 3),
            hostname: "host2".to_owned(),
            suspect: false,
            mtu: None,
        };
        Names {
            host_address: Some(Ipv4Addr::new(192, 0, 2, 2)),
            peers: Arc::new([("10.42.2.0/24".parse().unwrap(), peer)].into()),
            links: [(7, "eth0".to_owned())].into(),
        }
    }

    fn event(program: EventProgram, verdict: u8, reason: u32) -> PacketEvent {
        PacketEvent {
            version: EVENT_VERSION,
            kind: EVENT_WATCHED,
            program: program as u8,
            verdict,
            reason,
            link: 7,
            length: 148,
            vni: 100,
            source_port: 4444,
            destination_port: 80,
            protocol: 6,
            inner_source: mapped([10, 42, 2, 5]),
            inner_destination: mapped([10, 42, 1, 5]),
            ..PacketEvent::default()
        }
    }

    #[test]
    fn what_the_fast_path_has_taken_off_is_told_as_it_was_before() {
        let told = names().of_program(&event(EventProgram::Decapsulate, VERDICT_DELIVER, 0), 9);
        assert_eq!(told.verdict(), Verdict::Delivered);
        assert_eq!(told.path(), Path::Fast);
        assert_eq!((told.reason.as_str(), told.time_ns), ("", 9));
        assert_eq!(told.outer_source, "192.0.2.3");
        assert_eq!(told.outer_destination, "192.0.2.2");
        assert_eq!(
            (told.peer.as_str(), told.peer_name.as_str()),
            ("10.42.2.0/24", "host2")
        );
        assert_eq!((told.protocol.as_str(), told.destination_port), ("tcp", 80));
        assert_eq!((told.length, told.interface.as_str()), (134, "eth0"));
        let by_kernel = names().of_program(&event(EventProgram::SafetyNet, VERDICT_DELIVER, 0), 9);
        assert_eq!(by_kernel.path(), Path::Kernel);
        assert_eq!(by_kernel.outer_source, "", "nobody has seen it");
    }

    #[test]
    fn the_length_is_that_of_the_inner_packet_on_both_sides_of_encapsulation() {
        let before = event(
            EventProgram::Encapsulate,
            VERDICT_PASS,
            PassReason::TooBig as u32,
        );
        let after = PacketEvent {
            length: 148 + ENCAPSULATION_LEN as u32,
            outer_source: mapped([192, 0, 2, 2]),
            outer_destination: mapped([192, 0, 2, 3]),
            ..event(EventProgram::Encapsulate, VERDICT_FORWARD, 0)
        };
        let [before, after] = [before, after].map(|event| names().of_program(&event, 1));
        assert_eq!((before.length, after.length), (134, 134));
        assert_eq!(
            (before.reason.as_str(), after.reason.as_str()),
            ("too_big", "")
        );
        assert_eq!((before.path(), after.path()), (Path::Kernel, Path::Fast));
    }

    #[test]
    fn every_reason_has_its_name_and_others_are_said_to_be_unknown() {
        for reason in DropReason::ALL {
            let event = event(EventProgram::Decapsulate, VERDICT_DROP, *reason as u32);
            assert_eq!(names().of_program(&event, 1).reason, reason.name());
        }
        for reason in PassReason::ALL {
            let event = event(EventProgram::Decapsulate, VERDICT_PASS, *reason as u32);
            assert_eq!(names().of_program(&event, 1).reason, reason.name());
        }
        let event = event(EventProgram::Decapsulate, VERDICT_DROP, 4711);
        assert_eq!(names().of_program(&event, 1).reason, "unknown");
    }

    #[test]
    fn a_peer_that_lies_about_its_containers_is_named_by_the_address_it_sends_from() {
        let lie = PacketEvent {
            outer_source: mapped([192, 0, 2, 3]),
            inner_source: mapped([10, 42, 9, 9]),
            ..event(
                EventProgram::Decapsulate,
                VERDICT_DROP,
                DropReason::ForeignSource as u32,
            )
        };
        let told = names().of_program(&lie, 1);
        assert_eq!(
            (told.peer_name.as_str(), told.source.as_str()),
            ("host2", "10.42.9.9")
        );
        let stranger = PacketEvent {
            outer_source: mapped([192, 0, 2, 9]),
            inner_source: mapped([10, 42, 2, 5]),
            ..lie
        };
        assert_eq!(names().of_program(&stranger, 1).peer, "");
        // A container of this node that says it is another node's.
        let forged = PacketEvent {
            inner_source: mapped([10, 42, 2, 5]),
            ..event(
                EventProgram::Encapsulate,
                VERDICT_DROP,
                DropReason::SpoofedAddress as u32,
            )
        };
        assert_eq!(names().of_program(&forged, 1).peer, "");
    }
}
