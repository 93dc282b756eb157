//! Where the kernel routes a packet: asked of the kernel, with its policy rules and whatever it has learnt.

use std::{io, net::Ipv4Addr};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType},
};

use crate::{netlink::reader::Reader, observed::ROUTE_PROTOCOL, observed::message::mtu};

/// What the kernel is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteQuestion {
    pub(crate) destination: Ipv4Addr,
    pub(crate) source: Option<Ipv4Addr>,
    /// Index of the interface by which the packet comes; `None` for one of this host.
    pub(crate) from: Option<u32>,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) kind: RouteKind,
    /// Index of the interface; 0 where it leads nowhere.
    pub(crate) link: u32,
    pub(crate) gateway: Option<Ipv4Addr>,
    /// The address that this host speaks from, where the packet is its own.
    pub(crate) source: Option<Ipv4Addr>,
    /// The largest packet, where the route says so or somebody has told.
    pub(crate) mtu: Option<u32>,
    /// The entry of the routing table that it follows from, for people.
    pub(crate) entry: String,
    /// Whether that is one of ours.
    pub(crate) ours: bool,
}

/// What becomes of what is routed so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteKind {
    /// On by an interface.
    Unicast,
    /// Up to this host.
    Local,
    /// Nowhere, and why.
    Refused(String),
    /// Anything else, by its name.
    Other(String),
}

/// `RTM_F_FIB_MATCH`: the entry itself is told, and not what follows from it.
const FIB_MATCH: u32 = 0x2000;

/// Asks.
///
/// # Errors
///
/// A kernel that does not answer.
pub(crate) fn ask(reader: &Reader, question: RouteQuestion) -> io::Result<Route> {
    let questions = [message(question, 0), message(question, FIB_MATCH)];
    let mut route = Route {
        kind: RouteKind::Refused("no answer".to_owned()),
        link: 0,
        gateway: None,
        source: None,
        mtu: None,
        entry: String::new(),
        ours: false,
    };
    reader.ask_each(&questions, |place, answer| {
        let message = match answer {
            Ok(bytes) => match NetlinkMessage::deserialize(bytes).ok()?.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(message)) => message,
                _ => return None,
            },
            Err(error) => {
                if place == 0 {
                    route.kind = RouteKind::Refused(refusal(&error));
                }
                return Some(());
            }
        };
        match place {
            0 => take(&mut route, &message),
            _ => {
                route.entry = entry(&message);
                route.ours = message.header.protocol == RouteProtocol::from(ROUTE_PROTOCOL);
            }
        }
        Some(())
    })?;
    Ok(route)
}

fn refusal(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH) => "no route".to_owned(),
        Some(libc::EHOSTUNREACH) => {
            "an unreachable route, or forwarding is off where it comes in".to_owned()
        }
        Some(libc::EACCES) => "a route or rule prohibits it".to_owned(),
        Some(libc::EXDEV) => {
            "the way back to its sender does not lead where it comes from (rp_filter)".to_owned()
        }
        Some(libc::EINVAL) => {
            "a blackhole route, or an address that nothing is routed for".to_owned()
        }
        _ => error.to_string(),
    }
}

fn take(route: &mut Route, message: &RouteMessage) {
    route.kind = match message.header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        other => RouteKind::Other(format!("{other:?}").to_lowercase()),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.link = *index,
            RouteAttribute::Gateway(RouteAddress::Inet(via)) => route.gateway = Some(*via),
            RouteAttribute::PrefSource(RouteAddress::Inet(source)) => route.source = Some(*source),
            _ => {}
        }
    }
    route.mtu = mtu(&message.attributes);
}

/// As ip(8) would write it.
fn entry(message: &RouteMessage) -> String {
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let (mut via, mut table) = (String::new(), u32::from(message.header.table));
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => via = format!(" via {gateway}"),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let destination = match message.header.destination_prefix_length {
        0 => "default".to_owned(),
        length => format!("{destination}/{length}"),
    };
    let table = match table {
        254 => "main".to_owned(),
        255 => "local".to_owned(),
        table => table.to_string(),
    };
    let protocol = u8::from(message.header.protocol);
    format!("route {destination}{via} proto {protocol} table {table}")
}

fn message(question: RouteQuestion, flags: u32) -> Vec<u8> {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = 32;
    route.header.flags = RouteFlags::LookupTable | RouteFlags::from_bits_retain(flags);
    route.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(
        question.destination,
    ))];
    if let Some(source) = question.source {
        route.header.source_prefix_length = 32;
        let source = RouteAttribute::Source(RouteAddress::Inet(source));
        route.attributes.push(source);
    }
    if let Some(index) = question.from {
        route.attributes.push(RouteAttribute::Iif(index));
    }
    // Policy rules may go by them.
    route
        .attributes
        .push(RouteAttribute::IpProto(question.protocol));
    if question.port != 0 {
        route.attributes.push(RouteAttribute::Dport(question.port));
    }
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(route));
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;

    #[test]
    fn the_kernel_says_where_it_routes_and_by_which_entry() {
        let reader = Reader::of(NETLINK_ROUTE).unwrap();
        let to = |destination| RouteQuestion {
            destination,
            source: None,
            from: None,
            protocol: 6,
            port: 80,
        };
        let route = ask(&reader, to(Ipv4Addr::LOCALHOST)).unwrap();
        assert_eq!((route.kind, route.link), (RouteKind::Local, 1));
        assert!(route.entry.starts_with("route 127.0.0."), "{}", route.entry);
        // Without policy rules the kernel keeps both tables in one, and calls it the main one.
        let tables = ["table local", "table main"];
        let named = tables.iter().any(|table| route.entry.ends_with(table));
        assert!(named, "{}", route.entry);
    }
}
