//! The search for the largest packet that passes. Pure.
//!
//! In the usual case the largest that may pass does, and one question tells. Otherwise a few sizes are tried at a time:
//! one that does not pass costs the time that its answer is waited for, whether others are asked about along with it or
//! not.

/// Sizes that are tried at a time between one that passed and one that did not.
const AT_A_TIME: u32 = 7;

/// A search between two sizes, both included.
#[derive(Clone, Debug)]
pub(super) struct Search {
    bottom: u32,
    /// The largest that has passed.
    passed: Option<u32>,
    /// The smallest that has not, or the one above the largest that may.
    failed: u32,
    begun: bool,
}

impl Search {
    /// Of a `bottom` above `top`, `top` alone is tried.
    pub(super) fn new(bottom: u32, top: u32) -> Self {
        Self {
            bottom: bottom.min(top),
            passed: None,
            failed: top.saturating_add(1),
            begun: false,
        }
    }

    /// The sizes to try now; none when the search has ended.
    pub(super) fn next(&self) -> Vec<u32> {
        let top = self.failed - 1;
        let Some(passed) = self.passed else {
            return match self.begun {
                true => Vec::new(),
                false if self.bottom == top => vec![top],
                false => vec![self.bottom, top],
            };
        };
        let between = top - passed;
        let count = between.min(AT_A_TIME);
        // From just above the one that passed to just below the one that did not, evenly: each is larger than the
        // one before.
        (1..=count)
            .map(|number| match count == between {
                true => passed + number,
                false => passed + (between + 1) * number / (count + 1),
            })
            .collect()
    }

    /// Takes which of the sizes that were `tried` have passed. A small one that was lost while a larger one passed
    /// does not count as one that does not pass.
    pub(super) fn note(&mut self, tried: &[u32], passed: &[u32]) {
        self.begun = true;
        self.passed = passed.iter().copied().chain(self.passed).max();
        let too_large =
            |size: &&u32| !passed.contains(size) && self.passed.is_none_or(|it| **size > it);
        let failed = tried.iter().filter(too_large).min().copied();
        self.failed = failed.map_or(self.failed, |failed| failed.min(self.failed));
    }

    /// The largest that has passed.
    pub(super) fn largest(&self) -> Option<u32> {
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches where all up to `limit` passes, and says how often it asked.
    fn found(bottom: u32, top: u32, limit: u32) -> (Option<u32>, usize) {
        let mut search = Search::new(bottom, top);
        let mut rounds = 0;
        loop {
            let tried = search.next();
            if tried.is_empty() {
                return (search.largest(), rounds);
            }
            rounds += 1;
            assert!(rounds <= 20, "{search:?}");
            let passed: Vec<u32> = tried
                .iter()
                .copied()
                .filter(|&size| size <= limit)
                .collect();
            search.note(&tried, &passed);
        }
    }

    #[test]
    fn where_all_passes_one_look_tells() {
        assert_eq!(found(576, 1450, 1450), (Some(1450), 1));
        assert_eq!(found(576, 576, 9000), (Some(576), 1));
    }

    #[test]
    fn where_nothing_passes_one_look_tells() {
        assert_eq!(found(576, 1450, 575), (None, 1));
    }

    #[test]
    fn between_the_sizes_of_usual_links_a_few_looks_find_every_size() {
        for limit in 576..1450 {
            let (largest, rounds) = found(576, 1450, limit);
            assert_eq!(largest, Some(limit));
            assert!(rounds <= 5, "{limit}: {rounds}");
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_the_largest_that_passes(
            bottom in 0..2000_u32, more in 0..64_000_u32, limit in 0..70_000_u32,
        ) {
            let top = bottom + more;
            let (largest, _) = found(bottom, top, limit);
            let expected = (limit >= bottom).then(|| limit.min(top));
            prop_assert_eq!(largest, expected);
        }

        #[test]
        fn the_search_ends_also_where_packets_are_lost_at_random(
            bottom in 0..2000_u32, more in 0..64_000_u32, lost: u64,
        ) {
            let mut search = Search::new(bottom, bottom + more);
            let mut rounds = 0;
            loop {
                let tried = search.next();
                if tried.is_empty() {
                    break;
                }
                rounds += 1;
                prop_assert!(rounds <= 20);
                prop_assert!(tried.len() <= AT_A_TIME as usize);
                let passes = |size: &u32| lost.rotate_left(*size) & 1 == 0;
                let passed: Vec<u32> = tried.iter().copied().filter(passes).collect();
                search.note(&tried, &passed);
            }
        }
    }
}
