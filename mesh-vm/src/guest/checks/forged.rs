//! Frames in which a container says it is somebody else.

use std::net::Ipv4Addr;

use mesh_model::{ArpFrame, Extension, Frame, Ipv6Frame, VxlanFrame, tagged};

/// What every forged frame says.
pub(super) const FORGED: &[u8] = b"this is forged";

const BROADCAST: [u8; 6] = [0xff; 6];
/// Where all nodes of a link listen for routers.
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ICMPV6: u8 = 58;
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
const HOP_BY_HOP: u8 = 0;
/// IEEE 802.1Q, and the identifier that names no VLAN.
const NO_VLAN: (u16, u16) = (0x8100, 0);

/// A container that forges, and who else there is.
#[derive(Clone, Debug)]
pub(super) struct Forger {
    pub(super) mac: [u8; 6],
    pub(super) address: Ipv4Addr,
    pub(super) sibling_mac: [u8; 6],
    pub(super) sibling: Ipv4Addr,
    pub(super) gateway_mac: [u8; 6],
    pub(super) gateway: Ipv4Addr,
    /// MAC address of the overlay's device.
    pub(super) overlay_mac: [u8; 6],
    /// A container of a peer's.
    pub(super) remote: Ipv4Addr,
}

impl Forger {
    /// What it may send: UDP to its sibling.
    pub(super) fn honest(&self, data: &[u8]) -> Vec<u8> {
        let macs = [self.mac, self.sibling_mac];
        Frame::udp(macs, [self.address, self.sibling], [7777; 2], data).bytes()
    }

    /// Each forged frame, what it is, and the reason it is dropped for.
    pub(super) fn frames(&self) -> Vec<(&'static str, Vec<u8>, &'static str)> {
        let to_sibling = [self.mac, self.sibling_mac];
        let from = |address| Frame::udp(to_sibling, [address, self.sibling], [7777; 2], FORGED);
        let everybody = [self.address, Ipv4Addr::BROADCAST];
        let mac = Frame::udp([self.sibling_mac, BROADCAST], everybody, [7777; 2], FORGED);
        let dhcp = Frame::udp([self.mac, BROADCAST], everybody, [67, 68], FORGED);
        let [(advert, plain), (claim, arp)] = self.claims_of_a_router();
        vec![
            (
                "the sibling's address",
                from(self.sibling).bytes(),
                "spoofed_address",
            ),
            ("the sibling's MAC address", mac.bytes(), "spoofed_mac"),
            (
                "the gateway's address",
                from(self.gateway).bytes(),
                "gateway_claimed",
            ),
            (claim, arp, "gateway_claimed"),
            (
                "a router advertisement with a priority",
                tagged(&plain, &[NO_VLAN]),
                "router_advert",
            ),
            (advert, plain, "router_advert"),
            (
                "a router advertisement behind a hop-by-hop header",
                self.advertisement(vec![Extension::padded(HOP_BY_HOP, 0)]),
                "router_advert",
            ),
            ("a DHCP answer", dhcp.bytes(), "dhcp_answer"),
            (
                "VXLAN to the gateway",
                self.vxlan(self.gateway, self.gateway_mac),
                "container_vxlan",
            ),
        ]
    }

    /// What says that the gateway is here.
    pub(super) fn claims_of_a_router(&self) -> [(&'static str, Vec<u8>); 2] {
        let claim = ArpFrame {
            macs: [BROADCAST, self.mac],
            operation: 2,
            sender: (self.mac, self.gateway),
            target: (BROADCAST, self.gateway),
        };
        let claim = [&claim.bytes()[..], FORGED].concat();
        [
            ("a router advertisement", self.advertisement(Vec::new())),
            ("ARP from the gateway", claim),
        ]
    }

    fn advertisement(&self, extensions: Vec<Extension>) -> Vec<u8> {
        Ipv6Frame {
            macs: [ALL_NODES, self.mac],
            extensions,
            protocol: ICMPV6,
            payload: [&ADVERTISEMENT[..], FORGED].concat(),
        }
        .bytes()
    }

    /// A packet of the peer's container to the sibling, as if the peer had sent it.
    fn vxlan(&self, to: Ipv4Addr, to_mac: [u8; 6]) -> Vec<u8> {
        let macs = [BROADCAST, self.overlay_mac];
        let inner = Frame::udp(macs, [self.remote, self.sibling], [7777; 2], FORGED);
        VxlanFrame::proper([self.mac, to_mac], [self.address, to], inner.bytes()).bytes()
    }
}
