//! How it is shown that a packet did not arrive, without waiting for nothing to happen: what
//! may arrive is sent after it, and has to come first.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

use mesh_testbed::NetNs;

use crate::{packet_socket::PacketSocket, pair::SOON, port::bind};

/// Where witnesses listen.
pub(crate) const PORT: u16 = 7777;

/// What every forged packet says.
pub(crate) const FORGED: &[u8] = b"this is forged";

/// How often a forged packet is sent: one may be lost for another reason.
pub(crate) const TIMES: usize = 5;

/// A forged packet takes up to so many queues, of which each marker empties one: the bridge's,
/// the host's, the overlay's.
const MARKERS: usize = 4;

/// The time after which a marker is sent once more.
const RESEND: Duration = Duration::from_millis(300);

/// Somebody who sees packets arrive, in order.
pub(crate) trait Witness {
    /// The next packet, or `None` if none comes within `patience`.
    fn next(&self, patience: Duration) -> Option<Vec<u8>>;
}

impl Witness for PacketSocket {
    fn next(&self, patience: Duration) -> Option<Vec<u8>> {
        self.receive(patience)
    }
}

/// A UDP socket on [`PORT`].
pub(crate) struct Listener(UdpSocket);

impl Listener {
    pub(crate) fn on(netns: &NetNs) -> Self {
        Self::on_port(netns, PORT)
    }

    pub(crate) fn on_port(netns: &NetNs, port: u16) -> Self {
        Self(bind(netns, || {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
        }))
    }
}

impl Witness for Listener {
    fn next(&self, patience: Duration) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = vec![0; 65_536];
        let (length, _) = self.0.recv_from(&mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }
}

/// All ICMPv6 that a namespace takes in, as daemons hear it that look for routers.
pub(crate) struct Icmpv6(socket2::Socket);

impl Icmpv6 {
    pub(crate) fn open(netns: &NetNs) -> Self {
        use socket2::{Domain, Protocol, Socket, Type};
        let opened = netns.run(|| Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)));
        Self(opened.unwrap().unwrap())
    }
}

impl Witness for Icmpv6 {
    fn next(&self, patience: Duration) -> Option<Vec<u8>> {
        use std::io::Read as _;
        self.0.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = vec![0; 65_536];
        let length = (&self.0).read(&mut buffer).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }
}

pub(crate) fn contains(packet: &[u8], part: &[u8]) -> bool {
    packet.windows(part.len()).any(|window| window == part)
}

/// Has markers sent until they have arrived, and asserts that nothing with `forged` in it came
/// before the last of them.
pub(crate) fn sees_no(forged: &[u8], witness: &impl Witness, mut send_marker: impl FnMut(&[u8])) {
    for number in 0..MARKERS {
        let marker = format!("marker {number}");
        let arrived = wait_for(marker.as_bytes(), witness, &mut send_marker, |packet| {
            assert!(!contains(packet, forged), "what is forged was delivered");
        });
        assert!(arrived, "{marker} did not arrive in {SOON:?}");
    }
}

/// Sends `payload` again and again until the witness has seen it, and shows `before` what came
/// earlier.
fn wait_for(
    payload: &[u8],
    witness: &impl Witness,
    mut send: impl FnMut(&[u8]),
    mut before: impl FnMut(&[u8]),
) -> bool {
    let started = Instant::now();
    let mut sent = None::<Instant>;
    while started.elapsed() < SOON {
        if sent.is_none_or(|at| at.elapsed() >= RESEND) {
            send(payload);
            sent = Some(Instant::now());
        }
        match witness.next(Duration::from_millis(50)) {
            Some(packet) if contains(&packet, payload) => return true,
            Some(packet) => before(&packet),
            None => {}
        }
    }
    false
}

/// Asserts that what `send` sends arrives.
pub(crate) fn sees(payload: &[u8], witness: &impl Witness, send: impl FnMut(&[u8])) {
    let arrived = wait_for(payload, witness, send, |_| {});
    let text = String::from_utf8_lossy(payload);
    assert!(arrived, "{text:?} did not arrive in {SOON:?}");
}
