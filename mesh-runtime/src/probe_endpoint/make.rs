//! Makes the pair: host's end at the bridge, the other with its address in a namespace of its own.

use std::{io, os::fd::AsRawFd as _};

use mesh_ipam::endpoint_mac;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoBridgePort, InfoData, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkInfo,
    },
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use super::{INSIDE, MAC, NAME, ProbeNamespace, WhyNone, Wish};
use crate::{netlink::reader::Reader, wanted::subnet::gateway};

/// Whose it is, for whoever looks at the interface. It has the form of an owner, and is none of the registry's.
const ALIAS: &str = "quilt-mesh/mesh/probe/probe0";

/// The endpoint, as this process has made it.
#[derive(Debug)]
pub(crate) struct Made {
    /// Index of the host's end.
    pub(crate) index: u32,
    pub(crate) wish: Wish,
    pub(crate) namespace: ProbeNamespace,
}

impl Made {
    #[cfg(test)]
    pub(crate) fn for_tests(index: u32, wish: Wish) -> Self {
        Self {
            index,
            wish,
            namespace: ProbeNamespace::own(),
        }
    }
}

/// Makes it, after deleting the interface with the index `delete`. Blocks, for some milliseconds, or while others
/// hold the kernel's network configuration lock. In the network namespace of this thread.
///
/// # Errors
///
/// Why there is none. What was made goes with its namespace.
pub(crate) fn make(wish: Wish, delete: Option<u32>) -> Result<Made, WhyNone> {
    try_make(wish, delete).map_err(|(step, error)| match error.kind() {
        io::ErrorKind::PermissionDenied => WhyNone::NotPermitted,
        _ => WhyNone::Failed(format!("cannot {step}: {error}")),
    })
}

/// Deletes the interface with that index. One that is gone is success. Blocks.
///
/// # Errors
///
/// The kernel's reason.
pub(super) fn delete_link(kernel: &Reader, index: u32) -> io::Result<()> {
    let message = LinkUnspec::new_with_index(index).build();
    match commit(kernel, RouteNetlinkMessage::DelLink(message), 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

fn try_make(wish: Wish, delete: Option<u32>) -> Result<Made, (&'static str, io::Error)> {
    let at = |step: &'static str| move |error| (step, error);
    let kernel = Reader::of(NETLINK_ROUTE).map_err(at("talk to the kernel"))?;
    if let Some(index) = delete {
        delete_link(&kernel, index).map_err(at("delete the interface that is there"))?;
    }
    let namespace = ProbeNamespace::make().map_err(at("make a network namespace"))?;
    create(&kernel, &wish, &namespace).map_err(at("make a veth pair"))?;
    namespace
        .enter(|| settle(&wish))
        .map_err(at("give it its address"))?;
    let index = if_nametoindex(NAME).map_err(|errno| ("find what was made", errno.into()))?;
    raise(&kernel, index).map_err(at("bring it up"))?;
    Ok(Made {
        index,
        wish,
        namespace,
    })
}

/// Makes the pair, in one request, of which nothing stays if any of it cannot be done.
fn create(kernel: &Reader, wish: &Wish, namespace: &ProbeNamespace) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    let (bridge, bridge_mtu) = wish.bridge;
    let inside = LinkMessageBuilder::<LinkUnspec>::new()
        .name(INSIDE)
        .mtu(wish.mtu)
        .address(endpoint_mac(wish.address).to_vec())
        .setns_by_fd(namespace.as_fd().as_raw_fd());
    let message = LinkVeth::new(NAME, INSIDE)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(inside.build())))
        .address(MAC.to_vec())
        // The bridge's: one without an MTU of its own takes the smallest of its ports'.
        .mtu(bridge_mtu)
        .controller(bridge)
        .build();
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    commit(kernel, RouteNetlinkMessage::NewLink(message), flags)
}

/// Inside: the address, and a way to the cluster and nowhere else.
fn settle(wish: &Wish) -> io::Result<()> {
    let kernel = Reader::of(NETLINK_ROUTE)?;
    let index = if_nametoindex(INSIDE)?;
    let address = AddressMessageBuilder::<std::net::Ipv4Addr>::new()
        .index(index)
        .address(wish.address, wish.subnet.prefix_len())
        .build();
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    commit(&kernel, RouteNetlinkMessage::NewAddress(address), flags)?;
    let up = LinkUnspec::new_with_index(index).up().build();
    commit(&kernel, RouteNetlinkMessage::SetLink(up), 0)?;
    let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
        .destination_prefix(wish.cluster.network(), wish.cluster.prefix_len())
        .gateway(gateway(wish.subnet))
        .output_interface(index)
        .build();
    commit(&kernel, RouteNetlinkMessage::NewRoute(route), flags)
}

/// Brings the host's end up. As at a container's port, the bridge learns nothing by it, and it takes no ARP.
fn raise(kernel: &Reader, index: u32) -> io::Result<()> {
    let learns_nothing = InfoPortData::BridgePort(vec![InfoBridgePort::Learning(false)]);
    let message = LinkUnspec::new_with_index(index)
        .up()
        .arp(false)
        .append_extra_attribute(LinkAttribute::IfAlias(ALIAS.to_owned()))
        .append_extra_attribute(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(learns_nothing),
        ]))
        .build();
    commit(kernel, RouteNetlinkMessage::NewLink(message), 0)
}

fn commit(kernel: &Reader, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    kernel.commit(&bytes, 1)
}
