//! The underlay: one cable between the two hosts.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use ipnet::Ipv4Net;
use mesh_testbed::{Links, Testbed, enable_nic_offloads};
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_route::link::{InfoData, InfoKind, InfoVeth},
};

/// The interface of either host on the underlay.
pub(crate) const UNDERLAY: &str = "eth0";

/// Replaces the testbed's switch, whose bridge would add its own work to every packet of
/// every topology and so move all of them closer together.
pub(crate) async fn replace_switch(testbed: &Testbed, mtu: u32) -> anyhow::Result<()> {
    let [a, b] = testbed.hosts() else {
        anyhow::bail!("a cable has two ends, not {}", testbed.hosts().len());
    };
    let switch = Links::of(testbed.switch())?;
    for host in [a, b] {
        // The host's end goes with it.
        switch.delete(host.name()).await?;
    }
    let other_end = File::open(b.netns().path()).context("cannot open a host's namespace")?;
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(UNDERLAY)
        .mtu(mtu)
        .setns_by_fd(other_end.as_raw_fd())
        .build();
    let cable = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(UNDERLAY)
        .mtu(mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    a.netns()
        .netlink()?
        .link()
        .add(cable)
        .execute()
        .await
        .context("cannot make the cable between the hosts")?;
    for host in [a, b] {
        let links = Links::of(host.netns())?;
        enable_nic_offloads(host.netns(), UNDERLAY)?;
        links.up(UNDERLAY).await?;
        let address = Ipv4Net::new(host.address(), 24)?;
        links.add_address(UNDERLAY, address).await?;
    }
    Ok(())
}
