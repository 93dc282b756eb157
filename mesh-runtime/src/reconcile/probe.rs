//! What a probe needs of the loop: who is a peer, a socket, and what the programs counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use ipnet::Ipv4Net;

use super::{FastPathSlot, Reconciler};
use crate::{
    probe::{OpenProbeSocket, ProbeStart},
    wanted::subnet::gateway,
};

impl Reconciler {
    /// Tells the peers among `subnets`, or all, and opens a socket to ask them over. The
    /// socket is opened here because here is the right network namespace.
    pub(super) fn start_probe(&self, subnets: Vec<String>) -> ProbeStart {
        let subjects: Vec<(String, Result<Ipv4Net, String>)> = if subnets.is_empty() {
            let peers = self.wanted.peers.keys();
            peers.map(|peer| (peer.to_string(), Ok(*peer))).collect()
        } else {
            let mut named = BTreeSet::new();
            subnets
                .into_iter()
                .filter(|subnet| named.insert(subnet.clone()))
                .map(|subnet| {
                    let peer = self.peer_named(&subnet);
                    (subnet, peer)
                })
                .collect()
        };
        let socket = match self.wanted.subnet {
            Some(own) => OpenProbeSocket::open(gateway(own), Some(&self.settings.overlay))
                .map_err(|error| format!("cannot ask over {}: {error}", self.settings.overlay)),
            None => Err("this node has no subnet yet".to_owned()),
        };
        ProbeStart { subjects, socket }
    }

    fn peer_named(&self, subnet: &str) -> Result<Ipv4Net, String> {
        let peer = self
            .settings
            .cluster
            .parse_subnet(subnet)
            .map_err(|error| error.to_string())?;
        if !self.wanted.peers.contains_key(&peer) {
            return Err(format!("{peer} is no peer's subnet"));
        }
        Ok(peer)
    }

    /// When each of `peers` was heard last; without the fast path nobody counts.
    pub(super) fn last_seen(&self, peers: &[Ipv4Net]) -> BTreeMap<Ipv4Net, Instant> {
        let FastPathSlot::Open(open) = &self.fast_path else {
            return BTreeMap::new();
        };
        let now = Instant::now();
        match open.fast_path.last_packet_ages(peers) {
            Ok(ages) => ages
                .into_iter()
                .filter_map(|(peer, age)| Some((peer, now.checked_sub(age)?)))
                .collect(),
            Err(error) => {
                tracing::warn!(name: "cannot-read-peers-counters", %error, "cannot read the peers' counters");
                BTreeMap::new()
            }
        }
    }
}
