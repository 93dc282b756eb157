//! Interfaces on top of others: VLANs and bonds.

use rtnetlink::{
    LinkBond, LinkBridge, LinkMessageBuilder, LinkVlan,
    packet_route::link::{BondMode, InfoBridge, InfoData, InfoKind, VlanProtocol},
};

use super::Links;
use crate::error::Result;

/// Milliseconds between two looks of a bond at the carrier of its ports.
const CARRIER_LOOK_MS: u32 = 20;

impl Links {
    /// Creates a VLAN on an interface, and sets it up. The tag is its EtherType (0x8100 of IEEE
    /// 802.1Q, or 0x88a8 of 802.1ad) and the VLAN's identifier. Needs the kernel's module 8021q.
    ///
    /// # Errors
    ///
    /// The kernel's answer, or no such interface.
    pub async fn add_vlan(&self, name: &str, lower: &str, tag: (u16, u16)) -> Result<()> {
        let lower = self.require(lower, "create it first").await?;
        let (kind, id) = tag;
        let message = LinkVlan::new(name, lower, id)
            .protocol(VlanProtocol::from(kind))
            .up()
            .build();
        self.answered(
            format!("create VLAN {name}"),
            self.handle.link().add(message).execute(),
        )
        .await
    }

    /// Has a bridge filter VLANs, or not. Its ports, and itself, are in VLAN 1, whose tag it takes off. Needs a
    /// kernel with CONFIG_BRIDGE_VLAN_FILTERING.
    ///
    /// # Errors
    ///
    /// The kernel's answer, or no such interface.
    pub async fn filter_vlans(&self, bridge: &str, on: bool) -> Result<()> {
        let index = self.require(bridge, "create it first").await?;
        // Not by name: setting one is refused while the bridge is up, the one it has as well (before 6.4).
        let message = LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge)
            .index(index)
            .set_info_data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(on)]))
            .build();
        self.answered(
            format!("have {bridge} filter VLANs"),
            self.handle.link().change(message).execute(),
        )
        .await
    }

    /// Creates a bond of which one port is active at a time, and sets it up. A port has to be
    /// down when it is [enslaved](Self::enslave). Needs the kernel's module bonding.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn add_bond(&self, name: &str) -> Result<()> {
        let message = LinkBond::new(name)
            .mode(BondMode::ActiveBackup)
            .miimon(CARRIER_LOOK_MS)
            .up()
            .build();
        self.answered(
            format!("create bond {name}"),
            self.handle.link().add(message).execute(),
        )
        .await
    }
}
