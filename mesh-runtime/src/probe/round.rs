//! Whom to ask when. Pure: time is what has passed since the round began.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

/// How often a peer that does not answer is asked at most.
pub(super) const ATTEMPTS: u32 = 3;

/// First attempts are spread so that this much time lies between two peers, and neither this
/// node nor the answers' way back sees a burst of thousands.
const SPACING: Duration = Duration::from_micros(10);

/// One round of questions.
#[derive(Debug)]
pub(super) struct Round {
    timeout: Duration,
    /// When each peer is asked next, and the how manieth time that will be.
    queue: BTreeSet<(Duration, Ipv4Addr, u32)>,
    /// Those that have not been heard, with why they could not be asked, if none could.
    silent: BTreeMap<Ipv4Addr, Option<String>>,
    /// When the attempts after the first are due, in their order.
    later: BTreeMap<Ipv4Addr, Vec<Duration>>,
}

impl Round {
    /// A round that ends after `timeout`, with at most so many `attempts` for each, or [`ATTEMPTS`]. `jitter` draws from
    /// 0 to 1.
    ///
    /// They begin at 0, 1/4 and 1/2 of the time, each up to an eighth of it later, so
    /// that half of it, less an eighth, is left for the last answer.
    pub(super) fn new(
        peers: impl IntoIterator<Item = Ipv4Addr>,
        timeout: Duration,
        attempts: u32,
        mut jitter: impl FnMut() -> f64,
    ) -> Self {
        let peers: BTreeSet<Ipv4Addr> = peers.into_iter().collect();
        let count = u32::try_from(peers.len()).unwrap_or(u32::MAX);
        let spread = SPACING.saturating_mul(count).min(timeout / 8);
        let mut round = Self {
            timeout,
            queue: BTreeSet::new(),
            silent: BTreeMap::new(),
            later: BTreeMap::new(),
        };
        for peer in peers {
            let mut at = |attempt: u32| {
                let width = if attempt == 0 { spread } else { timeout / 8 };
                timeout / 4 * attempt + width.mul_f64(jitter().clamp(0.0, 1.0))
            };
            round.queue.insert((at(0), peer, 0));
            round.silent.insert(peer, None);
            let later = (1..attempts.min(ATTEMPTS)).map(at).collect();
            round.later.insert(peer, later);
        }
        round
    }

    /// Takes at most `at_most` peers that are due, with the number of the attempt from 0.
    pub(super) fn due(&mut self, elapsed: Duration, at_most: usize) -> Vec<(Ipv4Addr, u32)> {
        let mut due = Vec::new();
        while due.len() < at_most {
            let Some(&(at, peer, attempt)) = self.queue.first() else {
                break;
            };
            if at > elapsed {
                break;
            }
            self.queue.pop_first();
            if !self.silent.contains_key(&peer) {
                continue;
            }
            due.push((peer, attempt));
            let next = attempt + 1;
            let time = self
                .later
                .get(&peer)
                .and_then(|it| it.get(attempt as usize));
            if let Some(&at) = time {
                self.queue.insert((at, peer, next));
            }
        }
        due
    }

    /// Notes whether a question left. One that did makes up for those that did not.
    pub(super) fn asked(&mut self, peer: Ipv4Addr, result: Result<(), String>) {
        if let Some(refused) = self.silent.get_mut(&peer) {
            *refused = result.err();
        }
    }

    /// Notes a sign of life.
    pub(super) fn heard(&mut self, peer: Ipv4Addr) {
        self.silent.remove(&peer);
    }

    /// Those that have not been heard.
    pub(super) fn silent(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.silent.keys().copied()
    }

    /// Until when there is nothing to do but to listen.
    pub(super) fn wake_at(&self) -> Duration {
        self.queue
            .first()
            .map_or(self.timeout, |&(at, _, _)| at.min(self.timeout))
    }

    /// Whether all have been heard or the time is over.
    pub(super) fn is_over(&self, elapsed: Duration) -> bool {
        self.silent.is_empty() || elapsed >= self.timeout
    }

    /// Those that have not been heard and whose last question could not leave.
    pub(super) fn refused(self) -> BTreeMap<Ipv4Addr, String> {
        self.silent
            .into_iter()
            .filter_map(|(peer, refused)| Some((peer, refused?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn peer(number: u16) -> Ipv4Addr {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, high, low, 1)
    }

    #[test]
    fn a_peer_that_is_heard_is_not_asked_again_and_ends_the_round() {
        let mut round = Round::new([peer(1), peer(2)], TIMEOUT, 3, || 0.5);
        assert_eq!(round.due(TIMEOUT / 8, 64), [(peer(1), 0), (peer(2), 0)]);
        round.heard(peer(1));
        assert_eq!(round.due(TIMEOUT, 64)[0], (peer(2), 1));
        assert!(!round.is_over(TIMEOUT / 2));
        round.heard(peer(2));
        assert!(round.is_over(TIMEOUT / 2));
        assert_eq!(round.due(TIMEOUT, 64), []);
    }

    #[test]
    fn only_a_peer_that_never_could_be_asked_is_refused() {
        let mut round = Round::new([peer(1), peer(2), peer(3)], TIMEOUT, 3, || 0.0);
        let reason = || Err("no way there".to_owned());
        round.asked(peer(1), reason());
        round.asked(peer(2), reason());
        round.asked(peer(2), Ok(()));
        round.asked(peer(3), reason());
        round.heard(peer(3));
        let refused: Vec<_> = round.refused().into_keys().collect();
        assert_eq!(refused, [peer(1)]);
    }

    #[test]
    fn a_round_without_peers_is_over_at_once() {
        assert!(Round::new([], TIMEOUT, 3, || 0.0).is_over(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn every_silent_peer_is_asked_so_often_with_time_left_for_the_last_answer(
            count in 1..300_u16,
            attempts in 1..=ATTEMPTS,
            at_most in 1..100_usize,
            jitter in prop::collection::vec(0.0..=1.0_f64, 1..20),
        ) {
            let mut draws = jitter.iter().copied().cycle();
            let mut round = Round::new((0..count).map(peer), TIMEOUT, attempts, || draws.next().unwrap());
            let mut asked: BTreeMap<Ipv4Addr, Vec<(Duration, u32)>> = BTreeMap::new();
            let mut now = Duration::ZERO;
            while !round.is_over(now) {
                let due = round.due(now, at_most);
                prop_assert!(due.len() <= at_most);
                for (peer, attempt) in due {
                    asked.entry(peer).or_default().push((now, attempt));
                }
                let wake = round.wake_at();
                prop_assert!(wake <= TIMEOUT);
                now = wake.max(now);
            }
            prop_assert_eq!(asked.len(), usize::from(count));
            for times in asked.values() {
                let numbers: Vec<u32> = times.iter().map(|(_, attempt)| *attempt).collect();
                prop_assert_eq!(numbers, Vec::from_iter(0..attempts));
                prop_assert!(times.iter().all(|(at, _)| *at <= TIMEOUT * 5 / 8));
                prop_assert!(times.is_sorted_by(|one, next| one.0 < next.0));
            }
        }
    }
}
