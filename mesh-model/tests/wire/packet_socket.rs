//! Raw frames into and out of one interface, as tests want them.

use std::time::Duration;

use mesh_testbed::NetNs;

/// How long a frame may take that should take microseconds.
const SOON: Duration = Duration::from_secs(10);

/// A packet socket whose failures are a test's.
pub(crate) struct PacketSocket(mesh_testbed::PacketSocket);

impl PacketSocket {
    pub(crate) fn open(namespace: &NetNs, interface: &str) -> Self {
        Self(mesh_testbed::PacketSocket::open(namespace, interface).unwrap())
    }

    /// Sends a frame out of the interface.
    pub(crate) fn send(&self, frame: &[u8]) {
        self.0.send(frame).unwrap();
    }

    /// The next frame that `wanted` accepts; panics if none comes.
    pub(crate) fn receive(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let received = self.0.receive(SOON, wanted).unwrap();
        received.unwrap_or_else(|| panic!("the frame did not arrive in {SOON:?}"))
    }
}
