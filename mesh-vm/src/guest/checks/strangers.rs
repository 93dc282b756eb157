//! VXLAN from a machine on the underlay that is no node.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::ensure;
use mesh_model::{Frame, VxlanFrame, tagged};
use mesh_testbed::{Deadline, PacketSocket};

use super::{forged::FORGED, guards::mac_of};
use crate::{
    pair::{PATIENCE, Pair},
    progress::step,
};

/// What the peer itself sends. It is taken, which shows that the forged frames fail at their sender alone.
const HONEST: &[u8] = b"this is the peer's";
const CARD: &str = "eth0";
/// The time after which an honest packet is sent once more.
const RESEND: Duration = Duration::from_secs(1);
/// Honest packets after each forged one.
const MARKERS: usize = 2;

/// Sends a stranger's VXLAN to the first host behind each of these stacks of tags, with an inner
/// packet of the peer's container to the host's. After each come packets of the peer's own, behind
/// the tags of the underlay, and they have to arrive before anything forged.
pub(super) async fn hold(
    pair: &Pair,
    tags: &[&[(u16, u16)]],
    underlay: &[(u16, u16)],
) -> anyhow::Result<()> {
    let ([host, peer], [container, remote]) = (pair.hosts(), pair.containers());
    let macs = [mac_of(peer.netns(), CARD)?, mac_of(host.netns(), CARD)?];
    let inner_macs = [
        mac_of(peer.netns(), "vxlan100")?,
        mac_of(host.netns(), "vxlan100")?,
    ];
    let addresses = [remote.address(), container.address()];
    let vxlan = |from: Ipv4Addr, data: &[u8]| {
        let inner = Frame::udp(inner_macs, addresses, [7777; 2], data).bytes();
        VxlanFrame::proper(macs, [from, host.address()], inner).bytes()
    };
    let [a, b, c, _] = host.address().octets();
    let stranger = Ipv4Addr::new(a, b, c, 250);
    ensure!(stranger != host.address() && stranger != peer.address());
    let sender = PacketSocket::open(peer.netns(), CARD)?;
    let witness = PacketSocket::open(container.netns(), "eth0")?;
    let says = |frame: &[u8], words: &[u8]| frame.windows(words.len()).any(|part| part == words);

    for tags in tags {
        step(format!("a stranger's VXLAN behind the tags {tags:04x?}"));
        sender.send(&tagged(&vxlan(stranger, FORGED), tags))?;
        for number in 0..MARKERS {
            let marker = [HONEST, format!("{tags:?} {number}").as_bytes()].concat();
            let honest = tagged(&vxlan(peer.address(), &marker), underlay);
            let deadline = Deadline::after(PATIENCE);
            let heard = loop {
                sender.send(&honest)?;
                let wanted = |frame: &[u8]| says(frame, FORGED) || says(frame, &marker);
                if let Some(frame) = witness.receive(RESEND, wanted)? {
                    break frame;
                }
                ensure!(
                    !deadline.remaining().is_zero(),
                    "the peer's own VXLAN does not arrive"
                );
            };
            ensure!(
                !says(&heard, FORGED),
                "it was heard behind {tags:04x?}: {heard:02x?}"
            );
        }
    }
    Ok(())
}
