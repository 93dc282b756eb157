//! The kernel's VXLAN as flannel sets it up (its backend "vxlan" with the default options).

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;
use ipnet::Ipv4Net;
use mesh_testbed::{Host, Links};
use rtnetlink::{
    LinkVxlan, RouteMessageBuilder,
    packet_route::neighbour::{NeighbourFlags, NeighbourState},
};

/// flannel's name for it.
pub(crate) const DEVICE: &str = "flannel.1";
const VNI: u32 = 1;
/// The kernel's own port, which flannel keeps, older than the one IANA gave.
const PORT: u16 = 8472;

/// One end of the overlay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) host: &'a Host,
    pub(crate) subnet: Ipv4Net,
}

impl End<'_> {
    fn mac(&self) -> [u8; 6] {
        mesh_layout::overlay_mac(self.subnet.network().octets())
    }
}

/// Makes the device of `own` and the entries for `peer`.
pub(crate) async fn add(own: End<'_>, peer: End<'_>, mtu: u32) -> anyhow::Result<()> {
    let netlink = own.host.netns().netlink()?;
    let links = Links::of(own.host.netns())?;
    let underlay = links
        .index(super::cable::UNDERLAY)
        .await?
        .context("the host has no underlay interface")?;
    let device = LinkVxlan::new(DEVICE, VNI)
        .port(PORT)
        .dev(underlay)
        .local(own.host.address())
        .learning(false)
        .address(own.mac().to_vec())
        .mtu(mtu)
        .up()
        .build();
    netlink
        .link()
        .add(device)
        .execute()
        .await
        .with_context(|| format!("cannot make {DEVICE}"))?;
    let network = own.subnet.network();
    links
        .add_address(DEVICE, Ipv4Net::new(network, 32)?)
        .await?;

    let index = links.index(DEVICE).await?.context("the device is gone")?;
    let gateway: Ipv4Addr = peer.subnet.network();
    let entry = |what| move || format!("cannot add the {what} of {gateway} to {DEVICE}");
    netlink
        .neighbours()
        .add(index, IpAddr::V4(gateway))
        .state(NeighbourState::Permanent)
        .link_layer_address(&peer.mac())
        .execute()
        .await
        .with_context(entry("neighbour"))?;
    netlink
        .neighbours()
        .add_bridge(index, &peer.mac())
        .flags(NeighbourFlags::Own)
        .state(NeighbourState::Permanent)
        .destination(IpAddr::V4(peer.host.address()))
        .execute()
        .await
        .with_context(entry("forwarding entry"))?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(gateway, peer.subnet.prefix_len())
        .gateway(gateway)
        .onlink()
        .output_interface(index)
        .build();
    netlink
        .route()
        .add(route)
        .execute()
        .await
        .with_context(entry("route"))
}
