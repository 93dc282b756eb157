//! The routes this agent asked for, and the calls that bring them to what is wanted.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

/// What is known about a route that was once asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is being asked for, for the first time.
    Asked,
    /// The runtime said that it is in place.
    Acknowledged,
    /// It may be in place: the answer is missing, or the runtime that gave it is gone.
    /// It is asked for again if it is wanted, and removed if it is not.
    Doubtful,
}

/// Every route that this agent asked for and has not seen removed.
///
/// A call that is about to be made is entered first ([`Routes::asking`]), so that a call
/// whose answer never comes leaves the route doubtful, not forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    standing: BTreeMap<Ipv4Net, Standing>,
}

impl Routes {
    /// The destinations to call `RemoveRoute` for: asked for once, wanted no longer.
    #[must_use]
    pub fn leaving(&self, wanted: &BTreeSet<Ipv4Net>) -> Vec<Ipv4Net> {
        self.standing
            .keys()
            .filter(|destination| !wanted.contains(destination))
            .copied()
            .collect()
    }

    /// The destinations to call `InjectRoute` for: wanted and not acknowledged.
    #[must_use]
    pub fn joining(&self, wanted: &BTreeSet<Ipv4Net>) -> Vec<Ipv4Net> {
        wanted
            .iter()
            .filter(|destination| self.standing.get(destination) != Some(&Standing::Acknowledged))
            .copied()
            .collect()
    }

    /// A call for `destination` is about to be made; its outcome is open.
    pub fn asking(&mut self, destination: Ipv4Net) {
        self.standing
            .entry(destination)
            .and_modify(|standing| *standing = Standing::Doubtful)
            .or_insert(Standing::Asked);
    }

    /// The runtime refused the call: a route it never had is none of ours, any other is
    /// where it was.
    pub fn refused(&mut self, destination: Ipv4Net) {
        if self.standing.get(&destination) == Some(&Standing::Asked) {
            self.standing.remove(&destination);
        }
    }

    /// The call failed with its outcome unknown.
    pub fn doubt(&mut self, destination: Ipv4Net) {
        self.standing.insert(destination, Standing::Doubtful);
    }

    /// The runtime says that the route is in place.
    pub fn acknowledged(&mut self, destination: Ipv4Net) {
        self.standing.insert(destination, Standing::Acknowledged);
    }

    /// The runtime says that the route is gone, or that it never made it.
    pub fn gone(&mut self, destination: Ipv4Net) {
        self.standing.remove(&destination);
    }

    /// The runtime may have lost everything: all that is wanted is asked for again.
    pub fn doubt_all(&mut self) {
        for standing in self.standing.values_mut() {
            *standing = Standing::Doubtful;
        }
    }

    /// How many routes are acknowledged.
    #[must_use]
    pub fn acknowledged_count(&self) -> usize {
        self.standing
            .values()
            .filter(|standing| **standing == Standing::Acknowledged)
            .count()
    }

    /// Whether a call for `destination` was made and the route not seen removed.
    #[must_use]
    pub fn contains(&self, destination: Ipv4Net) -> bool {
        self.standing.contains_key(&destination)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How the runtime answers one call.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Answer {
        Success,
        Refusal,
        /// The call was executed, the answer got lost.
        Unanswered,
        /// The call never arrived.
        Undelivered,
    }

    /// The agent's side against a kernel that lives longer than any runtime.
    #[derive(Debug, Default)]
    struct Simulation {
        routes: Routes,
        kernel: BTreeSet<Ipv4Net>,
    }

    impl Simulation {
        /// One round; `answer` decides about each call, success beyond the end.
        fn round(
            &mut self,
            wanted: &BTreeSet<Ipv4Net>,
            mut answer: impl FnMut() -> Answer,
        ) -> usize {
            let mut calls = 0;
            for destination in self.routes.leaving(wanted) {
                calls += 1;
                self.routes.asking(destination);
                match answer() {
                    Answer::Success => {
                        self.kernel.remove(&destination);
                        self.routes.gone(destination);
                    }
                    Answer::Refusal => self.routes.refused(destination),
                    lost => {
                        if lost == Answer::Unanswered {
                            self.kernel.remove(&destination);
                        }
                        self.routes.doubt_all();
                        return calls;
                    }
                }
            }
            for destination in self.routes.joining(wanted) {
                calls += 1;
                self.routes.asking(destination);
                match answer() {
                    Answer::Success => {
                        self.kernel.insert(destination);
                        self.routes.acknowledged(destination);
                    }
                    Answer::Refusal => self.routes.refused(destination),
                    lost => {
                        if lost == Answer::Unanswered {
                            self.kernel.insert(destination);
                        }
                        self.routes.doubt_all();
                        return calls;
                    }
                }
            }
            calls
        }
    }

    fn any_subnets() -> impl Strategy<Value = BTreeSet<Ipv4Net>> {
        proptest::collection::btree_set(
            (0u8..12).prop_map(|third| {
                Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 42, third, 0), 24)
            }),
            0..10,
        )
    }

    fn any_answer() -> impl Strategy<Value = Answer> {
        prop_oneof![
            4 => Just(Answer::Success),
            1 => Just(Answer::Refusal),
            1 => Just(Answer::Unanswered),
            1 => Just(Answer::Undelivered),
        ]
    }

    proptest! {
        #[test]
        fn after_any_history_one_good_round_leaves_all_and_only_the_wanted_routes(
            history in proptest::collection::vec(
                (any_subnets(), proptest::collection::vec(any_answer(), 0..20), any::<bool>()),
                0..6,
            ),
            wanted in any_subnets(),
        ) {
            let mut simulation = Simulation::default();
            for (wanted, answers, restarted) in history {
                let mut answers = answers.into_iter();
                simulation.round(&wanted, || answers.next().unwrap_or(Answer::Success));
                if restarted {
                    simulation.routes.doubt_all();
                }
                for route in &simulation.kernel {
                    prop_assert!(simulation.routes.contains(*route), "no route is forgotten");
                }
            }

            simulation.round(&wanted, || Answer::Success);
            prop_assert_eq!(&simulation.kernel, &wanted);
            prop_assert_eq!(simulation.routes.acknowledged_count(), wanted.len());
            prop_assert!(wanted.iter().all(|route| simulation.routes.contains(*route)));

            let settled = simulation.routes.clone();
            prop_assert_eq!(simulation.round(&wanted, || Answer::Success), 0, "the second does nothing");
            prop_assert_eq!(simulation.routes, settled);
        }

        #[test]
        fn after_a_restart_everything_wanted_is_asked_for_again(wanted in any_subnets()) {
            let mut simulation = Simulation::default();
            simulation.round(&wanted, || Answer::Success);
            simulation.routes.doubt_all();
            prop_assert_eq!(
                simulation.routes.joining(&wanted),
                wanted.iter().copied().collect::<Vec<_>>()
            );
        }
    }
}
