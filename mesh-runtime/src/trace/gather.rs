//! Reads what a packet's way is judged by.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::Ipv4Addr,
};

use mesh_model::{Node, Way};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage, address::AddressMessage, link::LinkMessage,
    neighbour::NeighbourMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    Facts, Ground, Protocol, Question,
    party::Party,
    route::{Route, RouteKind, RouteQuestion, ask},
};
use crate::{
    apply::firewall::look::{Looked, look},
    ebpf::live::{Hooked, LiveMaps, hooked},
    netlink::reader::Reader,
    observed::{
        Link, ipsec,
        message::{read_address, read_forwarding, read_link, read_neighbour},
    },
};

/// Reads it all.
pub(super) fn gather(ground: &Ground, question: &Question) -> io::Result<Facts> {
    let reader = Reader::of(NETLINK_ROUTE)?;
    let links = links(&reader)?;
    let local = local(&reader)?;
    let source = Party::of(question.source, ground, &local);
    let destination = Party::of(question.destination, ground, &local);
    let tables = look()?;
    let published = match (destination, question.protocol) {
        (Party::Host, Protocol::Tcp | Protocol::Udp) => published(&tables, question),
        _ => None,
    };
    let index = |name: &str| links.values().find(|it| it.name == name).map(|it| it.index);
    let (bridge, overlay) = (index(&ground.bridge), index(&ground.overlay));
    let arrival = match (source, question.from_interface.as_str()) {
        (_, name) if !name.is_empty() => index(name),
        // The way back is where it comes from, or the kernel would not take it.
        (Party::Outside, _) => Some(ask(&reader, plain(question.source))?.link),
        _ => None,
    };
    let route = ask(
        &reader,
        RouteQuestion {
            destination: published.map_or(question.destination, |(container, _)| container),
            source: Some(question.source),
            from: match source {
                Party::Host => None,
                Party::Container => bridge,
                Party::Peer(_) => overlay,
                Party::Nobody | Party::Outside => arrival,
            },
            protocol: question.protocol.number(),
            port: published.map_or(question.port, |(_, port)| port),
        },
    )?;
    let peer = [destination, source]
        .into_iter()
        .find_map(|party| match party {
            Party::Peer(subnet) => ground.peers.get(&subnet),
            _ => None,
        });
    let peer = peer.map(|(address, _)| *address);
    let outer = peer.map(|peer| ask(&reader, vxlan(ground.host_address, peer, None, ground)));
    let outer = outer.transpose()?;
    let outer_in = match (peer, &outer) {
        (Some(peer), Some(outer)) => Some(ask(
            &reader,
            vxlan(peer, ground.host_address, Some(outer.link), ground),
        )?),
        _ => None,
    };
    let node = LiveMaps::read(&ground.bpffs).map_err(io::Error::other)?;
    let node = node.map(|maps| model(maps, &links, &local, peer, outer.as_ref()));
    let mut facts = Facts {
        ground: ground.clone(),
        question: question.clone(),
        source,
        destination,
        links,
        node,
        hooked: BTreeMap::new(),
        neighbours: neighbours(&reader)?,
        forwarding: forwarding(&reader)?,
        tables,
        published,
        route: Some(route),
        arrival,
        outer,
        outer_in,
        bridges_filtered: fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
            .is_ok_and(|value| value.trim() != "0"),
        transformed: peer.is_some_and(|peer| transforms(ground, peer)),
    };
    facts.hooked = hooks(&facts)?;
    Ok(facts)
}

fn plain(destination: Ipv4Addr) -> RouteQuestion {
    RouteQuestion {
        destination,
        source: None,
        from: None,
        protocol: Protocol::Udp.number(),
        port: 0,
    }
}

fn vxlan(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    from: Option<u32>,
    ground: &Ground,
) -> RouteQuestion {
    RouteQuestion {
        destination,
        source: Some(source),
        from,
        protocol: Protocol::Udp.number(),
        port: ground.vxlan_port,
    }
}

/// What the programs know, as their specification has it.
fn model(
    maps: LiveMaps,
    links: &BTreeMap<u32, Link>,
    local: &BTreeSet<Ipv4Addr>,
    peer: Option<Ipv4Addr>,
    outer: Option<&Route>,
) -> Node {
    let way = |(peer, route): (Ipv4Addr, &Route)| {
        let link = links.get(&route.link)?;
        let way = Way {
            link: route.link,
            next_hop: route.gateway.unwrap_or(peer),
            mtu: route.mtu.unwrap_or(link.mtu),
        };
        (route.kind == RouteKind::Unicast).then_some((peer, way))
    };
    Node {
        config: maps.config,
        ways: peer.zip(outer).and_then(way).into_iter().collect(),
        underlays: maps.underlays,
        local: local.clone(),
        peers: maps.peers,
        vteps: maps.vteps,
        endpoints: maps.endpoints,
        macs: maps.macs,
        strict_ports: maps.strict_ports,
        links: links.keys().copied().collect(),
    }
}

/// Programs at the interfaces that a packet may come by.
fn hooks(facts: &Facts) -> io::Result<BTreeMap<u32, Hooked>> {
    let ends = [facts.question.source, facts.question.destination];
    let mut indexes: BTreeSet<u32> = ends
        .into_iter()
        .filter_map(|address| Some(facts.container(address)?.0))
        .collect();
    let named = [
        &facts.ground.bridge,
        &facts.ground.overlay,
        &facts.question.from_interface,
    ];
    indexes.extend(
        named
            .into_iter()
            .filter_map(|name| Some(facts.link_named(name)?.index)),
    );
    let routes = [&facts.route, &facts.outer];
    indexes.extend(routes.into_iter().flatten().map(|route| route.link));
    indexes.extend(facts.arrival);
    let mut all = BTreeMap::new();
    for index in indexes {
        if let Some(link) = facts.links.get(&index) {
            all.insert(index, hooked(index, &link.name)?);
        }
    }
    Ok(all)
}

/// Whom a published port leads to, by our maps `published_at` and `published`: a protocol and a port, each filled up to four
/// bytes, to an address and a port.
fn published(tables: &Looked, question: &Question) -> Option<(Ipv4Addr, u16)> {
    let [high, low] = question.port.to_be_bytes();
    let key = [question.protocol.number(), 0, 0, 0, high, low, 0, 0];
    let at = [&question.destination.octets()[..], &key].concat();
    let found = |map: &str, key: &[u8]| {
        let mut elements = tables.elements.get(map)?.iter();
        let to = elements.find_map(|element| element.strip_prefix(key))?;
        let [a, b, c, d, high, low, ..] = *to else {
            return None;
        };
        Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
    };
    found("published_at", &at).or_else(|| found("published", &key))
}

fn transforms(ground: &Ground, peer: Ipv4Addr) -> bool {
    match ipsec::policies() {
        Ok(policies) => policies
            .iter()
            .any(|policy| policy.concerns(ground.host_address, peer, ground.vxlan_port)),
        // Nobody can tell: it is said so.
        Err(_) => true,
    }
}

fn dump(
    reader: &Reader,
    message: RouteNetlinkMessage,
    mut take: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    // Changed meanwhile or not: it is a look at one moment either way.
    reader.ask(&bytes, |answer| {
        match NetlinkMessage::deserialize(answer).ok()?.payload {
            NetlinkPayload::InnerMessage(message) => take(message),
            _ => return None,
        }
        Some(())
    })?;
    Ok(())
}

fn links(reader: &Reader) -> io::Result<BTreeMap<u32, Link>> {
    let mut links = BTreeMap::new();
    dump(
        reader,
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        |message| {
            if let RouteNetlinkMessage::NewLink(message) = message {
                let link = read_link(&message);
                links.insert(link.index, link);
            }
        },
    )?;
    Ok(links)
}

/// Addresses of this host.
fn local(reader: &Reader) -> io::Result<BTreeSet<Ipv4Addr>> {
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet;
    let mut local = BTreeSet::new();
    dump(
        reader,
        RouteNetlinkMessage::GetAddress(question),
        |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                local.extend(read_address(&message).map(|it| it.address.addr()));
            }
        },
    )?;
    Ok(local)
}

fn neighbours(reader: &Reader) -> io::Result<Vec<crate::observed::Neighbour>> {
    let mut all = Vec::new();
    dump(reader, of_family(AddressFamily::Inet), |message| {
        if let RouteNetlinkMessage::NewNeighbour(message) = message {
            all.extend(read_neighbour(&message));
        }
    })?;
    Ok(all)
}

fn forwarding(reader: &Reader) -> io::Result<Vec<crate::observed::Forwarding>> {
    let mut all = Vec::new();
    dump(reader, of_family(AddressFamily::Bridge), |message| {
        if let RouteNetlinkMessage::NewNeighbour(message) = message {
            all.extend(read_forwarding(&message));
        }
    })?;
    Ok(all)
}

fn of_family(family: AddressFamily) -> RouteNetlinkMessage {
    let mut question = NeighbourMessage::default();
    question.header.family = family;
    RouteNetlinkMessage::GetNeighbour(question)
}
