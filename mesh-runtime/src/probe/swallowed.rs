//! Between which hosts somebody on the way swallows VXLAN. Pure.
//!
//! Neither host sees what vanishes between them, so it is told by what does not vanish: a peer whose host answers
//! otherwise, whose port for VXLAN is served, and from which nothing comes over the overlay, several looks in a
//! row.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use ipnet::Ipv4Net;

/// A peer's subnet, and its address on the underlay. With another address it is looked at anew.
pub(crate) type PeerHost = (Ipv4Net, Ipv4Addr);

/// Looks in a row that a peer has to be silent in: one that is just starting does not know this node yet.
const LOOKS: u32 = 3;

/// Time between two looks while nothing is suspected.
const SELDOM: Duration = Duration::from_secs(30);
/// Time between two looks while something is.
pub(crate) const OFTEN: Duration = Duration::from_secs(10);

/// Peers that are asked in one look while nothing is suspected. All have their turn: 254 within four minutes.
const SAMPLE: usize = 32;

/// For each that is suspected, so many more are asked: whoever swallows for one may do so for all.
const MORE: usize = 8;

/// Peers that are asked in one look at most.
const AT_ONCE: usize = 256;

/// What a look says of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It answers over the overlay, or its containers' packets arrive.
    Overlay,
    /// Its host answers, but not over the overlay.
    HostAlone,
    /// Its host says that nobody there serves the port of VXLAN: so that passes.
    Unserved,
    /// Nothing is heard of it, or it could not be asked.
    Nothing,
}

/// What is suspected.
#[derive(Debug, Default)]
pub(crate) struct Swallowed {
    /// How many looks in a row each was silent over the overlay, while its host answered.
    silent: BTreeMap<PeerHost, u32>,
    /// The last that was asked without being suspected.
    last: Option<PeerHost>,
}

impl Swallowed {
    /// Chooses whom to ask: those that are suspected, and some of the others in turn. Those that are not among
    /// `peers` any more are forgotten.
    pub(crate) fn choose(&mut self, peers: &BTreeSet<PeerHost>) -> Vec<PeerHost> {
        self.silent.retain(|peer, _| peers.contains(peer));
        let mut chosen: Vec<PeerHost> = self.silent.keys().take(AT_ONCE).copied().collect();
        let more = SAMPLE + MORE * chosen.len();
        let after = |peer: &&PeerHost| self.last.is_none_or(|last| **peer > last);
        let behind = peers.iter().filter(after);
        let in_turn = behind.chain(peers.iter().filter(|peer| !after(peer)));
        let others: Vec<PeerHost> = in_turn
            .filter(|peer| !self.silent.contains_key(*peer))
            .take(more.min(AT_ONCE - chosen.len()))
            .copied()
            .collect();
        self.last = others.last().copied().or(self.last);
        chosen.extend(others);
        chosen
    }

    /// Takes what a look has found.
    pub(crate) fn note(&mut self, findings: &BTreeMap<PeerHost, Sign>) {
        for (&peer, sign) in findings {
            match sign {
                Sign::HostAlone => *self.silent.entry(peer).or_default() += 1,
                // A host that is silent altogether is down: that is for others to say.
                Sign::Overlay | Sign::Unserved | Sign::Nothing => {
                    self.silent.remove(&peer);
                }
            }
        }
    }

    /// The time until the next look.
    pub(crate) fn wait(&self) -> Duration {
        match self.silent.is_empty() {
            true => SELDOM,
            false => OFTEN,
        }
    }

    /// Those from which VXLAN does not come, or to which it does not get.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerHost> {
        let certain = self.silent.iter().filter(|(_, looks)| **looks >= LOOKS);
        certain.map(|(&peer, _)| peer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(number: u8) -> PeerHost {
        let subnet = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, number, 0), 24);
        (subnet, Ipv4Addr::new(192, 0, 2, number))
    }

    fn peers(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<PeerHost> {
        numbers.into_iter().map(peer).collect()
    }

    /// Looks until nothing new can come of it, with everybody in `numbers` answering by `sign`.
    fn looks(swallowed: &mut Swallowed, numbers: std::ops::RangeInclusive<u8>, sign: Sign) {
        for _ in 0..20 {
            let chosen = swallowed.choose(&peers(numbers.clone()));
            swallowed.note(&chosen.into_iter().map(|it| (it, sign)).collect());
        }
    }

    fn named(swallowed: &Swallowed) -> BTreeSet<PeerHost> {
        swallowed.peers().collect()
    }

    #[test]
    fn a_peer_is_named_when_it_was_silent_over_the_overlay_three_times_in_a_row() {
        let mut swallowed = Swallowed::default();
        let alone: BTreeMap<_, _> = [(peer(2), Sign::HostAlone)].into();
        for looks in 1..=4 {
            swallowed.note(&alone);
            assert_eq!(swallowed.wait(), OFTEN);
            let expected = (looks >= 3).then(|| peer(2));
            assert_eq!(named(&swallowed), expected.into_iter().collect());
        }
    }

    #[test]
    fn whatever_else_is_heard_of_a_peer_clears_it_at_once() {
        for sign in [Sign::Overlay, Sign::Unserved, Sign::Nothing] {
            let mut swallowed = Swallowed::default();
            looks(&mut swallowed, 2..=3, Sign::HostAlone);
            assert_eq!(named(&swallowed), peers([2, 3]));
            swallowed.note(&[(peer(2), sign)].into());
            assert_eq!(named(&swallowed), peers([3]), "{sign:?}");
            swallowed.note(&[(peer(3), sign)].into());
            assert_eq!((named(&swallowed), swallowed.wait()), (peers([]), SELDOM));
            // And it counts from the beginning again.
            for _ in 1..LOOKS {
                swallowed.note(&[(peer(2), Sign::HostAlone)].into());
            }
            assert_eq!(named(&swallowed), peers([]), "{sign:?}");
        }
    }

    #[test]
    fn a_peer_that_is_gone_or_has_moved_is_forgotten() {
        let mut swallowed = Swallowed::default();
        looks(&mut swallowed, 2..=3, Sign::HostAlone);
        let moved = (peer(3).0, peer(9).1);
        swallowed.choose(&[moved].into());
        assert_eq!(named(&swallowed), peers([]));
    }

    #[test]
    fn of_many_peers_all_are_asked_in_turn_and_few_at_a_time() {
        let all = peers(1..=254);
        let mut swallowed = Swallowed::default();
        let mut asked = BTreeSet::new();
        for _ in 0..8 {
            let chosen = swallowed.choose(&all);
            assert_eq!(chosen.len(), SAMPLE);
            asked.extend(chosen);
        }
        assert_eq!(asked, all);
    }

    #[test]
    fn where_all_are_swallowed_all_are_named_and_where_one_is_few_are_asked() {
        let mut swallowed = Swallowed::default();
        looks(&mut swallowed, 1..=254, Sign::HostAlone);
        assert_eq!(named(&swallowed), peers(1..=254));
        looks(&mut swallowed, 1..=254, Sign::Overlay);
        assert_eq!(named(&swallowed), peers([]));
        swallowed.note(&[(peer(7), Sign::HostAlone)].into());
        let chosen = swallowed.choose(&peers(1..=254));
        assert_eq!(chosen[0], peer(7));
        assert_eq!(chosen.len(), 1 + SAMPLE + MORE);
    }

    proptest! {
        #[test]
        fn nobody_is_asked_twice_in_a_look_nor_more_than_the_bound(
            count in 0..=u8::MAX,
            suspected in prop::collection::btree_set(any::<u8>(), 0..200),
            last in any::<Option<u8>>(),
        ) {
            let mut swallowed = Swallowed {
                last: last.map(peer),
                ..Swallowed::default()
            };
            swallowed.note(&suspected.iter().map(|&it| (peer(it), Sign::HostAlone)).collect());
            let all = peers(0..count);
            let chosen = swallowed.choose(&all);
            let once: BTreeSet<PeerHost> = chosen.iter().copied().collect();
            prop_assert_eq!(once.len(), chosen.len());
            prop_assert!(once.is_subset(&all) && chosen.len() <= AT_ONCE);
            let suspected = peers(suspected.into_iter().filter(|it| *it < count));
            prop_assert!(suspected.is_subset(&once));
        }
    }
}
