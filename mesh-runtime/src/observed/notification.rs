//! From the kernel's notifications to what is to be read again. Pure.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use ipnet::Ipv4Net;

use super::dirty::{Dirty, Parts};
use crate::netlink::message::{HEADER_LEN, attribute, kind, split, u32_at};

/// What makes a notification worth a look.
#[derive(Clone, Debug)]
pub(super) struct Interest {
    /// Port of the netlink socket whose requests to change routes and neighbours are no news.
    pub(super) own_port: u32,
    pub(super) cluster: Ipv4Net,
    /// Index of the bridge, and of the VXLAN device; 0 for one that does not exist.
    pub(super) bridge: u32,
    pub(super) overlay: u32,
    /// Underlay addresses of the peers: a host may have a million routes that lead elsewhere.
    pub(super) peers: Arc<BTreeSet<Ipv4Addr>>,
}

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
/// Where `ifinfomsg` has the flags of the interface.
const FLAGS_AT: usize = 8;
const IFF_UP: u32 = libc::IFF_UP as u32;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_NEWNETCONF: u16 = 80;
/// `RT_TABLE_LOCAL`: addresses of this host, whose changes are told by themselves.
const RT_TABLE_LOCAL: u8 = 255;
const RTMSG_LEN: usize = 12;
const RTA_DST: u16 = 1;
const RTA_MULTIPATH: u16 = 9;
const RTA_NH_ID: u16 = 30;

/// Reads what a datagram of notifications says has changed.
///
/// Only message headers are looked at (`nlmsghdr`, `rtmsg`, `ndmsg`; linux/netlink.h,
/// linux/rtnetlink.h, linux/neighbour.h), in the byte order of the host.
pub(super) fn classify(mut datagram: &[u8], interest: &Interest, dirty: &mut Dirty) {
    while let Some((message, rest)) = split(datagram) {
        classify_message(message, interest, dirty);
        datagram = rest;
    }
}

fn classify_message(message: &[u8], interest: &Interest, dirty: &mut Dirty) {
    let body = &message[HEADER_LEN..];
    let caused_here = u32_at(message, 12).is_some_and(|port| port == interest.own_port);
    // `ifinfomsg`, `ifaddrmsg`, `ndmsg` and `tcmsg` have the interface at the same place.
    let link = u32_at(body, 4);
    match kind(message) {
        Some(kind @ (RTM_NEWLINK | RTM_DELLINK)) => match (link, u32_at(body, FLAGS_AT)) {
            (Some(link), Some(flags)) if kind == RTM_NEWLINK && flags & IFF_UP != 0 => {
                dirty.add_link(link);
            }
            (Some(link), _) => dirty.add_fallen_link(link),
            (None, _) => *dirty = Dirty::all(),
        },
        Some(RTM_NEWADDR | RTM_DELADDR) => {
            dirty.parts |= Parts::ADDRESSES | Parts::ROUTES | Parts::NEXT_HOPS;
        }
        Some(RTM_NEWNETCONF) => dirty.parts |= Parts::SETTINGS,
        Some(kind @ (RTM_NEWQDISC | RTM_DELQDISC | RTM_NEWTFILTER | RTM_DELTFILTER)) => {
            dirty.parts |= Parts::SHAPING;
            match link {
                // Of a block of filters that several interfaces share (`TCM_IFINDEX_MAGIC_BLOCK`).
                Some(u32::MAX) | None => dirty.parts |= Parts::LINKS,
                Some(link) => dirty.add_link(link),
            }
            // A filter of ours may be among those that are gone.
            if matches!(kind, RTM_DELQDISC | RTM_DELTFILTER) {
                dirty.parts |= Parts::PROGRAMS;
            }
        }
        Some(RTM_NEWROUTE | RTM_DELROUTE) if !caused_here => {
            dirty.parts |= of_route(body, interest.cluster, &interest.peers);
        }
        Some(RTM_NEWRULE | RTM_DELRULE) => dirty.parts |= Parts::NEXT_HOPS,
        Some(RTM_NEWNEIGH | RTM_DELNEIGH) if !caused_here => {
            let bridge_entry = body.first() == Some(&(libc::AF_BRIDGE as u8));
            if link == Some(interest.overlay) {
                dirty.parts |= Parts::OVERLAY;
            } else if bridge_entry || link == Some(interest.bridge) {
                dirty.parts |= Parts::BRIDGE;
            }
        }
        _ => {}
    }
}

/// What a route that came or went may have changed.
fn of_route(body: &[u8], cluster: Ipv4Net, peers: &BTreeSet<Ipv4Addr>) -> Parts {
    let (Some(&length), Some(&table)) = (body.get(1), body.get(4)) else {
        return Parts::ROUTES | Parts::NEXT_HOPS;
    };
    if table == RT_TABLE_LOCAL {
        return Parts::empty();
    }
    let destination = destination(body).unwrap_or(Ipv4Addr::UNSPECIFIED);
    match Ipv4Net::new(destination, length) {
        // One inside the cluster leads to no peer's host.
        Ok(net) if cluster.contains(&net) => Parts::ROUTES,
        Ok(net)
            if net.prefix_len() > 0 && !(may_be_multipath(body) && leads_to_any(peers, net)) =>
        {
            Parts::NEXT_HOPS
        }
        _ => Parts::ROUTES | Parts::NEXT_HOPS,
    }
}

/// Whether any of some addresses is in a network.
pub(super) fn leads_to_any(addresses: &BTreeSet<Ipv4Addr>, net: Ipv4Net) -> bool {
    let within = addresses.range(net.network()..=net.broadcast());
    within.into_iter().next().is_some()
}

/// Whether a route leads over several next hops, or names a next hop object, which may be a group.
fn may_be_multipath(body: &[u8]) -> bool {
    let of_route = body.get(RTMSG_LEN..).unwrap_or_default();
    [RTA_MULTIPATH, RTA_NH_ID]
        .iter()
        .any(|kind| attribute(of_route, *kind).is_some())
}

/// The destination of a route that is not a default.
fn destination(body: &[u8]) -> Option<Ipv4Addr> {
    let address: [u8; 4] = attribute(body.get(RTMSG_LEN..)?, RTA_DST)?
        .try_into()
        .ok()?;
    Some(address.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interest() -> Interest {
        Interest {
            own_port: 77,
            cluster: "10.42.0.0/16".parse().unwrap(),
            bridge: 5,
            overlay: 6,
            peers: Arc::new([Ipv4Addr::new(192, 0, 2, 3)].into()),
        }
    }

    fn message(kind: u16, port: u32, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        message.extend((16 + body.len() as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(0_u16.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(port.to_ne_bytes());
        message.extend(body);
        message
    }

    fn of_link(kind: u16, port: u32, family: i32, link: u32) -> Vec<u8> {
        let mut body = vec![family as u8, 0, 0, 0];
        body.extend(link.to_ne_bytes());
        body.extend([0; 4]);
        message(kind, port, &body)
    }

    fn route(kind: u16, port: u32, table: u8, destination: [u8; 4], length: u8) -> Vec<u8> {
        let mut body = vec![
            libc::AF_INET as u8,
            length,
            0,
            0,
            table,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        // Another attribute before it.
        body.extend([8, 0, 15, 0, table, 0, 0, 0]);
        if length > 0 {
            body.extend([8, 0, RTA_DST as u8, 0]);
            body.extend(destination);
        }
        message(kind, port, &body)
    }

    fn heard(datagram: &[u8]) -> Dirty {
        let mut dirty = Dirty::default();
        classify(datagram, &interest(), &mut dirty);
        dirty
    }

    #[test]
    fn a_change_of_an_interface_makes_that_one_worth_reading_whoever_made_it() {
        for kind in [RTM_NEWLINK, RTM_DELLINK] {
            let dirty = heard(&of_link(kind, 77, 0, 9));
            assert_eq!(dirty.links, [9].into());
            assert_eq!(dirty.fallen, [9].into(), "its flags say that it is down");
            assert!(dirty.parts.is_empty());
        }
    }

    #[test]
    fn an_interface_that_is_up_has_not_fallen_and_one_that_goes_has() {
        let up = |kind| {
            let mut told = of_link(kind, 0, 0, 9);
            told[HEADER_LEN + FLAGS_AT] = IFF_UP as u8;
            heard(&told)
        };
        assert!(up(RTM_NEWLINK).fallen.is_empty());
        assert_eq!(up(RTM_NEWLINK).links, [9].into());
        assert_eq!(up(RTM_DELLINK).fallen, [9].into());
    }

    #[test]
    fn an_address_that_comes_or_goes_takes_routes_along() {
        for kind in [RTM_NEWADDR, RTM_DELADDR] {
            let dirty = heard(&of_link(kind, 77, libc::AF_INET, 9));
            assert_eq!(
                dirty.parts,
                Parts::ADDRESSES | Parts::ROUTES | Parts::NEXT_HOPS
            );
        }
    }

    #[test]
    fn routes_and_neighbours_that_this_process_changed_are_no_news() {
        for kind in [RTM_NEWNEIGH, RTM_DELNEIGH] {
            assert!(heard(&of_link(kind, 77, libc::AF_INET, 5)).is_clean());
            assert_eq!(
                heard(&of_link(kind, 0, libc::AF_INET, 5)),
                Parts::BRIDGE.into()
            );
            assert_eq!(
                heard(&of_link(kind, 0, libc::AF_INET, 6)),
                Parts::OVERLAY.into()
            );
        }
        for kind in [RTM_NEWROUTE, RTM_DELROUTE] {
            assert!(heard(&route(kind, 77, 254, [10, 42, 2, 0], 24)).is_clean());
        }
    }

    #[test]
    fn a_route_is_news_for_what_it_may_lead_to() {
        let news = |table, destination, length| {
            heard(&route(RTM_NEWROUTE, 0, table, destination, length)).parts
        };
        assert_eq!(news(254, [10, 42, 2, 0], 24), Parts::ROUTES);
        assert_eq!(news(100, [192, 0, 2, 0], 24), Parts::NEXT_HOPS);
        assert_eq!(news(254, [0; 4], 0), Parts::ROUTES | Parts::NEXT_HOPS);
        assert_eq!(news(255, [192, 0, 2, 1], 32), Parts::empty());
        // It may lead to a peer as well as into the cluster.
        assert_eq!(news(254, [10, 0, 0, 0], 8), Parts::NEXT_HOPS);
    }

    #[test]
    fn a_route_of_several_next_hops_is_read_in_whatever_table_it_is() {
        for attribute in [RTA_MULTIPATH, RTA_NH_ID] {
            for kind in [RTM_NEWROUTE, RTM_DELROUTE] {
                let mut several = route(kind, 0, 77, [192, 0, 2, 3], 32);
                several.extend([8, 0, attribute as u8, 0, 10, 0, 0, 0]);
                let length = several.len() as u32;
                several[..4].copy_from_slice(&length.to_ne_bytes());
                assert_eq!(heard(&several).parts, Parts::ROUTES | Parts::NEXT_HOPS);
                // To where no peer is, a host may have a million of them.
                let destination = several.len() - 12;
                several[destination..destination + 4].copy_from_slice(&[198, 51, 100, 1]);
                assert_eq!(heard(&several).parts, Parts::NEXT_HOPS);
            }
        }
    }

    #[test]
    fn a_policy_rule_says_by_which_way_peers_are_reached() {
        for kind in [RTM_NEWRULE, RTM_DELRULE] {
            assert_eq!(
                heard(&of_link(kind, 0, libc::AF_INET, 0)).parts,
                Parts::NEXT_HOPS
            );
        }
    }

    #[test]
    fn neighbours_of_other_interfaces_are_no_news_but_all_forwarding_entries_are() {
        assert!(heard(&of_link(RTM_NEWNEIGH, 0, libc::AF_INET, 4)).is_clean());
        assert_eq!(
            heard(&of_link(RTM_NEWNEIGH, 0, libc::AF_BRIDGE, 4)).parts,
            Parts::BRIDGE
        );
        assert_eq!(
            heard(&of_link(RTM_NEWNEIGH, 0, libc::AF_BRIDGE, 6)).parts,
            Parts::OVERLAY
        );
    }

    #[test]
    fn a_filter_or_qdisc_that_goes_makes_our_programs_worth_a_look() {
        for kind in [RTM_DELQDISC, RTM_DELTFILTER] {
            let dirty = heard(&of_link(kind, 0, 0, 9));
            assert_eq!(dirty.parts, Parts::PROGRAMS | Parts::SHAPING);
        }
    }

    #[test]
    fn a_filter_or_qdisc_that_comes_may_shape_what_its_interface_gets() {
        for kind in [RTM_NEWQDISC, RTM_NEWTFILTER] {
            let dirty = heard(&of_link(kind, 0, 0, 9));
            assert_eq!(dirty.parts, Parts::SHAPING);
            assert_eq!(dirty.links, [9].into());
        }
    }

    #[test]
    fn a_filter_that_several_interfaces_share_may_shape_what_any_of_them_gets() {
        let dirty = heard(&of_link(RTM_NEWTFILTER, 0, 0, u32::MAX));
        assert_eq!(dirty, (Parts::SHAPING | Parts::LINKS).into());
    }

    #[test]
    fn every_message_of_a_datagram_counts() {
        let mut datagram = of_link(RTM_NEWNEIGH, 0, libc::AF_INET, 4);
        datagram.extend(of_link(RTM_NEWLINK, 0, 0, 3));
        datagram.extend(route(RTM_DELROUTE, 0, 254, [10, 42, 2, 0], 24));
        let dirty = heard(&datagram);
        assert_eq!(dirty.links, [3].into());
        assert_eq!(dirty.parts, Parts::ROUTES);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_the_reader_panic(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
            heard(&datagram);
        }

        #[test]
        fn no_route_makes_the_reader_panic(body in prop::collection::vec(any::<u8>(), 0..60)) {
            heard(&message(RTM_NEWROUTE, 0, &body));
        }
    }
}
