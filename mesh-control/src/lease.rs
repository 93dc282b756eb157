//! Which subnet is handed out next.
//!
//! A subnet is a lease with tenure: it stays with its node for as long as the node is known, up or
//! down, so that containers come back with the addresses they had. A node without a lease gets the
//! lowest subnet that was never used; once all were used, the one that was released longest ago, so
//! that stale state about a subnet elsewhere has had the most time to disappear.

use crate::subnet_plan::{SubnetIndex, SubnetPlan};

/// What the stored leases say about the subnets that are not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unheld {
    /// The highest subnet that was ever handed out. Subnets are first used in ascending order and
    /// a lease's row is never deleted, so everything below was used as well.
    pub highest_used: Option<SubnetIndex>,
    /// Of the released subnets, the one released longest ago.
    pub longest_released: Option<SubnetIndex>,
}

/// The subnet for a node that has none, or `None` when every subnet is held.
pub fn next(plan: &SubnetPlan, unheld: &Unheld) -> Option<SubnetIndex> {
    let never_used = match unheld.highest_used {
        None => Some(SubnetIndex::FIRST),
        Some(highest) => highest.number().checked_add(1).and_then(SubnetIndex::new),
    };
    never_used
        .filter(|index| index.number() <= plan.count())
        .or(unheld.longest_released)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use proptest::prelude::*;

    use super::*;
    use crate::subnet_plan::parse_cidr;

    fn plan(node_prefix: u8) -> SubnetPlan {
        SubnetPlan::new(parse_cidr("10.42.0.0/16").unwrap(), node_prefix).unwrap()
    }

    #[test]
    fn the_first_lease_is_the_first_subnet() {
        let index = next(&plan(24), &Unheld::default()).unwrap();
        assert_eq!(plan(24).subnet(index).unwrap().to_string(), "10.42.1.0/24");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Lease,
        Release(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Lease),
            2 => any::<prop::sample::Index>().prop_map(Step::Release),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        /// Against a model that keeps whole sets: what is never used goes first and in order, then
        /// the queue of the released; nothing held is ever handed out; nothing free is refused.
        #[test]
        fn a_lease_is_the_lowest_never_used_then_the_longest_released(steps in steps()) {
            let plan = plan(19); // 7 subnets: the end is reached in most runs
            let mut never_used: VecDeque<u32> = (1..=plan.count()).collect();
            let mut released: VecDeque<u32> = VecDeque::new();
            let mut held: BTreeMap<u32, ()> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Lease => {
                        let highest = plan.count() - u32::try_from(never_used.len()).unwrap();
                        let unheld = Unheld {
                            highest_used: SubnetIndex::new(highest),
                            longest_released: released.front().copied().and_then(SubnetIndex::new),
                        };
                        let expected = never_used.pop_front().or_else(|| released.pop_front());
                        let given = next(&plan, &unheld).map(SubnetIndex::number);
                        prop_assert_eq!(given, expected);
                        if let Some(number) = given {
                            prop_assert!(plan.subnet(SubnetIndex::new(number).unwrap()).is_some());
                            prop_assert_eq!(held.insert(number, ()), None, "held twice");
                        } else {
                            prop_assert_eq!(held.len(), plan.count() as usize);
                        }
                    }
                    Step::Release(pick) if !held.is_empty() => {
                        let number = *held.keys().nth(pick.index(held.len())).unwrap();
                        held.remove(&number);
                        released.push_back(number);
                    }
                    Step::Release(_) => {}
                }
            }
        }
    }
}
