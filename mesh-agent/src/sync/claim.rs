//! How often a node registers again because the control plane lists it at another address than it has.
//!
//! Mostly once is enough: a copy of its host was taken for it, and is held off from then on. A control plane that goes on
//! listing another address than it is told, because it has gone astray or lists whence it is asked, is told ever more
//! seldom.

use std::time::{Duration, Instant};

/// After the first time.
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);

/// At last.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Claim {
    /// When it was made last, and how long the next one waits from then.
    made: Option<(Instant, Duration)>,
}

impl Claim {
    /// Whether to register again after a list that has the node elsewhere, or does not.
    pub(super) fn is_due(&mut self, is_elsewhere: bool, now: Instant) -> bool {
        let pause = match self.made {
            // Listed in the right place for as long as it takes to see that it stays so.
            Some((made, pause)) if !is_elsewhere => {
                if now >= made + pause {
                    self.made = None;
                }
                return false;
            }
            None if !is_elsewhere => return false,
            Some((made, pause)) if now < made + pause => return false,
            Some((_, pause)) => (2 * pause).min(LONGEST_PAUSE),
            None => SHORTEST_PAUSE,
        };
        self.made = Some((now, pause));
        true
    }

    /// Whether the next claim is the first for a while.
    pub(super) fn is_first(&self) -> bool {
        self.made.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many claims are made of a list a second.
    fn claims(claim: &mut Claim, start: Instant, seconds: std::ops::Range<u64>) -> usize {
        seconds
            .filter(|second| claim.is_due(true, start + Duration::from_secs(*second)))
            .count()
    }

    #[test]
    fn a_node_that_is_listed_elsewhere_claims_its_address_at_once_and_then_ever_more_seldom() {
        let (mut claim, start) = (Claim::default(), Instant::now());
        assert!(!claim.is_due(false, start) && claim.is_first());
        assert_eq!(claims(&mut claim, start, 0..1), 1);
        assert_eq!(claims(&mut claim, start, 1..60), 4);
        claims(&mut claim, start, 60..600);
        assert_eq!(claims(&mut claim, start, 600..1200), 10);
    }

    #[test]
    fn who_is_listed_in_the_right_place_again_claims_it_at_once_the_next_time() {
        let (mut claim, start) = (Claim::default(), Instant::now());
        assert_eq!(claims(&mut claim, start, 0..10), 3);
        let at = |second| start + Duration::from_secs(second);
        // Not at once: two that take an address from each other see it there in between.
        assert!(!claim.is_due(false, at(10)) && !claim.is_due(true, at(11)));
        assert!(!claim.is_due(false, at(14)) && claim.is_first());
        assert!(claim.is_due(true, at(15)));
    }
}
