//! One look at whether VXLAN gets to peers and back: by the overlay, and for those that are silent there by the
//! underlay, past everything that is ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    pin::pin,
    time::{Duration, Instant},
};

use super::{
    ASKED_AT_A_TIME, OpenProbeSocket, ProbeSocket,
    round::Round,
    swallowed::{PeerHost, Sign},
};
use crate::wanted::subnet::gateway;

/// The wait for answers, by either way.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often each is asked in one look, where it is silent: whoever loses both is asked again by the next look. Each attempt
/// wakes this process up.
const ATTEMPTS: u32 = 2;

/// What is asked over.
pub(crate) struct LookSockets {
    /// To peers' bridge addresses, over the VXLAN device.
    overlay: ProbeSocket,
    /// To peers' hosts, as the host's own routes lead there.
    host: ProbeSocket,
    /// To the port of VXLAN on peers' hosts: who serves it says nothing, and who does not says so.
    port: ProbeSocket,
}

impl LookSockets {
    /// Opens the sockets in the network namespace of this thread.
    pub(crate) fn open(
        bridge_address: Ipv4Addr,
        overlay: &str,
        host_address: Ipv4Addr,
        vxlan_port: u16,
    ) -> io::Result<Self> {
        Ok(Self {
            overlay: OpenProbeSocket::open(bridge_address, Some(overlay))?.register()?,
            host: OpenProbeSocket::open(host_address, None)?.register()?,
            port: OpenProbeSocket::to_port(host_address, vxlan_port)?.register()?,
        })
    }

    /// Asks peers, and says what was heard of each. It takes twice [`PATIENCE`] at most.
    pub(crate) async fn look(self, peers: Vec<PeerHost>) -> BTreeMap<PeerHost, Sign> {
        let gateways = peers.iter().map(|&(subnet, _)| gateway(subnet));
        let over_overlay = ask(&self.overlay, gateways).await;
        let mut findings = BTreeMap::new();
        let mut silent = Vec::new();
        for peer in peers {
            let gateway = gateway(peer.0);
            if over_overlay.heard.contains(&gateway) {
                findings.insert(peer, Sign::Overlay);
            } else if over_overlay.refused.contains(&gateway) {
                // What could not even leave says nothing of the way.
                findings.insert(peer, Sign::Nothing);
            } else {
                silent.push(peer);
            }
        }
        let hosts = || silent.iter().map(|&(_, host)| host);
        let (host, port) = tokio::join!(ask(&self.host, hosts()), ask(&self.port, hosts()));
        findings.extend(silent.iter().map(|&peer| {
            let asked = |outcome: &Answers| !outcome.refused.contains(&peer.1);
            let sign = if port.heard.contains(&peer.1) {
                Sign::Unserved
            } else if host.heard.contains(&peer.1) && asked(&port) {
                Sign::HostAlone
            } else {
                Sign::Nothing
            };
            (peer, sign)
        }));
        findings
    }
}

/// Who answered, and who could not be asked.
struct Answers {
    heard: BTreeSet<Ipv4Addr>,
    refused: BTreeSet<Ipv4Addr>,
}

/// Asks until all have answered or the time is over. All at once: each time of its own would wake this process
/// once more, and there are few.
async fn ask(socket: &ProbeSocket, whom: impl Iterator<Item = Ipv4Addr>) -> Answers {
    let whom: BTreeSet<Ipv4Addr> = whom.collect();
    let begun = Instant::now();
    let mut heard = BTreeSet::new();
    let mut round = Round::new(whom.iter().copied(), PATIENCE, ATTEMPTS, || 0.0);
    while !round.is_over(begun.elapsed()) {
        for (to, attempt) in round.due(begun.elapsed(), ASKED_AT_A_TIME) {
            let asked = socket.send(to, attempt).map_err(|error| error.to_string());
            round.asked(to, asked);
        }
        let mut wake = pin!(mesh_ticker::sleep(
            round.wake_at().saturating_sub(begun.elapsed())
        ));
        loop {
            tokio::select! {
                from = socket.answer() => {
                    if whom.contains(&from) {
                        round.heard(from);
                        heard.insert(from);
                    }
                    if round.is_over(begun.elapsed()) {
                        break;
                    }
                }
                () = &mut wake => break,
            }
        }
    }
    Answers {
        heard,
        refused: round.refused().into_keys().collect(),
    }
}
