//! The veth pairs that are made for containers.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use futures_util::StreamExt as _;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoVeth, LinkAttribute},
    nsid::{NsidAttribute, NsidMessage},
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::{
    ebpf::Mac,
    netlink::{Netlink, NetlinkError, answer},
    observed::namespace_events::NamespaceId,
};

/// A veth pair between a bridge and a container.
pub(crate) struct VethPair<'a> {
    /// Name of the host's end.
    pub(crate) link: &'a str,
    /// Index of the bridge that end is a port of.
    pub(crate) bridge: u32,
    /// Of both ends, in bytes.
    pub(crate) mtu: u32,
    /// Name of the container's end.
    pub(crate) inside: &'a str,
    pub(crate) inside_mac: Mac,
    /// The container's network namespace.
    pub(crate) namespace: BorrowedFd<'a>,
    /// Who it is for, for whoever looks at the interface.
    pub(crate) owner: String,
}

/// Makes a pair: the host's end at the bridge and of the MAC address that the kernel chooses, the
/// container's end in its namespace, both down. It is one request, of which nothing stays if any of it
/// cannot be done.
pub(crate) async fn create(netlink: &Netlink, pair: &VethPair<'_>) -> Result<(), NetlinkError> {
    let inside = LinkMessageBuilder::<LinkUnspec>::new()
        .name(pair.inside)
        .mtu(pair.mtu)
        .address(pair.inside_mac.to_vec())
        .setns_by_fd(pair.namespace.as_raw_fd())
        .build();
    let message = LinkVeth::new(pair.link, pair.inside)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(inside)))
        .mtu(pair.mtu)
        .controller(pair.bridge)
        .build();
    answer(netlink.handle.link().add(message).execute()).await?;
    // A creation takes no name for people. It shows who has the port, and nothing leans on it.
    let alias = LinkMessageBuilder::<LinkUnspec>::new()
        .name(pair.link)
        .append_extra_attribute(LinkAttribute::IfAlias(pair.owner.clone()))
        .build();
    if let Err(error) = answer(netlink.handle.link().set(alias).execute()).await {
        tracing::debug!(link = pair.link, %error, "cannot name the owner at its interface");
    }
    Ok(())
}

/// Brings the host's end of a pair up: what the container sends arrives from now on.
pub(crate) async fn raise(netlink: &Netlink, link: u32) -> Result<(), NetlinkError> {
    let up = LinkUnspec::new_with_index(link).up().build();
    answer(netlink.handle.link().change(up).execute()).await
}

/// Deletes a pair by the index of its host's end. One that is gone is success.
pub(crate) async fn delete(netlink: &Netlink, link: u32) -> Result<(), NetlinkError> {
    match answer(netlink.handle.link().del(link).execute()).await {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

/// The kernel's id for a namespace, as seen from this process's; `None` if it has none, because no
/// interface leads there (RTM_GETNSID).
pub(crate) async fn namespace_id(
    netlink: &Netlink,
    namespace: BorrowedFd<'_>,
) -> Result<Option<NamespaceId>, NetlinkError> {
    let mut question = NsidMessage::default();
    // A descriptor is never negative.
    let descriptor = namespace.as_raw_fd().unsigned_abs();
    question.attributes.push(NsidAttribute::Fd(descriptor));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
    request.header.flags = NLM_F_REQUEST;
    let mut handle = netlink.handle.clone();
    let mut answers = handle.request(request)?;
    let ask = async { Ok(answers.next().await) };
    let Some(message) = answer(ask).await? else {
        return Err(NetlinkError::Closed);
    };
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(found)) => {
            let id = found
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) => Some(*id),
                    _ => None,
                });
            Ok(id.filter(|&id| id >= 0))
        }
        NetlinkPayload::Error(error) => Err(NetlinkError::Refused {
            errno: -error.raw_code(),
        }),
        other => Err(NetlinkError::Unexpected(format!("{other:?}"))),
    }
}
