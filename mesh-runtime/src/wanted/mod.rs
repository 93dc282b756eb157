//! What the agent, and whoever else calls, wants the node to show.

pub(crate) mod adopt;
pub(crate) mod attachment;
pub(crate) mod endpoint;
pub(crate) mod endpoint_request;
pub(crate) mod interface;
pub(crate) mod node_settings;
pub(crate) mod peer;
pub(crate) mod peer_named;
pub(crate) mod registry;
pub(crate) mod state;
pub(crate) mod subnet;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;
use mesh_ipam::Published;

use endpoint::AttachedEndpoint;
use node_settings::NodeSettings;
use peer::Peer;

/// The wanted state, as the calls so far have made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// This node's subnet, once it is known.
    pub(crate) subnet: Option<Ipv4Net>,
    /// This node's underlay address: by option, else as the agent says. `None` leaves the
    /// choice to what the host's routes and addresses say.
    pub(crate) host_address: Option<Ipv4Addr>,
    /// What is the same on all nodes of the cluster, as the agent says.
    pub(crate) node_settings: NodeSettings,
    /// Generation of the peer set.
    pub(crate) generation: u64,
    /// The other nodes, by subnet.
    pub(crate) peers: Arc<BTreeMap<Ipv4Net, Peer>>,
    /// Destinations of `InjectRoute`. A sync leaves them alone.
    pub(crate) injected: Arc<BTreeSet<Ipv4Net>>,
    /// Containers that somebody has attached by call, by their addresses.
    pub(crate) endpoints: BTreeMap<Ipv4Addr, AttachedEndpoint>,
    /// The ports of this host by which containers are reached, each with its container's address. The registry
    /// has them; they are not in the state file.
    pub(crate) published: BTreeSet<(Ipv4Addr, Published)>,
    /// Index of the bridge, once it was seen with our MAC address: it stays ours when
    /// something rewrites the address.
    pub(crate) own_bridge: Option<u32>,
    /// Indexes of the ports of our bridge while it was there: a bridge that was deleted gets
    /// them back, because nobody else will notice that they have none.
    pub(crate) bridge_ports: BTreeSet<u32>,
}

/// What a sync changed in the peer set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerChanges {
    pub(crate) added: BTreeSet<Ipv4Net>,
    pub(crate) changed: BTreeSet<Ipv4Net>,
    pub(crate) removed: BTreeSet<Ipv4Net>,
    pub(crate) unchanged: BTreeSet<Ipv4Net>,
}

/// A sync that comes after a newer one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "generation {given} is below {applied}, which is applied already: this call was overtaken by \
     a newer one; go on from {applied}"
)]
pub(crate) struct StaleGeneration {
    pub(crate) given: u64,
    pub(crate) applied: u64,
}

impl Wanted {
    /// Every subnet that needs a route: the peers' and the injected ones.
    pub(crate) fn destinations(&self) -> BTreeSet<Ipv4Net> {
        self.peers
            .keys()
            .copied()
            .chain(self.injected.iter().copied())
            .collect()
    }

    /// Makes `subnet` this node's. A peer that had it so far is forgotten: two nodes with
    /// one subnet cannot both be right, and this call is the newer word.
    pub(crate) fn set_subnet(&mut self, subnet: Ipv4Net) {
        self.subnet = Some(subnet);
        self.remove(subnet);
        self.endpoints.retain(|address, _| subnet.contains(address));
        self.published
            .retain(|(address, _)| subnet.contains(address));
    }

    /// Refuses a generation below the applied one.
    pub(crate) fn check_generation(&self, given: u64) -> Result<(), StaleGeneration> {
        if given < self.generation {
            return Err(StaleGeneration {
                given,
                applied: self.generation,
            });
        }
        Ok(())
    }

    /// Makes `peers` the whole peer set.
    pub(crate) fn sync_peers(
        &mut self,
        generation: u64,
        peers: BTreeMap<Ipv4Net, Peer>,
    ) -> PeerChanges {
        let mut changes = PeerChanges::default();
        for (&subnet, peer) in &peers {
            let set = match self.peers.get(&subnet) {
                None => &mut changes.added,
                Some(before) if (before.address, before.mtu) != (peer.address, peer.mtu) => {
                    &mut changes.changed
                }
                Some(_) => &mut changes.unchanged,
            };
            set.insert(subnet);
        }
        changes.removed = self
            .peers
            .keys()
            .filter(|subnet| !peers.contains_key(subnet))
            .copied()
            .collect();
        self.generation = generation;
        // What was computed of a set that is the same stays.
        if *self.peers != peers {
            self.peers = Arc::new(peers);
        }
        changes
    }

    /// Adds a destination. Returns whether it is new.
    pub(crate) fn inject(&mut self, destination: Ipv4Net) -> bool {
        !self.injected.contains(&destination)
            && Arc::make_mut(&mut self.injected).insert(destination)
    }

    /// Takes back what [`inject`](Self::inject) added.
    pub(crate) fn take_back(&mut self, destination: Ipv4Net) {
        Arc::make_mut(&mut self.injected).remove(&destination);
    }

    /// Forgets a destination, as a peer and as an injected route. Returns whether it was known.
    pub(crate) fn remove(&mut self, destination: Ipv4Net) -> bool {
        let (injected, peer) = (
            self.injected.contains(&destination),
            self.peers.contains_key(&destination),
        );
        if injected {
            Arc::make_mut(&mut self.injected).remove(&destination);
        }
        if peer {
            Arc::make_mut(&mut self.peers).remove(&destination);
        }
        injected || peer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(third: u8) -> Ipv4Net {
        Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, 0), 24)
    }

    fn peers(entries: &[(u8, u8)]) -> BTreeMap<Ipv4Net, Peer> {
        entries
            .iter()
            .map(|&(third, host)| {
                let peer = Peer {
                    address: Ipv4Addr::new(192, 0, 2, host),
                    hostname: String::new(),
                    suspect: false,
                    mtu: None,
                };
                (net(third), peer)
            })
            .collect()
    }

    #[test]
    fn a_sync_makes_its_peers_the_whole_set_and_says_what_changed() {
        let mut wanted = Wanted::default();
        wanted.sync_peers(1, peers(&[(2, 2), (3, 3), (4, 4)]));
        let changes = wanted.sync_peers(2, peers(&[(3, 3), (4, 44), (5, 5)]));
        assert_eq!(changes.added, [net(5)].into());
        assert_eq!(changes.changed, [net(4)].into());
        assert_eq!(changes.removed, [net(2)].into());
        assert_eq!(changes.unchanged, [net(3)].into());
        assert_eq!(wanted.generation, 2);
        assert_eq!(wanted.destinations(), [net(3), net(4), net(5)].into());
    }

    #[test]
    fn a_peer_whose_mtu_is_another_has_changed() {
        let mut wanted = Wanted::default();
        wanted.sync_peers(1, peers(&[(2, 2), (3, 3)]));
        let mut set = peers(&[(2, 2), (3, 3)]);
        set.get_mut(&net(3)).unwrap().mtu = Some(1400);
        let changes = wanted.sync_peers(2, set);
        assert_eq!(changes.changed, [net(3)].into());
        assert_eq!(changes.unchanged, [net(2)].into());
    }

    #[test]
    fn a_sync_leaves_injected_routes_alone() {
        let mut wanted = Wanted::default();
        wanted.inject(net(9));
        wanted.sync_peers(1, peers(&[(2, 2)]));
        wanted.sync_peers(2, peers(&[]));
        assert_eq!(wanted.destinations(), [net(9)].into());
    }

    #[test]
    fn removing_a_destination_forgets_it_as_peer_and_as_injected_route() {
        let mut wanted = Wanted::default();
        wanted.sync_peers(1, peers(&[(2, 2)]));
        wanted.inject(net(2));
        assert!(wanted.remove(net(2)));
        assert!(wanted.destinations().is_empty());
        assert!(!wanted.remove(net(2)));
        wanted.sync_peers(2, peers(&[(2, 2)]));
        assert_eq!(wanted.destinations(), [net(2)].into());
    }

    #[test]
    fn only_a_generation_below_the_applied_one_is_refused() {
        let mut wanted = Wanted::default();
        wanted.sync_peers(7, peers(&[]));
        assert_eq!(wanted.check_generation(8), Ok(()));
        assert_eq!(wanted.check_generation(7), Ok(()));
        let error = wanted.check_generation(6).unwrap_err();
        assert!(error.to_string().contains("below 7"), "{error}");
    }

    #[test]
    fn a_subnet_that_becomes_ours_is_no_peers_any_more() {
        let mut wanted = Wanted::default();
        wanted.sync_peers(1, peers(&[(2, 2), (3, 3)]));
        wanted.inject(net(2));
        wanted.set_subnet(net(2));
        assert_eq!(wanted.destinations(), [net(3)].into());
    }
}
