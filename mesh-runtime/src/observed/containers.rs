//! Looks into containers: the far ends of the bridge's ports, with their addresses.
//!
//! Nothing is entered. The kernel answers for another namespace when a request names its id
//! (`IFLA_TARGET_NETNSID`, Linux 4.16; `IFA_TARGET_NETNSID`, 4.20), provided the caller has
//! CAP_NET_ADMIN over it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage},
};

use super::{
    LinkKind, Observed,
    namespace_events::{Changed, NamespaceId},
};
use crate::{
    ebpf::Mac,
    netlink::{Netlink, NetlinkError, answer, dump},
};

/// The other end of a veth pair, in another network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FarEnd {
    /// The namespace it is in; negative if the kernel could not give it an id.
    pub(crate) namespace: NamespaceId,
    /// Its index there.
    pub(crate) link: u32,
}

/// What was seen at a far end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) far_end: FarEnd,
    /// `None` where this process may not look, or the far end is just being moved.
    pub(crate) interface: Option<Interface>,
}

impl Container {
    /// Whether it may be looked into, and has no address yet.
    pub(crate) fn is_silent(&self) -> bool {
        self.interface
            .as_ref()
            .is_some_and(|interface| !interface.up || interface.addresses.is_empty())
    }
}

/// A container's interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) mac: Option<Mac>,
    pub(crate) up: bool,
    pub(crate) addresses: BTreeSet<Ipv4Addr>,
}

/// The far ends of a bridge's ports, by the ports' indexes.
pub(crate) fn far_ends(observed: &Observed, bridge: &str) -> BTreeMap<u32, FarEnd> {
    let Some(bridge) = observed.link_named(bridge) else {
        return BTreeMap::new();
    };
    observed
        .ports_of(bridge.index)
        .filter(|port| port.kind == LinkKind::Veth)
        .filter_map(|port| Some((port.index, port.far_end?)))
        .collect()
}

/// Looks at the far ends that are new or in a namespace where something has `changed`; of
/// the others, what was seen `before` stands.
pub(crate) async fn look_inside(
    netlink: &Netlink,
    far_ends: &BTreeMap<u32, FarEnd>,
    mut before: BTreeMap<u32, Container>,
    changed: &Changed,
) -> Result<BTreeMap<u32, Container>, NetlinkError> {
    let mut containers = BTreeMap::new();
    // One after the other: a netlink socket carries one dump at a time (EBUSY).
    for (&port, &far_end) in far_ends {
        let known = before
            .remove(&port)
            .filter(|it| it.far_end == far_end && !changed.contains(far_end.namespace));
        let container = match known {
            Some(container) => container,
            None => Container {
                far_end,
                interface: look(netlink, port, far_end).await?,
            },
        };
        containers.insert(port, container);
    }
    Ok(containers)
}

async fn look(
    netlink: &Netlink,
    port: u32,
    far_end: FarEnd,
) -> Result<Option<Interface>, NetlinkError> {
    if far_end.namespace < 0 {
        return Ok(None);
    }
    let seen = async {
        let Some(mut interface) = read_link(netlink, port, far_end).await? else {
            return Ok(None);
        };
        interface.addresses = read_addresses(netlink, far_end).await?;
        Ok(Some(interface))
    };
    match seen.await {
        // EPERM: its user namespace is none of ours. ENODEV, EINVAL: it is gone, and the
        // port with it in a moment.
        Err(NetlinkError::Refused { errno }) => {
            tracing::debug!(name: "cannot-look-into-container", port, errno, "cannot look into a container");
            Ok(None)
        }
        other => other,
    }
}

async fn read_link(
    netlink: &Netlink,
    port: u32,
    far_end: FarEnd,
) -> Result<Option<Interface>, NetlinkError> {
    let mut request = netlink
        .handle
        .link()
        .get()
        .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats])
        .match_index(far_end.link);
    let target = LinkAttribute::IfNetnsId(far_end.namespace);
    request.message_mut().attributes.push(target.clone());
    let mut answers = std::pin::pin!(request.execute());
    let Some(message) = answer(answers.try_next()).await? else {
        return Ok(None);
    };
    // A kernel that does not know the attribute answers for our own namespace.
    let there = message.attributes.contains(&target);
    let paired = message.attributes.contains(&LinkAttribute::Link(port));
    Ok((there && paired).then(|| interface(&message)))
}

fn interface(message: &LinkMessage) -> Interface {
    Interface {
        mac: message.attributes.iter().find_map(|it| match it {
            LinkAttribute::Address(bytes) => Mac::try_from(bytes.as_slice()).ok(),
            _ => None,
        }),
        up: message.header.flags.contains(LinkFlags::Up),
        addresses: BTreeSet::new(),
    }
}

async fn read_addresses(
    netlink: &Netlink,
    far_end: FarEnd,
) -> Result<BTreeSet<Ipv4Addr>, NetlinkError> {
    let mut request = netlink.handle.address().get();
    let message = request.message_mut();
    message.header.family = AddressFamily::Inet;
    message.header.index = far_end.link;
    let target = AddressAttribute::TargetNetNsId(far_end.namespace);
    message.attributes.push(target.clone());
    let addresses = dump(request.execute(), |message| {
        address(message, &target).filter(|_| message.header.index == far_end.link)
    })
    .await?;
    Ok(addresses.into_iter().collect())
}

fn address(message: &AddressMessage, target: &AddressAttribute) -> Option<Ipv4Addr> {
    if !message.attributes.contains(target) {
        return None;
    }
    message.attributes.iter().find_map(|it| match it {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })
}
