//! From the wanted peers and the entries the kernel shows to the changes of the peer maps.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use mesh_layout::{
    PEER_KERNEL, PEER_MULTIPATH, Peer, PeerKey, TRANSPORT_VXLAN, Vtep, VtepKey, overlay_mac,
};

use super::{FastPathError, PeerPath};

/// Changes of the maps `peers` and `vteps`, in the order they are to be made: counters are
/// cleared before an entry points to them, an address is known before packets are accepted
/// from it, and forgotten last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerMapChanges {
    /// Counters that a new peer gets and an old one left behind.
    pub(super) clear: Vec<u32>,
    pub(super) set_vteps: Vec<(VtepKey, Vtep)>,
    pub(super) set_peers: Vec<(PeerKey, Peer)>,
    pub(super) remove_peers: Vec<PeerKey>,
    pub(super) remove_vteps: Vec<VtepKey>,
    pub(super) added: u32,
    pub(super) changed: u32,
}

/// Key of a subnet in the `peers` map.
pub(super) fn peer_key(subnet: Ipv4Net) -> PeerKey {
    PeerKey {
        subnet: subnet.network().octets(),
    }
}

/// The entry of a peer, with the index of its counters.
pub(super) fn peer(key: PeerKey, path: &PeerPath, vni: u32, counters: u32) -> Peer {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    Peer {
        address: path.address.octets(),
        transport: TRANSPORT_VXLAN,
        flags: flag(path.kernel, PEER_KERNEL) | flag(path.multipath, PEER_MULTIPATH),
        reserved: [0; 2],
        mtu: path.mtu,
        vni,
        counters,
        mac: overlay_mac(key.subnet),
        pad: [0; 2],
    }
}

/// Computes what to change. A peer that stays keeps its counters, whatever else of it
/// changes; a new one gets the lowest free index.
pub(super) fn plan(
    wanted: &BTreeMap<Ipv4Net, PeerPath>,
    vni: u32,
    peers: &BTreeMap<PeerKey, Peer>,
    vteps: &BTreeMap<VtepKey, Vtep>,
    capacity: u32,
) -> Result<PeerMapChanges, FastPathError> {
    if wanted.len() > capacity as usize {
        return Err(FastPathError::TooManyPeers {
            wanted: wanted.len(),
            capacity,
        });
    }
    let wanted_keys: BTreeSet<PeerKey> = wanted.keys().map(|subnet| peer_key(*subnet)).collect();
    // Two entries with one index would mix their counters: the first keeps it.
    let mut in_use = BTreeSet::new();
    let mut kept = BTreeMap::new();
    for (key, peer) in peers {
        if wanted_keys.contains(key) && peer.counters < capacity && in_use.insert(peer.counters) {
            kept.insert(*key, peer.counters);
        }
    }
    let mut free = (0..capacity).filter(|index| !in_use.contains(index));

    let mut changes = PeerMapChanges::default();
    let mut wanted_vteps = BTreeMap::new();
    for (subnet, path) in wanted {
        let key = peer_key(*subnet);
        let counters = match kept.get(&key) {
            Some(counters) => *counters,
            // At most `capacity` peers are wanted, so an index is free.
            None => match free.next() {
                Some(index) => {
                    changes.clear.push(index);
                    index
                }
                None => continue,
            },
        };
        let entry = peer(key, path, vni, counters);
        let vtep = VtepKey {
            address: entry.address,
        };
        wanted_vteps.entry(vtep).or_insert(Vtep { counters });
        match peers.get(&key) {
            Some(shown) if *shown == entry => {}
            shown => {
                if shown.is_some() {
                    changes.changed += 1;
                } else {
                    changes.added += 1;
                }
                changes.set_peers.push((key, entry));
            }
        }
    }

    changes.remove_peers = peers
        .keys()
        .filter(|key| !wanted_keys.contains(key))
        .copied()
        .collect();
    changes.remove_vteps = vteps
        .keys()
        .filter(|key| !wanted_vteps.contains_key(key))
        .copied()
        .collect();
    changes.set_vteps = wanted_vteps
        .into_iter()
        .filter(|(key, vtep)| vteps.get(key) != Some(vtep))
        .collect();
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const CAPACITY: u32 = 16;

    fn wanted() -> impl Strategy<Value = BTreeMap<Ipv4Net, PeerPath>> {
        prop::collection::btree_map(
            (0_u8..20).prop_map(|third| Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, 0), 24)),
            (
                0_u8..6,
                prop_oneof![Just(0), Just(1400)],
                any::<[bool; 2]>(),
            )
                .prop_map(|(host, mtu, [kernel, multipath])| PeerPath {
                    address: Ipv4Addr::new(192, 0, 2, host),
                    mtu,
                    kernel,
                    multipath,
                }),
            0..=CAPACITY as usize,
        )
    }

    /// Entries as an earlier life, or somebody with bpftool, may have left them.
    fn shown() -> impl Strategy<Value = BTreeMap<PeerKey, Peer>> {
        prop::collection::btree_map(
            (0_u8..20).prop_map(|third| PeerKey {
                subnet: [10, 42, third, 0],
            }),
            (0_u8..6, 0_u32..2 * CAPACITY, 0_u8..4).prop_map(|(host, counters, flags)| Peer {
                address: [192, 0, 2, host],
                transport: TRANSPORT_VXLAN,
                flags,
                reserved: [0; 2],
                mtu: 0,
                vni: 100,
                counters,
                mac: [2, 0, 0, 0, 0, host],
                pad: [0; 2],
            }),
            0..12,
        )
    }

    fn vteps() -> impl Strategy<Value = BTreeMap<VtepKey, Vtep>> {
        prop::collection::btree_map(
            (0_u8..6).prop_map(|host| VtepKey {
                address: [192, 0, 2, host],
            }),
            (0_u32..CAPACITY).prop_map(|counters| Vtep { counters }),
            0..6,
        )
    }

    fn execute(
        changes: &PeerMapChanges,
        peers: &mut BTreeMap<PeerKey, Peer>,
        vteps: &mut BTreeMap<VtepKey, Vtep>,
    ) {
        vteps.extend(changes.set_vteps.iter().copied());
        peers.extend(changes.set_peers.iter().copied());
        for key in &changes.remove_peers {
            assert!(peers.remove(key).is_some(), "removes what is there");
        }
        for key in &changes.remove_vteps {
            assert!(vteps.remove(key).is_some(), "removes what is there");
        }
    }

    proptest! {
        #[test]
        fn one_round_shows_exactly_the_wanted_peers_and_a_second_changes_nothing(
            wanted in wanted(), mut peers in shown(), mut vteps in vteps(),
        ) {
            let changes = plan(&wanted, 100, &peers, &vteps, CAPACITY).unwrap();
            execute(&changes, &mut peers, &mut vteps);

            let shown: Vec<_> = peers.keys().copied().collect();
            let expected: Vec<_> = wanted.keys().map(|subnet| peer_key(*subnet)).collect();
            prop_assert_eq!(shown, expected);
            for (subnet, path) in &wanted {
                let entry = peers[&peer_key(*subnet)];
                prop_assert_eq!(entry.address, path.address.octets());
                prop_assert_eq!(entry.mtu, path.mtu);
                prop_assert_eq!(entry.flags & PEER_KERNEL != 0, path.kernel);
                prop_assert_eq!(entry.flags & PEER_MULTIPATH != 0, path.multipath);
                let address = VtepKey { address: entry.address };
                prop_assert!(vteps.contains_key(&address));
            }
            for vtep in vteps.keys() {
                prop_assert!(peers.values().any(|peer| peer.address == vtep.address));
            }
            let again = plan(&wanted, 100, &peers, &vteps, CAPACITY).unwrap();
            prop_assert_eq!(again, PeerMapChanges::default());
        }

        #[test]
        fn no_two_peers_share_counters_and_a_peer_that_stays_keeps_its_own(
            wanted in wanted(), mut peers in shown(), mut vteps in vteps(),
        ) {
            let before = peers.clone();
            let changes = plan(&wanted, 100, &peers, &vteps, CAPACITY).unwrap();
            execute(&changes, &mut peers, &mut vteps);

            let indexes: BTreeSet<_> = peers.values().map(|peer| peer.counters).collect();
            prop_assert_eq!(indexes.len(), peers.len());
            prop_assert!(indexes.iter().all(|index| *index < CAPACITY));
            for (key, peer) in &peers {
                let fresh = changes.clear.contains(&peer.counters);
                let moved = before.get(key).is_none_or(|old| old.counters != peer.counters);
                prop_assert_eq!(fresh, moved, "cleared exactly when it is a new index");
            }
        }
    }

    #[test]
    fn more_peers_than_the_map_holds_are_refused_with_both_numbers() {
        let wanted = (1..=3_u8)
            .map(|third| {
                (
                    Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, 0), 24),
                    PeerPath {
                        address: Ipv4Addr::new(192, 0, 2, third),
                        mtu: 0,
                        kernel: false,
                        multipath: false,
                    },
                )
            })
            .collect();
        let error = plan(&wanted, 100, &BTreeMap::new(), &BTreeMap::new(), 2).unwrap_err();
        assert!(error.to_string().contains("3 peers do not fit a map of 2"));
    }
}
