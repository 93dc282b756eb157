//! Which subnet is handed out next.
//!
//! A subnet is a lease with tenure: it stays with its node for as long as the node is known, up or
//! down, so that containers come back with the addresses they had. A node without a lease gets the
//! lowest subnet that was never used; once all were used, the one that was released longest ago, so
//! that stale state about a subnet elsewhere has had the most time to disappear. What an operator
//! reserved is neither. A node that says it holds a subnet that nobody else does is given that one,
//! out of order; what it passed over comes next as before.
//!
//! Ranges stand for many subnets: a plan may have 65,535 of them, and a reservation most of those.

use crate::cluster::subnet_plan::{SubnetIndex, SubnetPlan};

/// Subnets next to each other, from `first` to `last` inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The lowest.
    pub first: SubnetIndex,
    /// The highest; not below `first`.
    pub last: SubnetIndex,
}

impl Range {
    /// Whether a subnet lies in it.
    pub fn contains(&self, index: SubnetIndex) -> bool {
        (self.first..=self.last).contains(&index)
    }

    /// Whether the two share a subnet.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many subnets it has.
    pub fn count(&self) -> u32 {
        self.last.number() - self.first.number() + 1
    }

    /// The range between two numbers; `None` when it is empty.
    fn between(first: u32, last: u32) -> Option<Self> {
        let (first, last) = (SubnetIndex::new(first)?, SubnetIndex::new(last)?);
        (first <= last).then_some(Self { first, last })
    }
}

/// The subnets that were never handed out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NeverUsed {
    /// The highest subnet that was ever handed out: all above it are unused.
    highest_used: Option<SubnetIndex>,
    /// The unused ones below it: ascending, disjoint.
    skipped: Vec<Range>,
}

/// How the skipped ranges changed, for whoever stores them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SkippedChange {
    /// The range that is no more, by its first subnet.
    pub removed: Option<SubnetIndex>,
    /// The ranges that are new.
    pub added: Vec<Range>,
}

impl NeverUsed {
    /// From what is stored, in any order.
    pub fn new(highest_used: Option<SubnetIndex>, mut skipped: Vec<Range>) -> Self {
        skipped.sort_unstable();
        Self {
            highest_used,
            skipped,
        }
    }

    /// The lowest that is not reserved either; `None`: there is none.
    fn lowest(&self, plan: &SubnetPlan, reserved: &[Range]) -> Option<SubnetIndex> {
        let above = self.highest_used.map_or(0, SubnetIndex::number) + 1;
        self.skipped
            .iter()
            .copied()
            .chain(Range::between(above, plan.count()))
            .find_map(|unused| lowest_outside(unused, reserved))
    }

    /// Takes a subnet that was never used, and everything below that it passes over as skipped.
    pub fn take(&mut self, index: SubnetIndex) -> SkippedChange {
        let mut change = SkippedChange::default();
        let number = index.number();
        if let Some(at) = self.skipped.iter().position(|range| range.contains(index)) {
            let range = self.skipped.remove(at);
            change.removed = Some(range.first);
            let parts = [
                Range::between(range.first.number(), number - 1),
                Range::between(number + 1, range.last.number()),
            ];
            change.added.extend(parts.into_iter().flatten());
            self.skipped.splice(at..at, change.added.iter().copied());
        } else if self.highest_used.is_none_or(|highest| highest < index) {
            let above = self.highest_used.map_or(0, SubnetIndex::number) + 1;
            change.added.extend(Range::between(above, number - 1));
            self.skipped.extend(change.added.iter().copied());
            self.highest_used = Some(index);
        }
        change
    }
}

/// The lowest subnet of a range that lies in none of the reserved ones, which may come in any order.
fn lowest_outside(range: Range, reserved: &[Range]) -> Option<SubnetIndex> {
    let mut lowest = range.first;
    // Each pass jumps over a range, and none twice.
    while let Some(over) = reserved.iter().find(|reserved| reserved.contains(lowest)) {
        lowest = over
            .last
            .number()
            .checked_add(1)
            .and_then(SubnetIndex::new)?;
    }
    (lowest <= range.last).then_some(lowest)
}

/// The subnet for a node that has none, or `None` when every subnet is held or reserved.
///
/// `longest_released` is, of the released subnets that are not reserved, the one released longest
/// ago; it is asked for only when it is needed.
pub fn next(
    plan: &SubnetPlan,
    never_used: &NeverUsed,
    reserved: &[Range],
    longest_released: Option<SubnetIndex>,
) -> Option<SubnetIndex> {
    never_used.lowest(plan, reserved).or(longest_released)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;
    use crate::cluster::subnet_plan::parse_cidr;

    fn plan(node_prefix: u8) -> SubnetPlan {
        SubnetPlan::new(parse_cidr("10.42.0.0/16").unwrap(), node_prefix).unwrap()
    }

    fn index(number: u32) -> SubnetIndex {
        SubnetIndex::new(number).unwrap()
    }

    #[test]
    fn the_first_lease_is_the_first_subnet() {
        let index = next(&plan(24), &NeverUsed::default(), &[], None).unwrap();
        assert_eq!(plan(24).subnet(index).unwrap().to_string(), "10.42.1.0/24");
    }

    #[test]
    fn ranges_overlap_where_a_subnet_lies_in_both_and_count_what_lies_in_them() {
        let ranges = || {
            (1_u32..=5).flat_map(|first| {
                (first..=5).map(move |last| Range {
                    first: index(first),
                    last: index(last),
                })
            })
        };
        for one in ranges() {
            let within = |range: Range| (1..=6).filter(move |n| range.contains(index(*n)));
            let numbers: Vec<_> = (one.first.number()..=one.last.number()).collect();
            assert_eq!(within(one).collect::<Vec<_>>(), numbers);
            assert_eq!(usize::try_from(one.count()).unwrap(), numbers.len());
            for other in ranges() {
                let shared = within(other).any(|n| one.contains(index(n)));
                assert_eq!(one.overlaps(&other), shared, "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn a_reservation_of_the_rest_leaves_the_released() {
        let never_used = NeverUsed::new(Some(index(3)), Vec::new());
        let rest = Range::between(4, 255).unwrap();
        assert_eq!(next(&plan(24), &never_used, &[], None), Some(index(4)));
        assert_eq!(next(&plan(24), &never_used, &[rest], None), None);
        assert_eq!(
            next(&plan(24), &never_used, &[rest], Some(index(2))),
            Some(index(2))
        );
    }

    #[test]
    fn a_subnet_taken_out_of_order_leaves_those_below_it_to_be_next() {
        let mut never_used = NeverUsed::default();
        never_used.take(index(7));
        let mut given = Vec::new();
        for _ in 0..8 {
            let next = next(&plan(24), &never_used, &[], None).unwrap();
            never_used.take(next);
            given.push(next.number());
        }
        assert_eq!(given, [1, 2, 3, 4, 5, 6, 8, 9]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Lease,
        Claim(u32),
        Release(prop::sample::Index),
        Reserve(u32, u32),
        Unreserve(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Lease),
            2 => (1_u32..=15).prop_map(Step::Claim),
            3 => any::<prop::sample::Index>().prop_map(Step::Release),
            2 => (1_u32..=15, 0_u32..6).prop_map(|(first, more)| Step::Reserve(first, first + more)),
            2 => any::<prop::sample::Index>().prop_map(Step::Unreserve),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Against a model that keeps whole sets: what is never used goes first and in order, then
        /// the queue of the released; nothing held or reserved is ever handed out; nothing free is
        /// refused; and what a database would store of the skipped ranges is what is in memory.
        #[test]
        fn a_lease_is_the_lowest_never_used_then_the_longest_released(steps in steps()) {
            let plan = plan(20); // 15 subnets: the end is reached in most runs
            let mut never_used: BTreeSet<u32> = (1..=plan.count()).collect();
            let mut released: VecDeque<u32> = VecDeque::new();
            let mut held: BTreeSet<u32> = BTreeSet::new();
            let mut reserved: Vec<Range> = Vec::new();
            let mut kept = NeverUsed::default();
            let mut stored: BTreeSet<Range> = BTreeSet::new();
            for step in steps {
                let is_free = |n: &u32| !reserved.iter().any(|range| range.contains(index(*n)));
                let given = match step {
                    Step::Lease => {
                        let oldest = released.iter().copied().find(is_free);
                        let expected = never_used.iter().copied().find(is_free).or(oldest);
                        let given = next(&plan, &kept, &reserved, oldest.map(index));
                        prop_assert_eq!(given.map(SubnetIndex::number), expected);
                        given
                    }
                    Step::Claim(number) => {
                        (is_free(&number) && !held.contains(&number)).then(|| index(number))
                    }
                    _ => None,
                };
                if let Some(given) = given {
                    prop_assert!(plan.subnet(given).is_some());
                    prop_assert!(held.insert(given.number()), "held twice");
                    let change = kept.take(given);
                    if let Some(first) = change.removed {
                        let there = stored.iter().copied().find(|range| range.first == first);
                        prop_assert!(there.is_some_and(|range| stored.remove(&range)));
                    }
                    stored.extend(change.added);
                    never_used.remove(&given.number());
                    released.retain(|n| *n != given.number());
                }
                match step {
                    Step::Release(pick) if !held.is_empty() => {
                        let number = *held.iter().nth(pick.index(held.len())).unwrap();
                        held.remove(&number);
                        released.push_back(number);
                    }
                    Step::Reserve(first, last) => {
                        let range = Range { first: index(first), last: index(last.min(plan.count())) };
                        if reserved.iter().all(|other| !other.overlaps(&range))
                            && held.iter().all(|n| !range.contains(index(*n)))
                        {
                            reserved.push(range);
                        }
                    }
                    Step::Unreserve(pick) if !reserved.is_empty() => {
                        reserved.remove(pick.index(reserved.len()));
                    }
                    Step::Lease | Step::Claim(_) | Step::Release(_) | Step::Unreserve(_) => {}
                }
                let again = NeverUsed::new(kept.highest_used, stored.iter().copied().collect());
                prop_assert_eq!(&again, &kept);
                let below: BTreeSet<u32> = stored.iter()
                    .flat_map(|range| range.first.number()..=range.last.number())
                    .collect();
                let highest = kept.highest_used.map_or(0, SubnetIndex::number);
                prop_assert_eq!(below, never_used.range(..=highest).copied().collect::<BTreeSet<_>>());
            }
        }
    }
}
