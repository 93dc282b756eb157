//! Raw frames into and out of one interface, in an order that holds.

use std::time::Duration;

use mesh_testbed::NetNs;

use crate::{inside::pinned, pair::SOON};

/// The testbed's packet socket, for frames that nothing may overtake.
pub(crate) struct PacketSocket(mesh_testbed::PacketSocket);

/// A frame whose checksum is left to somebody on its way: the sum of all from `start` on is written
/// `offset` behind that.
pub(crate) fn unfinished(frame: &[u8], start: u16, offset: u16) -> Vec<u8> {
    /// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
    const NEEDS_CHECKSUM: u8 = 1;
    let mut bytes = vec![NEEDS_CHECKSUM, 0, 0, 0, 0, 0];
    bytes.extend(start.to_ne_bytes());
    bytes.extend(offset.to_ne_bytes());
    bytes.extend(frame);
    bytes
}

impl PacketSocket {
    pub(crate) fn open(namespace: &NetNs, interface: &str) -> Self {
        Self(mesh_testbed::PacketSocket::open(namespace, interface).unwrap())
    }

    /// One by which checksums are left to others: see [`unfinished`].
    pub(crate) fn open_for_unfinished(namespace: &NetNs, interface: &str) -> Self {
        Self(
            Self::open(namespace, interface)
                .0
                .with_offload_headers()
                .unwrap(),
        )
    }

    /// Sends frames out of the interface, in order. `netns` is the socket's, for its CPU's sake.
    pub(crate) fn send(&self, netns: &NetNs, frames: &[Vec<u8>]) {
        pinned(netns, || {
            for frame in frames {
                self.0.send(frame).unwrap();
            }
        });
    }

    /// The next frame, or `None` if none comes within `patience`.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        self.0.receive(patience.min(SOON), |_| true).unwrap()
    }
}
