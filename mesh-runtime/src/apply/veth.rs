//! The veth pairs that are made for containers.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    time::Duration,
};

use futures_util::StreamExt as _;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoPortData,
        InfoPortKind, InfoVeth, LinkAttribute, LinkInfo,
    },
    nsid::{NsidAttribute, NsidMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::{
    ebpf::Mac,
    netlink::{DEADLINE, Netlink, NetlinkError, answer, interface_name::is_listed, reader::Reader},
    observed::namespace_events::NamespaceId,
};

/// How soon after a deletion the kernel is asked whether it knows the interface still.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

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
    /// The container's network namespace; `None` for the host's own, from where somebody else moves that end.
    pub(crate) namespace: Option<BorrowedFd<'a>>,
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
        .address(pair.inside_mac.to_vec());
    let inside = match pair.namespace {
        Some(namespace) => inside.setns_by_fd(namespace.as_raw_fd()),
        None => inside,
    };
    let message = LinkVeth::new(pair.link, pair.inside)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(inside.build())))
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
        tracing::debug!(name: "cannot-name-owner-interface", link = pair.link, %error, "cannot name the owner at its interface");
    }
    if pair.namespace.is_none()
        && let Err(error) = keep_unaddressed(netlink, pair.inside).await
    {
        tracing::debug!(name: "cannot-keep-host-making-address", link = pair.inside, %error, "cannot keep the host from making it an address of IPv6");
    }
    Ok(())
}

/// Keeps the kernel from making an interface of this host an address of IPv6, should a network manager that takes every
/// interface for its own bring it up before it is moved. In another namespace it has the settings of that one: the kernel
/// makes them anew there (`addrconf_notify`, net/ipv6/addrconf.c). A creation takes no such setting.
async fn keep_unaddressed(netlink: &Netlink, interface: &str) -> Result<(), NetlinkError> {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let message = LinkMessageBuilder::<LinkUnspec>::new()
        .name(interface.to_owned())
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
            vec![none],
        )]))
        .build();
    answer(netlink.handle.link().set(message).execute()).await
}

/// Brings the host's end of a pair up: what the container sends arrives from now on.
///
/// The bridge learns nothing by this port, where the one MAC address is that counts is written down; and the port itself
/// takes no ARP. Otherwise frames that a bridge hands up by the port before any rule sees them (to
/// 01:80:c2:00:00:0e, `br_handle_frame`, net/bridge/br_input.c) fill its table, or the host's.
pub(crate) async fn raise(netlink: &Netlink, link: u32) -> Result<(), NetlinkError> {
    let learns_nothing = InfoPortData::BridgePort(vec![InfoBridgePort::Learning(false)]);
    let up = LinkUnspec::new_with_index(link)
        .up()
        .arp(false)
        .append_extra_attribute(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(learns_nothing),
        ]))
        .build();
    answer(netlink.handle.link().change(up).execute()).await
}

/// Deletes a pair by the index of its host's end. One that is gone is success.
///
/// Returns once the kernel knows no such interface any more: both ends are closed then, and names and index free. Its
/// acknowledgement comes 15 to 30 ms later, when nobody is left who may still look at the pair
/// (`unregister_netdevice_many_notify` unlists, then waits; `netdev_run_todo` waits again, net/core/dev.c), and until
/// then it keeps the thread that asked. So a thread of its own asks, and nobody waits for that.
pub(crate) async fn delete(link: u32) -> Result<(), NetlinkError> {
    let acknowledged = tokio::task::spawn_blocking(move || acknowledge_deletion(link));
    let deleted = async {
        tokio::select! {
            biased;
            acknowledged = acknowledged => match acknowledged {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
                Ok(Err(error)) => Err(match error.raw_os_error() {
                    Some(errno) => NetlinkError::Refused { errno },
                    None => NetlinkError::Unexpected(error.to_string()),
                }),
                Err(error) => Err(NetlinkError::Unexpected(error.to_string())),
            },
            () = unlisted(link) => Ok(()),
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, deleted).await;
    in_time.unwrap_or(Err(NetlinkError::Deadline))
}

/// Waits for the kernel to be done with a deletion.
fn acknowledge_deletion(link: u32) -> io::Result<()> {
    let deletion = LinkUnspec::new_with_index(link).build();
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::DelLink(deletion));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    Reader::of(NETLINK_ROUTE)?.commit(&bytes, 1)
}

/// Waits until the kernel knows no such interface.
async fn unlisted(link: u32) {
    while is_listed(link) {
        tokio::time::sleep(LOOK_AGAIN).await;
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
