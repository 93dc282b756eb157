//! Strangers' VXLAN, in XDP.

use std::net::Ipv4Addr;

use mesh_layout::DropReason::UnknownVtep;
use mesh_model::{Program, Verdict, VxlanFrame};

use super::{Cases, drop, with};
use crate::harness::node::{OTHER_REMOTE, PEER, STRANGER, from_peer, vxlan_from};

fn from(sender: Ipv4Addr, change: impl FnOnce(&mut VxlanFrame)) -> Vec<u8> {
    let mut frame = vxlan_from(sender, &from_peer(b"data"));
    change(&mut frame);
    frame.bytes()
}

pub(crate) fn cases(cases: &mut Cases<'_>) {
    let mut dropped = |name, packet| {
        cases.add(Program::DropStrangers, name, packet, drop(UnknownVtep));
    };
    dropped("XDP drops a stranger's packet", from(STRANGER, |_| {}));
    dropped(
        "XDP drops a stranger's first fragment",
        from(STRANGER, |frame| frame.outer.ip.more_fragments = true),
    );
    dropped(
        "XDP drops a stranger's packet of nothing but the VXLAN header",
        from(STRANGER, |_| {})[..50].to_vec(),
    );

    let mut left = |name, packet| {
        cases.add(Program::DropStrangers, name, packet, Verdict::Continue);
    };
    left("XDP leaves a peer's packet alone", from(PEER, |_| {}));
    let foreign = {
        let mut frame = from_peer(b"data");
        frame.ip.source = OTHER_REMOTE;
        vxlan_from(PEER, &frame).bytes()
    };
    left("XDP leaves what a peer does wrong to the guards", foreign);
    left(
        "XDP leaves a stranger's VXLAN of another VNI alone",
        from(STRANGER, |frame| frame.vxlan.vni = 101),
    );
    left(
        "XDP leaves a stranger's VXLAN without a VNI to the guards",
        from(STRANGER, |frame| frame.vxlan.flags = 0),
    );
    left(
        "XDP leaves a stranger's UDP to other ports alone",
        from(STRANGER, |frame| frame.udp.destination = 53),
    );
    left(
        "XDP leaves a stranger's TCP alone",
        from(STRANGER, |frame| frame.outer.ip.protocol = 6),
    );
    left(
        "XDP leaves VXLAN to another host alone",
        from(STRANGER, |frame| {
            frame.outer.ip.destination = Ipv4Addr::new(192, 0, 2, 7);
        }),
    );
    left(
        "XDP leaves a later fragment to the kernel, which will miss the first",
        from(STRANGER, |frame| frame.outer.ip.fragment_offset = 100),
    );
    left(
        "XDP leaves IPv4 options to the guards",
        from(STRANGER, |frame| frame.outer.options = vec![1; 4]),
    );
    left(
        "XDP leaves a packet cut inside its VXLAN header to the guards",
        from(STRANGER, |_| {})[..49].to_vec(),
    );
    left(
        "XDP leaves what is not IPv4 alone",
        with(from(STRANGER, |_| {}), 12, &[0x81, 0x00]),
    );
}
