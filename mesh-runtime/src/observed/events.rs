//! What the kernel says has changed.
//!
//! The notifications are not used as data: each only says which part of the state to read
//! again. The kernel queues one before the call that caused it returns, so whoever takes what
//! is queued before reading has missed nothing. One that the kernel had to drop costs a full
//! reading and nothing else.

use std::{collections::BTreeSet, io, net::Ipv4Addr};

use ipnet::Ipv4Net;
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use super::{
    dirty::{Dirty, Parts},
    namespace_events::{self, NamespaceId},
};

/// Bit of a multicast group (`RTNLGRP_*`, linux/rtnetlink.h) in a socket's address.
pub(super) const fn group(number: u32) -> u32 {
    1 << (number - 1)
}

pub(super) const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_TC: u32 = 4;
pub(super) const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
/// Policy rules, which say by which table a peer is reached.
const RTNLGRP_IPV4_RULE: u32 = 8;
/// Settings under `net.ipv4.conf`, such as forwarding.
const RTNLGRP_IPV4_NETCONF: u32 = 24;
const XFRMNLGRP_POLICY: u32 = 4;
const GROUPS: u32 = group(RTNLGRP_LINK)
    | group(RTNLGRP_NEIGH)
    | group(RTNLGRP_TC)
    | group(RTNLGRP_IPV4_IFADDR)
    | group(RTNLGRP_IPV4_ROUTE)
    | group(RTNLGRP_IPV4_RULE)
    | group(RTNLGRP_IPV4_NETCONF);

/// Room for the notifications of a burst, such as a container's whole set-up, while this
/// process waits for its turn.
pub(super) const RECEIVE_BUFFER: usize = 1 << 20;

/// Datagrams that are taken at a time: whoever keeps changing things does not keep others waiting.
const AT_A_TIME: usize = 4096;

/// Listens to the kernel's notifications.
#[derive(Debug)]
pub(crate) struct Events {
    socket: AsyncFd<Socket>,
    /// `None` where this process may not hear them.
    containers: Option<AsyncFd<Socket>>,
    /// Tells of policies of IPsec; `None` where the kernel has none.
    policies: Option<AsyncFd<Socket>>,
    interest: Interest,
    heard: Dirty,
    /// Where something has changed inside a container.
    namespaces: BTreeSet<NamespaceId>,
    /// Whether the socket has failed, after which nothing would be noticed.
    closed: bool,
}

impl Events {
    /// Subscribes, so that from now on nothing goes unnoticed. What `own_port` asks of the kernel to do to
    /// routes and neighbours is not worth a look.
    pub(crate) fn listen(own_port: u32, cluster: Ipv4Net) -> io::Result<Self> {
        let mut socket = Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
        let containers = match namespace_events::listen() {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::info!(
                    %error,
                    "cannot listen to containers' interfaces (CAP_NET_BROADCAST): looking at new \
                     ones until they have an address, and at all every few seconds"
                );
                None
            }
        };
        Ok(Self {
            // SAFETY: the descriptor is the socket's, which owns it and never exchanges it.
            socket: unsafe { AsyncFd::register(socket) }?,
            containers,
            policies: listen_to_policies().ok(),
            interest: Interest {
                own_port,
                cluster,
                bridge: 0,
                overlay: 0,
            },
            heard: Dirty::default(),
            namespaces: BTreeSet::new(),
            closed: false,
        })
    }

    /// Whether changes inside containers are heard.
    pub(crate) fn hears_containers(&self) -> bool {
        self.containers.is_some()
    }

    /// Where something has changed inside containers since the last call.
    pub(crate) fn take_namespaces(&mut self) -> BTreeSet<NamespaceId> {
        self.drain();
        std::mem::take(&mut self.namespaces)
    }

    /// Waits until something may have changed. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        while self.heard.is_clean() && self.namespaces.is_empty() {
            if self.closed {
                return std::future::pending().await;
            }
            let of_containers = async {
                match &self.containers {
                    Some(socket) => socket.readable().await,
                    None => std::future::pending().await,
                }
            };
            let of_policies = async {
                match &self.policies {
                    Some(socket) => socket.readable().await,
                    None => std::future::pending().await,
                }
            };
            // A socket that is not registered any more is found to be closed below.
            let ready = tokio::select! {
                ready = self.socket.readable() => ready,
                ready = of_containers => ready,
                ready = of_policies => ready,
            };
            if let Ok(mut ready) = ready {
                // What is not there any more was taken by `drain`.
                let _ = ready.try_io(|socket| is_readable(socket.get_ref()));
            }
            self.drain();
        }
    }

    /// What may have changed since the last call.
    pub(crate) fn take(&mut self) -> Dirty {
        self.drain();
        std::mem::take(&mut self.heard)
    }

    /// Names the interfaces whose neighbours matter; 0 for one that does not exist.
    pub(crate) fn watch_neighbours(&mut self, bridge: u32, overlay: u32) {
        self.interest.bridge = bridge;
        self.interest.overlay = overlay;
    }

    /// Whether nothing would be noticed any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes what the kernel has queued.
    fn drain(&mut self) {
        let mut buffer = Vec::with_capacity(64 * 1024);
        for _ in 0..AT_A_TIME {
            buffer.clear();
            match self.socket.get_ref().recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => classify(&buffer, &self.interest, &mut self.heard),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    tracing::debug!("netlink notifications were lost: reading everything again");
                    self.heard = Dirty::all();
                }
                Err(error) => {
                    if !self.closed {
                        tracing::warn!(%error, "netlink notifications ended");
                    }
                    self.closed = true;
                    self.heard = Dirty::all();
                    break;
                }
            }
        }
        for _ in 0..AT_A_TIME {
            let Some(socket) = &self.policies else {
                break;
            };
            buffer.clear();
            match socket.get_ref().recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => self.heard.parts |= Parts::POLICIES,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Lost or closed: each comparison reads them all the same.
                Err(error) => {
                    self.heard.parts |= Parts::POLICIES;
                    if error.raw_os_error() != Some(libc::ENOBUFS) {
                        self.policies = None;
                    }
                }
            }
        }
        for _ in 0..AT_A_TIME {
            let Some(socket) = &self.containers else {
                break;
            };
            match namespace_events::receive(socket.get_ref()) {
                Ok(Some(namespace)) => {
                    self.namespaces.insert(namespace);
                }
                // The namespace's own notifications, which have a socket of their own.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    tracing::debug!(
                        "notifications of containers were lost: looking at all of them"
                    );
                    self.heard.parts |= Parts::CONTAINERS;
                }
                Err(error) => {
                    tracing::warn!(%error, "notifications of containers ended: looking now and then");
                    self.heard.parts |= Parts::CONTAINERS;
                    self.containers = None;
                }
            }
        }
    }
}

/// Subscribes to changes of policies (`XFRMNLGRP_POLICY`, linux/xfrm.h).
fn listen_to_policies() -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(netlink_sys::protocols::NETLINK_XFRM)?;
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, group(XFRMNLGRP_POLICY)))?;
    // SAFETY: the descriptor is the socket's, which owns it and never exchanges it.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// Whether a datagram is there, which stays where it is; an error of the kind `WouldBlock` if not.
fn is_readable(socket: &Socket) -> io::Result<()> {
    let mut start = Vec::with_capacity(1);
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    socket.recv(&mut start, flags).map(drop)
}

/// What makes a notification worth a look.
#[derive(Clone, Copy, Debug)]
struct Interest {
    own_port: u32,
    cluster: Ipv4Net,
    bridge: u32,
    overlay: u32,
}

const HEADER_LEN: usize = 16;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
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

/// Reads what a datagram of notifications says has changed.
///
/// Only message headers are looked at (`nlmsghdr`, `rtmsg`, `ndmsg`; linux/netlink.h,
/// linux/rtnetlink.h, linux/neighbour.h), in the byte order of the host.
fn classify(mut datagram: &[u8], interest: &Interest, dirty: &mut Dirty) {
    while let Some((message, rest)) = split_message(datagram) {
        classify_message(message, interest, dirty);
        datagram = rest;
    }
}

fn classify_message(message: &[u8], interest: &Interest, dirty: &mut Dirty) {
    let body = &message[HEADER_LEN..];
    let caused_here = u32_at(message, 12).is_some_and(|port| port == interest.own_port);
    // `ifinfomsg`, `ifaddrmsg`, `ndmsg` and `tcmsg` have the interface at the same place.
    let link = u32_at(body, 4);
    match u16_at(message, 4) {
        Some(RTM_NEWLINK | RTM_DELLINK) => match link {
            Some(link) => dirty.add_link(link),
            None => *dirty = Dirty::all(),
        },
        Some(RTM_NEWADDR | RTM_DELADDR) => {
            dirty.parts |= Parts::ADDRESSES | Parts::ROUTES | Parts::WAYS;
        }
        Some(RTM_NEWNETCONF) => dirty.parts |= Parts::SETTINGS,
        Some(kind @ (RTM_NEWQDISC | RTM_DELQDISC | RTM_NEWTFILTER | RTM_DELTFILTER)) => {
            dirty.parts |= Parts::SHAPING;
            if let Some(link) = link {
                dirty.add_link(link);
            }
            // A filter of ours may be among those that are gone.
            if matches!(kind, RTM_DELQDISC | RTM_DELTFILTER) {
                dirty.parts |= Parts::PROGRAMS;
            }
        }
        Some(RTM_NEWROUTE | RTM_DELROUTE) if !caused_here => {
            dirty.parts |= of_route(body, interest.cluster);
        }
        Some(RTM_NEWRULE | RTM_DELRULE) => dirty.parts |= Parts::WAYS,
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
fn of_route(body: &[u8], cluster: Ipv4Net) -> Parts {
    let (Some(&length), Some(&table)) = (body.get(1), body.get(4)) else {
        return Parts::ROUTES | Parts::WAYS;
    };
    if table == RT_TABLE_LOCAL {
        return Parts::empty();
    }
    let destination = destination(body).unwrap_or(Ipv4Addr::UNSPECIFIED);
    match Ipv4Net::new(destination, length) {
        // One inside the cluster leads to no peer's host.
        Ok(net) if cluster.contains(&net) => Parts::ROUTES,
        Ok(net) if net.prefix_len() > 0 => Parts::WAYS,
        _ => Parts::ROUTES | Parts::WAYS,
    }
}

/// The destination of a route that is not a default.
fn destination(body: &[u8]) -> Option<Ipv4Addr> {
    let mut attributes = body.get(RTMSG_LEN..)?;
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if u16_at(attributes, 2)? == RTA_DST {
            return Some(<[u8; 4]>::try_from(value).ok()?.into());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// Splits off the first message, whole with its header.
fn split_message(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
    if length < HEADER_LEN || length > datagram.len() {
        return None;
    }
    let next = length.next_multiple_of(4).min(datagram.len());
    Some((&datagram[..length], &datagram[next..]))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
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
            assert!(dirty.parts.is_empty());
        }
    }

    #[test]
    fn an_address_that_comes_or_goes_takes_routes_along() {
        for kind in [RTM_NEWADDR, RTM_DELADDR] {
            let dirty = heard(&of_link(kind, 77, libc::AF_INET, 9));
            assert_eq!(dirty.parts, Parts::ADDRESSES | Parts::ROUTES | Parts::WAYS);
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
        assert_eq!(news(100, [192, 0, 2, 0], 24), Parts::WAYS);
        assert_eq!(news(254, [0; 4], 0), Parts::ROUTES | Parts::WAYS);
        assert_eq!(news(255, [192, 0, 2, 1], 32), Parts::empty());
        // It may lead to a peer as well as into the cluster.
        assert_eq!(news(254, [10, 0, 0, 0], 8), Parts::WAYS);
    }

    #[test]
    fn a_policy_rule_says_by_which_way_peers_are_reached() {
        for kind in [RTM_NEWRULE, RTM_DELRULE] {
            assert_eq!(
                heard(&of_link(kind, 0, libc::AF_INET, 0)).parts,
                Parts::WAYS
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
