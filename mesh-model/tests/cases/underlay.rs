//! Packets as they arrive on the underlay, and their changes.

use std::net::Ipv4Addr;

use mesh_model::{Ipv4, VxlanFrame};

use crate::harness::node::{PEER, from_peer, vxlan_from};

pub(super) const IP: usize = 14;
pub(super) const INNER_ETHERNET: usize = 50;
pub(super) const INNER_IP: usize = 64;

pub(super) fn proper() -> VxlanFrame {
    vxlan_from(PEER, &from_peer(b"data"))
}

pub(super) fn with_outer(change: impl FnOnce(&mut VxlanFrame)) -> Vec<u8> {
    let mut frame = proper();
    change(&mut frame);
    frame.bytes()
}

pub(super) fn with_inner(sender: Ipv4Addr, change: impl FnOnce(&mut Ipv4)) -> Vec<u8> {
    let mut frame = from_peer(b"data");
    change(&mut frame.ip);
    vxlan_from(sender, &frame).bytes()
}

/// A packet with these congestion marks.
pub(super) fn marked(outer: u8, inner: u8) -> Vec<u8> {
    let mut frame = from_peer(b"data");
    frame.ip.tos = inner;
    let mut frame = vxlan_from(PEER, &frame);
    frame.outer.ip.tos = outer;
    frame.bytes()
}
