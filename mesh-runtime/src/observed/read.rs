//! Reads the kernel's network state.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    sync::Arc,
};

use futures_util::{Stream, StreamExt as _};
use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::LinkExtentMask,
    neighbour::{NeighbourAttribute, NeighbourMessage},
    route::{RouteHeader, RouteMessage},
};

use super::{
    Address, Forwarding, Link, Neighbour, NextHops, Observed, OverlayEntries, Route, Routes,
    dirty::{Dirty, Parts},
    ipsec,
    message::{multipath, read_address, read_forwarding, read_link, read_neighbour, read_route},
    next_hops,
    notification::leads_to_any,
    policy_rules, shaping, sysctl,
};
use crate::{
    desired::sysctl::lacking,
    netlink::{Netlink, NetlinkError, answer, dump},
    settings::Device,
    wanted::peer::Peer,
};

/// What is to be read, and of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// The cluster's network.
    pub(crate) cluster: Ipv4Net,
    /// Names of our two devices.
    pub(crate) bridge: &'a str,
    pub(crate) overlay: &'a str,
    /// The peers, whose hosts are asked about.
    pub(crate) peers: &'a Arc<BTreeMap<Ipv4Net, Peer>>,
    /// This node's underlay address, from which they are spoken to: policy rules may ask for it.
    pub(crate) source: Option<Ipv4Addr>,
    /// The UDP port to which they are: policy rules may ask for that as well.
    pub(crate) vxlan_port: u16,
}

/// Reads again what may have changed, and the next hops of peers that are new.
pub(crate) async fn observe(
    netlink: &Netlink,
    previous: Observed,
    mut dirty: Dirty,
    scope: Scope<'_>,
) -> Result<Observed, NetlinkError> {
    let mut observed = previous;
    if !Arc::ptr_eq(&observed.asked_about.0, scope.peers) {
        // Which routes matter goes by where the peers are.
        dirty.parts |= Parts::ROUTES;
    }
    dirty.parts |= read_links(netlink, &mut observed, &dirty, scope).await?;
    if dirty.any(Parts::SHAPING) {
        let only = (!dirty.any(Parts::LINKS)).then_some(&dirty.links);
        observed.shaping = shaping::read(netlink, &observed, only).await?;
    }
    // One after the other: a netlink socket carries one dump at a time (EBUSY).
    if dirty.any(Parts::ADDRESSES) {
        observed.addresses = addresses(netlink).await?;
    }
    if dirty.any(Parts::SETTINGS) {
        observed.ip_forward = sysctl::ip_forward();
        observed.unsettled = unsettled(&observed, scope);
    }
    if dirty.any(Parts::ROUTES) {
        let (routes, multipath) = routes(netlink, scope).await?;
        keep_or_replace(&mut observed.routes, routes);
        keep_or_replace(&mut observed.multipath, multipath);
    }
    let index = |name| observed.link_named(name).map(|link| link.index);
    let (bridge, overlay) = (index(scope.bridge), index(scope.overlay));
    if dirty.any(Parts::BRIDGE) {
        observed.neighbours = neighbours(netlink, bridge).await?;
        observed.forwarding = forwarding_of_ports(netlink, bridge).await?;
    }
    if dirty.any(Parts::OVERLAY) {
        let neighbours = neighbours(netlink, overlay).await?;
        let forwarding = forwarding_of(netlink, overlay).await?;
        let entries = OverlayEntries::new(neighbours, forwarding);
        keep_or_replace(&mut observed.overlay, entries);
    }
    let anew = dirty.any(Parts::NEXT_HOPS);
    if dirty.any(Parts::POLICIES) {
        match ipsec::policies() {
            Ok(policies) => keep_or_replace(&mut observed.policies, policies),
            // What was read before stands.
            Err(error) => {
                tracing::warn!(name: "cannot-read-policies-ipsec", %error, "cannot read the policies of IPsec (ip xfrm policy)")
            }
        }
    }
    let (peers, source) = &observed.asked_about;
    if dirty.any(Parts::NEXT_HOPS) {
        observed.diversion = policy_rules::find(netlink, &observed, bridge, overlay).await?;
    }
    let anew = anew || *source != scope.source;
    if anew || !Arc::ptr_eq(peers, scope.peers) {
        match read_next_hops(netlink, &mut observed, anew, scope) {
            Ok(()) => observed.asked_about = (Arc::clone(scope.peers), scope.source),
            // What was read before stands, and the next reading asks again.
            Err(error) => {
                tracing::warn!(name: "cannot-ask-kernel-routes-peers", %error, "cannot ask the kernel for its routes to peers");
            }
        }
    }
    Ok(observed)
}

/// Keeps what was there if it is the same still: what was computed from it is, then, too.
fn keep_or_replace<T: PartialEq>(kept: &mut Arc<T>, read: T) {
    if **kept != read {
        *kept = Arc::new(read);
    }
}

/// Reads interfaces, and says what else is to be read because of what became of them.
async fn read_links(
    netlink: &Netlink,
    observed: &mut Observed,
    dirty: &Dirty,
    scope: Scope<'_>,
) -> Result<Parts, NetlinkError> {
    if dirty.any(Parts::LINKS) {
        observed.links = links(netlink).await?;
        return Ok(Parts::SHAPING
            | Parts::ROUTES
            | Parts::BRIDGE
            | Parts::OVERLAY
            | Parts::NEXT_HOPS
            | Parts::SETTINGS);
    }
    let mut more = Parts::empty();
    let mut to_read = dirty.links.clone();
    let mut read = BTreeSet::new();
    while let Some(index) = to_read.pop_first() {
        read.insert(index);
        let before = observed.links.remove(&index);
        let now = link(netlink, index).await?;
        let same = before == now && !dirty.fallen.contains(&index);
        if !same {
            more |= consequences(observed, before.as_ref(), now.as_ref(), scope);
            let ends = outdated_ends(observed, index, now.as_ref());
            to_read.extend(ends.into_iter().filter(|end| !read.contains(end)));
        }
        observed.links.extend(now.map(|link| (index, link)));
    }
    Ok(more)
}

/// The other ends of veth pairs that do not say so, or any more, of an interface as it is `now`. Of the one end of a pair
/// that is moved to another namespace, or comes from there, the kernel tells, of the other nothing until its carrier
/// comes, when the container speaks already.
fn outdated_ends(observed: &Observed, index: u32, now: Option<&Link>) -> BTreeSet<u32> {
    let told = now.and_then(|link| link.near_end);
    let says = |link: &&Link| link.near_end == Some(index);
    let mut ends: BTreeSet<u32> = observed
        .links
        .values()
        .filter(says)
        .map(|it| it.index)
        .collect();
    match told {
        Some(end) if ends.contains(&end) => ends.remove(&end),
        Some(end) => ends.insert(end),
        None => false,
    };
    ends
}

/// What else may have changed along with an interface that has changed, or was down. The kernel drops the routes of a
/// device that goes down without a word, and it may have come up again since.
fn consequences(
    observed: &Observed,
    before: Option<&Link>,
    now: Option<&Link>,
    scope: Scope<'_>,
) -> Parts {
    let mut more = Parts::empty();
    for link in before.into_iter().chain(now) {
        if link.name == scope.bridge {
            more |= Parts::ROUTES | Parts::BRIDGE | Parts::SETTINGS;
        } else if link.name == scope.overlay {
            more |= Parts::ROUTES | Parts::OVERLAY | Parts::SETTINGS;
        } else if observed.leads_somewhere(link.index) {
            more |= Parts::ROUTES | Parts::NEXT_HOPS;
        }
        if link.master.is_some() {
            // The bridge forgets what it knows of a port that goes.
            more |= Parts::BRIDGE;
        }
    }
    // Before, what was made there was nobody's to know.
    let place = |link: &Link| (link.master, link.far_end);
    if now.is_some_and(|link| link.master.is_some()) && before.map(place) != now.map(place) {
        more |= Parts::SHAPING;
    }
    more
}

/// Those of our devices that lack a setting which they need.
fn unsettled(observed: &Observed, scope: Scope<'_>) -> BTreeSet<Device> {
    [
        (Device::Bridge, scope.bridge),
        (Device::Overlay, scope.overlay),
    ]
    .into_iter()
    .filter(|(_, name)| observed.link_named(name).is_some())
    .filter(|(_, name)| !lacking(name, sysctl::value_of).is_empty())
    .map(|(device, _)| device)
    .collect()
}

/// Reads the next hops of peers: those that are new, or all.
fn read_next_hops(
    netlink: &Netlink,
    observed: &mut Observed,
    anew: bool,
    scope: Scope<'_>,
) -> io::Result<()> {
    let known = &observed.next_hops;
    let peers = scope.peers.values().map(|peer| peer.address);
    let asked: Vec<_> = peers
        .clone()
        .filter(|peer| anew || !known.knows(*peer))
        .collect();
    let kept = peers.filter(|peer| !anew && known.knows(*peer));
    let mut answers: BTreeMap<_, _> = kept.map(|peer| (peer, known.to(peer).copied())).collect();
    let found = next_hops::find(&netlink.reader, &asked, scope.source, scope.vxlan_port)?;
    answers.extend(asked.into_iter().zip(found));
    keep_or_replace(&mut observed.next_hops, NextHops::new(answers));
    Ok(())
}

/// An interface, if it is there.
async fn link(netlink: &Netlink, index: u32) -> Result<Option<Link>, NetlinkError> {
    let request = netlink
        .handle
        .link()
        .get()
        .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats])
        .match_index(index);
    let mut answers = std::pin::pin!(request.execute());
    match answer(async { answers.next().await.transpose() }).await {
        Ok(message) => Ok(message.as_ref().map(read_link)),
        Err(NetlinkError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn links(netlink: &Netlink) -> Result<BTreeMap<u32, Link>, NetlinkError> {
    let request = netlink
        .handle
        .link()
        .get()
        .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]);
    let links = dump(request.execute(), |message| Some(read_link(message))).await?;
    Ok(links.into_iter().map(|link| (link.index, link)).collect())
}

async fn addresses(netlink: &Netlink) -> Result<Vec<Address>, NetlinkError> {
    let mut request = netlink.handle.address().get();
    request.message_mut().header.family = AddressFamily::Inet;
    dump(request.execute(), read_address).await
}

/// The routes that matter by themselves, and those to peers, of any table, that lead over several next hops: policy rules
/// may lead there.
async fn routes(
    netlink: &Netlink,
    scope: Scope<'_>,
) -> Result<(Routes, Vec<Ipv4Net>), NetlinkError> {
    let cluster = scope.cluster;
    let peers: BTreeSet<Ipv4Addr> = scope.peers.values().map(|peer| peer.address).collect();
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    let request = netlink.handle.route().get(message);
    let matters =
        |route: &Route| route.destination.prefix_len() == 0 || cluster.contains(&route.destination);
    let read = dump(request.execute(), |message| {
        let route = read_route(message).filter(matters);
        let multipath = multipath(message).filter(|net| leads_to_any(&peers, *net));
        (route.is_some() || multipath.is_some()).then_some((route, multipath))
    })
    .await?;
    let (routes, multipath): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    Ok((
        routes.into_iter().flatten().collect(),
        multipath.into_iter().flatten().collect(),
    ))
}

/// The IPv4 neighbours on an interface; none without one.
async fn neighbours(netlink: &Netlink, link: Option<u32>) -> Result<Vec<Neighbour>, NetlinkError> {
    let Some(link) = link else {
        return Ok(Vec::new());
    };
    let only = NeighbourAttribute::IfIndex(link);
    let answers = get_neighbours(netlink, AddressFamily::Inet, only)?;
    // Kernels that do not know the filter tell all.
    let of_link = |neighbour: &Neighbour| neighbour.link == link;
    dump(answers, |message| read_neighbour(message).filter(of_link)).await
}

/// What a bridge forwards by, of all its ports; nothing without one.
async fn forwarding_of_ports(
    netlink: &Netlink,
    bridge: Option<u32>,
) -> Result<Vec<Forwarding>, NetlinkError> {
    let Some(bridge) = bridge else {
        return Ok(Vec::new());
    };
    let only = NeighbourAttribute::Controller(bridge);
    let answers = get_neighbours(netlink, AddressFamily::Bridge, only)?;
    let of_bridge = |entry: &Forwarding| entry.bridge == Some(bridge);
    dump(answers, |message| {
        read_forwarding(message).filter(of_bridge)
    })
    .await
}

/// The forwarding entries of a VXLAN device; none without one.
async fn forwarding_of(
    netlink: &Netlink,
    overlay: Option<u32>,
) -> Result<Vec<Forwarding>, NetlinkError> {
    let Some(overlay) = overlay else {
        return Ok(Vec::new());
    };
    let only = NeighbourAttribute::IfIndex(overlay);
    let answers = get_neighbours(netlink, AddressFamily::Bridge, only)?;
    let of_device = |entry: &Forwarding| entry.link == overlay && entry.bridge.is_none();
    dump(answers, |message| {
        read_forwarding(message).filter(of_device)
    })
    .await
}

/// Asks for the neighbours of a family, with a filter that strict checking makes the kernel heed.
fn get_neighbours(
    netlink: &Netlink,
    family: AddressFamily,
    only: NeighbourAttribute,
) -> Result<impl Stream<Item = Result<NeighbourMessage, rtnetlink::Error>> + use<>, NetlinkError> {
    let mut question = NeighbourMessage::default();
    question.header.family = family;
    question.attributes.push(only);
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(question));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut handle = netlink.handle.clone();
    let answers = handle.request(request).map_err(NetlinkError::from)?;
    Ok(answers.map(|answer| match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => Ok(message),
        NetlinkPayload::Error(error) => Err(rtnetlink::Error::NetlinkError(error)),
        _ => Err(rtnetlink::Error::UnexpectedMessage(answer)),
    }))
}
