//! Raw frames into and out of one interface, in an order that holds.

use std::time::Duration;

use mesh_testbed::NetNs;

use crate::{inside::pinned, pair::SOON};

/// The testbed's packet socket, for frames that nothing may overtake.
pub(crate) struct PacketSocket(mesh_testbed::PacketSocket);

impl PacketSocket {
    pub(crate) fn open(namespace: &NetNs, interface: &str) -> Self {
        Self(mesh_testbed::PacketSocket::open(namespace, interface).unwrap())
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
