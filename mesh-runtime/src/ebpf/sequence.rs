//! In which order programs are attached and detached, and what a failure in between leaves.
//! Pure, over whatever attaches.

use std::collections::{BTreeMap, BTreeSet};

use super::hook::Hook;

/// What attaches and detaches.
pub(super) trait Attacher {
    /// Why attaching failed.
    type Error;

    /// What was attached.
    fn attached(&self) -> BTreeSet<Hook>;

    /// Whether the kernel shows it still. If that cannot be told without attaching, it is
    /// attached, which leaves alone what is there.
    fn holds(&self, hook: Hook) -> bool;

    /// Attaches, and says whether anything had to be done. An interface that has vanished is
    /// no error.
    fn attach(&mut self, hook: Hook, interface: &str) -> Result<bool, Self::Error>;

    /// Detaches. What cannot be detached is logged: there is nothing else to be done.
    fn detach(&mut self, hook: Hook);
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome<E> {
    pub(super) attached: u32,
    pub(super) detached: u32,
    /// Whether the unit is in place: everything that receives, and so something may transmit.
    pub(super) whole: bool,
    /// What failed, in order.
    pub(super) failures: Vec<E>,
}

/// Makes the attachments those of `wanted`.
///
/// All that receive come before those that transmit, and go after them. Where one of those
/// that receive cannot be attached, nothing transmits: half a fast path is worse than none.
/// A port that cannot be attached goes on over the kernel path by itself.
///
/// `look` asks the kernel whether what was attached is so still, in case somebody has detached it.
pub(super) fn show<A: Attacher>(
    attacher: &mut A,
    wanted: &BTreeMap<Hook, String>,
    look: bool,
) -> Outcome<A::Error> {
    let mut outcome = Outcome {
        attached: 0,
        detached: 0,
        whole: true,
        failures: Vec::new(),
    };
    let there = attacher.attached();
    // Transmit first, receive last.
    for hook in there.iter().rev().filter(|hook| !wanted.contains_key(hook)) {
        attacher.detach(*hook);
        outcome.detached += 1;
    }
    for (hook, interface) in wanted {
        if there.contains(hook) && (!look || attacher.holds(*hook)) {
            continue;
        }
        match attacher.attach(*hook, interface) {
            Ok(done) => outcome.attached += u32::from(done),
            Err(failure) => {
                outcome.failures.push(failure);
                if hook.role.receives() {
                    outcome.whole = false;
                    outcome.detached += stop_transmitting(attacher);
                    break;
                }
            }
        }
    }
    outcome
}

fn stop_transmitting(attacher: &mut impl Attacher) -> u32 {
    let mut detached = 0;
    for hook in attacher.attached() {
        if hook.role.transmits() {
            attacher.detach(hook);
            detached += 1;
        }
    }
    detached
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::hook::Role, *};

    /// A kernel that refuses what it is told to, and checks the order.
    #[derive(Debug, Default)]
    struct Fake {
        attached: BTreeSet<Hook>,
        refuse: BTreeSet<Hook>,
        wanted: BTreeSet<Hook>,
        /// What is taken for attached, and is not.
        lost: BTreeSet<Hook>,
    }

    impl Fake {
        fn receives_all(&self) -> bool {
            self.wanted
                .iter()
                .filter(|hook| hook.role.receives())
                .all(|hook| self.attached.contains(hook))
        }

        fn transmits(&self) -> bool {
            self.attached.iter().any(|hook| hook.role.transmits())
        }
    }

    impl Attacher for Fake {
        type Error = Hook;

        fn attached(&self) -> BTreeSet<Hook> {
            self.attached.clone()
        }

        fn holds(&self, hook: Hook) -> bool {
            self.attached.contains(&hook) && !self.lost.contains(&hook)
        }

        fn attach(&mut self, hook: Hook, _: &str) -> Result<bool, Hook> {
            if self.refuse.contains(&hook) {
                return Err(hook);
            }
            if hook.role.transmits() {
                assert!(self.receives_all(), "it sends what it cannot yet receive");
            }
            let lost = self.lost.remove(&hook);
            Ok(self.attached.insert(hook) || lost)
        }

        fn detach(&mut self, hook: Hook) {
            assert!(
                self.attached.remove(&hook),
                "what is not there is not detached"
            );
            if hook.role.receives() && !self.wanted.contains(&hook) {
                let stale = |other: &Hook| other.role.transmits() && !self.wanted.contains(other);
                assert!(
                    !self.attached.iter().any(stale),
                    "receive went before transmit"
                );
            }
        }
    }

    fn hooks() -> impl Strategy<Value = BTreeSet<Hook>> {
        let hook = (0..Role::ALL.len(), 1_u32..5).prop_map(|(role, link)| Hook {
            role: Role::ALL[role],
            link,
        });
        prop::collection::btree_set(hook, 0..12)
    }

    proptest! {
        #[test]
        fn nothing_ever_starts_to_transmit_before_all_receive_and_a_failure_leaves_no_half(
            there in hooks(), wanted in hooks(), refuse in hooks(), look: bool,
        ) {
            let mut fake = Fake { attached: there.clone(), refuse: refuse.clone(), wanted: wanted.clone(), ..Fake::default() };
            let names = wanted.iter().map(|&hook| (hook, String::new())).collect();
            let outcome = show(&mut fake, &names, look);
            prop_assert_eq!(outcome.whole, fake.receives_all());
            prop_assert!(outcome.whole || !fake.transmits(), "half attached: {fake:?}");
            prop_assert!(fake.attached.is_subset(&wanted));
            if outcome.whole {
                let missing: BTreeSet<Hook> = wanted.difference(&fake.attached).copied().collect();
                let failed: BTreeSet<Hook> = outcome.failures.iter().copied().collect();
                prop_assert_eq!(&missing, &failed, "a port that fails fails alone");
            }
            // Once the reasons are gone, everything comes.
            fake.refuse.clear();
            let outcome = show(&mut fake, &names, look);
            prop_assert!(outcome.failures.is_empty() && outcome.whole);
            prop_assert_eq!(&fake.attached, &wanted);
            let outcome = show(&mut fake, &names, look);
            prop_assert_eq!((outcome.attached, outcome.detached), (0, 0));
        }

        #[test]
        fn what_somebody_detached_comes_back_with_a_look(wanted in hooks(), lost in hooks()) {
            let names: BTreeMap<_, _> = wanted.iter().map(|&hook| (hook, String::new())).collect();
            let mut fake = Fake { wanted: wanted.clone(), ..Fake::default() };
            show(&mut fake, &names, false);
            // Still taken for attached.
            fake.lost = wanted.intersection(&lost).copied().collect();
            let lost = u32::try_from(fake.lost.len()).unwrap();
            prop_assert_eq!(show(&mut fake, &names, false).attached, 0);
            prop_assert_eq!(show(&mut fake, &names, true).attached, lost);
            prop_assert!(fake.lost.is_empty());
        }
    }
}
