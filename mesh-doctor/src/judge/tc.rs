//! Whether filters and queueing disciplines of tc(8) take or spoil packets of the mesh. Pure.
//!
//! What bends packets for a purpose is left alone: shaping, policing, a redirection to an ifb device, by which traffic is
//! shaped as it arrives, and programs, of which nobody knows what they decide.

use std::net::Ipv4Addr;

use mesh_problems::{
    Problem,
    catalog::host::{PACKETS_IMPAIRED, PACKETS_TAKEN},
};

use crate::snapshot::{Mesh, Network, Ways};

/// Ethernet protocols (`ETH_P_*`) that a filter may be about and still meet IPv4.
const IPV4: u16 = 0x0800;
const ALL: u16 = 0x0003;
const UDP: u8 = 17;
/// `ETH_P_IP` packets without options have their ports here.
const HEADER: usize = 20;

/// Where a filter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Arriving,
    Leaving,
}

/// What a filter does with what it meets, if that ends the packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    Drops,
    /// To another interface.
    LeadsTo(u32),
}

/// Four bytes of an IPv4 packet, counted from its header, that have to be so, in network byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) offset: usize,
    pub(crate) mask: [u8; 4],
    pub(crate) value: [u8; 4],
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) link: u32,
    pub(crate) side: Side,
    /// The Ethernet protocol that it is about.
    pub(crate) protocol: u16,
    pub(crate) keys: Vec<Key>,
    /// Whether it asks for something that is not read here.
    pub(crate) opaque: bool,
    pub(crate) take: Take,
}

/// A queueing discipline that loses or spoils packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Impairment {
    pub(crate) link: u32,
    /// What it does, such as `loses 10 %`.
    pub(crate) what: String,
    /// Whether nothing gets through.
    pub(crate) all: bool,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TrafficControl {
    /// Those that end a packet's way.
    pub(crate) filters: Vec<Filter>,
    pub(crate) impairments: Vec<Impairment>,
    /// How many filters there are at the interfaces that were looked at, ours left out.
    pub(crate) others: usize,
}

/// A packet of the mesh, as far as it is known beforehand.
struct Packet {
    bytes: [Option<u8>; HEADER + 4],
}

impl Packet {
    fn new() -> Self {
        let mut bytes = [None; HEADER + 4];
        bytes[0] = Some(0x45);
        Self { bytes }
    }

    /// VXLAN between two hosts.
    fn vxlan(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Self {
        let mut packet = Self::new();
        packet.bytes[9] = Some(UDP);
        for (at, byte) in from.octets().into_iter().chain(to.octets()).enumerate() {
            packet.bytes[12 + at] = Some(byte);
        }
        for (at, byte) in port.to_be_bytes().into_iter().enumerate() {
            packet.bytes[HEADER + 2 + at] = Some(byte);
        }
        packet
    }

    /// Whether it certainly has these bytes.
    fn has(&self, key: &Key) -> bool {
        key.mask
            .iter()
            .zip(key.value)
            .enumerate()
            .all(|(at, (mask, value))| {
                *mask == 0
                    || self
                        .bytes
                        .get(key.offset + at)
                        .copied()
                        .flatten()
                        .is_some_and(|byte| byte & mask == value & mask)
            })
    }

    /// Whether a filter certainly meets it.
    fn is_met(&self, filter: &Filter) -> bool {
        !filter.opaque
            && [IPV4, ALL].contains(&filter.protocol)
            && filter.keys.iter().all(|key| self.has(key))
    }
}

/// The interfaces that packets of the mesh pass.
pub(crate) fn looked_at(mesh: &Mesh, network: &Network, ways: &Ways) -> Vec<u32> {
    let mut links: Vec<u32> = mesh.underlays(network, ways).into_iter().collect();
    links.extend(mesh.overlay);
    links.extend(mesh.bridge);
    let ports = network.links.values();
    links.extend(
        ports
            .filter(|link| mesh.bridge.is_some() && link.master == mesh.bridge)
            .map(|link| link.index),
    );
    links
}

/// What takes or spoils what is the mesh's.
pub(crate) fn judge(
    mesh: &Mesh,
    network: &Network,
    ways: &Ways,
    seen: &TrafficControl,
) -> Vec<Problem> {
    let underlays = mesh.underlays(network, ways);
    let mut problems = Vec::new();
    for filter in &seen.filters {
        let packets = match underlays.contains(&filter.link) {
            true => of_underlay(mesh, filter.side),
            false => vec![Packet::new()],
        };
        let harmless = match filter.take {
            Take::Drops => false,
            Take::LeadsTo(to) => network.links.get(&to).is_some_and(|to| to.kind == "ifb"),
        };
        if !harmless && packets.iter().any(|packet| packet.is_met(filter)) {
            problems.push(taken(
                mesh,
                network,
                filter,
                underlays.contains(&filter.link),
            ));
        }
    }
    for impairment in &seen.impairments {
        let Impairment { link, what, all } = impairment;
        let name = network.name_of(*link);
        let kind = match all {
            true => &PACKETS_TAKEN,
            false => &PACKETS_IMPAIRED,
        };
        problems.push(
            Problem::new(kind, format!("a queueing discipline of {name} {what}")).remedied_by(
                format!("delete it, unless it is meant (tc qdisc delete dev {name} root)"),
            ),
        );
    }
    problems
}

fn of_underlay(mesh: &Mesh, side: Side) -> Vec<Packet> {
    let Some(own) = mesh.host_address else {
        return Vec::new();
    };
    let packet = |peer: Ipv4Addr| match side {
        Side::Arriving => Packet::vxlan(peer, own, mesh.port),
        Side::Leaving => Packet::vxlan(own, peer, mesh.port),
    };
    mesh.peers.iter().map(|peer| packet(peer.address)).collect()
}

fn taken(mesh: &Mesh, network: &Network, filter: &Filter, underlay: bool) -> Problem {
    let name = network.name_of(filter.link);
    let (what, side) = match filter.side {
        Side::Arriving => ("comes in", "ingress"),
        Side::Leaving => ("leaves", "egress"),
    };
    let whose = match (underlay, mesh.overlay == Some(filter.link)) {
        (true, _) => "VXLAN",
        (false, true) => "what peers' containers exchange with ours",
        (false, false) => "what containers send or receive",
    };
    let does = match filter.take {
        Take::Drops => "drops".to_owned(),
        Take::LeadsTo(to) => format!("leads to {}", network.name_of(to)),
    };
    Problem::new(
        &PACKETS_TAKEN,
        format!("a filter of tc on {name} {does} {whose} where it {what}"),
    )
    .remedied_by(format!(
        "delete it, unless it is meant (tc filter show dev {name} {side})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::tests::{ETH0, OVERLAY, mesh, network},
        snapshot::Link,
    };

    fn filter(link: u32, keys: Vec<Key>) -> Filter {
        Filter {
            link,
            side: Side::Arriving,
            protocol: IPV4,
            keys,
            opaque: false,
            take: Take::Drops,
        }
    }

    fn codes(network: &Network, filter: Filter) -> Vec<&'static str> {
        let seen = TrafficControl {
            filters: vec![filter],
            ..TrafficControl::default()
        };
        let problems = judge(&mesh(), network, &Ways::default(), &seen);
        problems.iter().map(|it| it.kind.code).collect()
    }

    /// UDP to that port, as `tc filter … u32 match ip protocol 17 0xff match ip dport PORT 0xffff` asks for it.
    fn udp_to(port: u16) -> Vec<Key> {
        let [high, low] = port.to_be_bytes();
        vec![
            Key {
                offset: 8,
                mask: [0, 0xff, 0, 0],
                value: [0, UDP, 0, 0],
            },
            Key {
                offset: 20,
                mask: [0, 0, 0xff, 0xff],
                value: [0, 0, high, low],
            },
        ]
    }

    #[test]
    fn a_filter_that_drops_vxlan_is_told_and_one_that_drops_something_else_is_not() {
        let network = network();
        assert_eq!(codes(&network, filter(ETH0, Vec::new())), ["packets-taken"]);
        assert_eq!(
            codes(&network, filter(ETH0, udp_to(4789))),
            ["packets-taken"]
        );
        assert_eq!(codes(&network, filter(ETH0, udp_to(53))), [""; 0]);
        let arp = Filter {
            protocol: 0x0806,
            ..filter(ETH0, Vec::new())
        };
        assert_eq!(codes(&network, arp), [""; 0]);
        let opaque = Filter {
            opaque: true,
            ..filter(ETH0, Vec::new())
        };
        assert_eq!(codes(&network, opaque), [""; 0]);
    }

    #[test]
    fn what_is_led_elsewhere_is_told_but_not_what_is_shaped_as_it_arrives() {
        let mut network = network();
        network.links.insert(
            20,
            Link {
                index: 20,
                name: "ifb0".to_owned(),
                kind: "ifb".to_owned(),
                ..Link::default()
            },
        );
        let to = |index| Filter {
            take: Take::LeadsTo(index),
            ..filter(OVERLAY, Vec::new())
        };
        assert_eq!(codes(&network, to(ETH0)), ["packets-taken"]);
        assert_eq!(codes(&network, to(20)), [""; 0]);
    }

    #[test]
    fn a_discipline_that_loses_packets_is_told_with_how_many() {
        let impaired = |what: &str, all| TrafficControl {
            impairments: vec![Impairment {
                link: ETH0,
                what: what.to_owned(),
                all,
            }],
            ..TrafficControl::default()
        };
        let judged = |seen| judge(&mesh(), &network(), &Ways::default(), &seen);
        let problems = judged(impaired("loses 10 % of what it sends", false));
        assert_eq!(problems[0].kind.code, "packets-impaired");
        assert_eq!(
            problems[0].observed,
            "a queueing discipline of eth0 loses 10 % of what it sends"
        );
        assert_eq!(
            judged(impaired("drops all", true))[0].kind.code,
            "packets-taken"
        );
    }
}
