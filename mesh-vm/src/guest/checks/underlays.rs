//! Underlays that are no single card. Not every kernel has their modules, so these checks are
//! made here rather than among the runtime's own tests.

use anyhow::Context as _;
use ipnet::Ipv4Net;
use mesh_proto::mesh::fast_path_status::State;
use mesh_testbed::{DaemonOptions, Host, Links, Signal, wait_until};

use super::{
    ping_fast, start_flow, strangers, transfer_fast, wait_attached, wait_attached_to, wait_programs,
};
use crate::{
    pair::{PATIENCE, Pair},
    progress::step,
};

const CARD: &str = "eth0";
const SECOND_CARD: &str = "eth1";
const VLAN: &str = "eth0.7";
/// Its tag: IEEE 802.1Q, and the identifier.
const TAG: (u16, u16) = (0x8100, 7);
/// Further VLANs of a card, without an address: one of IEEE 802.1Q, and one of 802.1ad.
const BESIDE: [(&str, (u16, u16)); 2] = [("eth0.8", (0x8100, 8)), ("eth0.9", (0x88a8, 9))];
const BOND: &str = "bond0";
const MTU: u32 = 1500;

/// The hosts' addresses move to VLANs.
pub(super) async fn vlan(pair: &Pair) -> anyhow::Result<()> {
    step("VLANs on the cards");
    for host in pair.hosts() {
        Links::of(host.netns())?.add_vlan(VLAN, CARD, TAG).await?;
        move_address(host, CARD, VLAN).await?;
    }
    wait_attached_to(pair, VLAN).await?;
    ping_fast(pair).await?;
    transfer_fast(pair).await
}

/// Where the hosts' addresses are on VLANs: a stranger's VXLAN on that VLAN, on others of the same
/// card and on the card itself reaches no container. Then the addresses move back to the cards, and
/// it is the same there.
pub(super) async fn strangers_on_vlans(pair: &mut Pair) -> anyhow::Result<()> {
    for (name, tag) in BESIDE {
        let [host, _] = pair.hosts();
        Links::of(host.netns())?.add_vlan(name, CARD, tag).await?;
    }
    let tags = [&[][..], &[TAG], &[BESIDE[0].1], &[BESIDE[1].1]];
    strangers::hold(pair, &tags, &[TAG]).await?;

    step("a killed runtime");
    pair.kill_first().await?;
    strangers::hold(pair, &tags, &[TAG]).await?;
    pair.start_first_again().await?;
    wait_attached_to(pair, VLAN).await?;

    step("a fast path that is off");
    let off = DaemonOptions::new().args(["--fast-path", "off"]);
    pair.restart(Signal::SIGTERM, &off).await?;
    wait_programs(pair, VLAN, State::Off).await?;
    strangers::hold(pair, &tags, &[TAG]).await?;
    pair.restart(Signal::SIGTERM, &DaemonOptions::new()).await?;

    step("cards without VLANs");
    for host in pair.hosts() {
        move_address(host, VLAN, CARD).await?;
        Links::of(host.netns())?.delete(VLAN).await?;
    }
    wait_attached(pair).await?;
    strangers::hold(pair, &[&[], &[BESIDE[0].1], &[BESIDE[1].1]], &[]).await?;
    let [host, _] = pair.hosts();
    for (name, _) in BESIDE {
        Links::of(host.netns())?.delete(name).await?;
    }
    Ok(())
}

/// Each host's card becomes a bond's active port, and loses its carrier; then all is undone.
pub(super) async fn bond(pair: &Pair) -> anyhow::Result<()> {
    for host in pair.hosts() {
        step(format!("a bond of two cards on {}", host.name()));
        pair.testbed().add_card(host, SECOND_CARD, MTU).await?;
        let links = Links::of(host.netns())?;
        links.add_bond(BOND).await?;
        move_address(host, CARD, BOND).await?;
        // The first port is the active one.
        for card in [CARD, SECOND_CARD] {
            links.down(card).await?;
            links.enslave(card, BOND).await?;
        }
    }
    wait_attached_to(pair, BOND).await?;
    ping_fast(pair).await?;
    let flow = start_flow(pair)?;
    for host in pair.hosts() {
        step(format!("the first card of {} is cut off", host.name()));
        pair.testbed().underlay_cut(host).await?;
    }
    step("packets over the second card");
    let before = flow.arrived();
    wait_until("packets over the second card", PATIENCE, async || {
        let arrived = flow.arrived() - before;
        match arrived > 100 {
            true => Ok(()),
            false => Err(format!("{arrived} since the first was cut off")),
        }
    })
    .await?;
    let report = flow.stop().await?;
    println!("a bond's change of cards: {report:?}");
    ping_fast(pair).await?;
    for host in pair.hosts() {
        step(format!("one card again on {}", host.name()));
        pair.testbed().underlay_restore(host).await?;
        move_address(host, BOND, CARD).await?;
        let links = Links::of(host.netns())?;
        links.delete(BOND).await?;
        links.delete(SECOND_CARD).await?;
        links.up(CARD).await?;
    }
    wait_attached(pair).await
}

/// Moves a host's underlay address to another interface.
async fn move_address(host: &Host, from: &str, to: &str) -> anyhow::Result<()> {
    let address = Ipv4Net::new(host.address(), 24).context("the underlay's prefix")?;
    let links = Links::of(host.netns())?;
    links.delete_address(from, address).await?;
    links.add_address(to, address).await?;
    Ok(())
}
