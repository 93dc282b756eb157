//! Looking at the packet filter: what is wanted, beside what the kernel has at this moment. Nothing is repaired before.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::{Reconciler, fast_path::FastPathSlot};
use crate::{
    api::command::Refusal,
    apply::firewall::look::{BaseChain, Looked, look},
    desired::firewall::Content,
    problem::Problem,
};

/// What a look at the packet filter finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FirewallCheck {
    /// How many rules are wanted; `None`: none are, before the node has a subnet.
    pub(crate) wanted_rules: Option<usize>,
    /// How many our tables have.
    pub(crate) rules: usize,
    pub(crate) sets: Vec<CheckedSet>,
    /// Whether the kernel shows what was written, and that is what is wanted.
    pub(crate) untouched: bool,
    pub(crate) standing: Standing,
    /// Chains of others at the hooks that ours are at.
    pub(crate) foreign: Vec<BaseChain>,
    /// Tables of the older iptables.
    pub(crate) legacy: Vec<String>,
}

/// What the loop knows of the guards without looking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Why the rules are not in place.
    pub(crate) refused: Option<String>,
    /// Why there are the guards alone.
    pub(crate) narrowed: Option<String>,
    /// How often they were put right.
    pub(crate) repairs: u64,
    /// The programs that guard.
    pub(crate) guards: Vec<String>,
    /// Why there are none.
    pub(crate) unguarded: Option<String>,
}

/// One of our sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckedSet {
    pub(crate) name: &'static str,
    pub(crate) wanted: usize,
    /// How many of these are not there.
    pub(crate) missing: usize,
    /// How many are there that are not wanted.
    pub(crate) foreign: usize,
}

impl Reconciler {
    /// Has the kernel looked at by a thread of its own, in the loop's network namespace.
    pub(super) fn check_firewall(&self, reply: oneshot::Sender<Result<FirewallCheck, Refusal>>) {
        let (content, settled) = self.firewall.wanted_content();
        let standing = self.standing_of_guards();
        // Bound by the calls that wait at a time; who has gone meanwhile is no error.
        let _detached = tokio::task::spawn_blocking(move || {
            let found = match look() {
                Ok(looked) => Ok(checked(content.as_ref(), settled, looked, standing)),
                Err(error) => Err(Refusal::new(format!(
                    "the kernel's packet filter cannot be read: {error}"
                ))),
            };
            // Dropped where nobody waits any more.
            drop(reply.send(found));
        });
    }

    fn standing_of_guards(&self) -> Standing {
        let (refused, narrowed) = self.firewall.complaints();
        let guards = match &self.fast_path {
            FastPathSlot::Open(open) => open.fast_path.report().map(|report| report.attachments),
            _ => Ok(Vec::new()),
        };
        let unguarded = match (self.unguarded(), &guards) {
            (Some(Problem::Unguarded(reason)), _) => Some(reason),
            (_, Err(error)) => Some(error.to_string()),
            _ => None,
        };
        Standing {
            refused,
            narrowed,
            repairs: self.firewall.repairs(),
            guards: guards.unwrap_or_default(),
            unguarded,
        }
    }
}

fn checked(
    wanted: Option<&Content>,
    settled: bool,
    looked: Looked,
    standing: Standing,
) -> FirewallCheck {
    let none = BTreeMap::new();
    let wanted_elements = wanted.map_or(&none, |wanted| &wanted.elements);
    let sets: Vec<CheckedSet> = wanted_elements
        .iter()
        .map(|(&name, elements)| compare(name, elements, looked.elements.get(name)))
        .collect();
    let as_wanted = wanted.is_some_and(|wanted| {
        wanted.rules == looked.rules && sets.iter().all(|it| it.missing + it.foreign == 0)
    });
    let own_hooks = looked.own_hooks;
    let at_ours = |chain: &BaseChain| own_hooks.contains(&(chain.family, chain.hook));
    FirewallCheck {
        wanted_rules: wanted.map(|wanted| wanted.rules),
        rules: looked.rules,
        sets,
        untouched: as_wanted && settled,
        standing,
        foreign: looked.chains.into_iter().filter(at_ours).collect(),
        legacy: looked.legacy,
    }
}

fn compare(
    name: &'static str,
    wanted: &BTreeSet<Vec<u8>>,
    found: Option<&BTreeSet<Vec<u8>>>,
) -> CheckedSet {
    let nothing = BTreeSet::new();
    let found = found.unwrap_or(&nothing);
    CheckedSet {
        name,
        wanted: wanted.len(),
        missing: wanted.difference(found).count(),
        foreign: found.difference(wanted).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::firewall::look::Family;

    fn elements(list: &[u8]) -> BTreeMap<&'static str, BTreeSet<Vec<u8>>> {
        [("peers", list.iter().map(|it| vec![*it]).collect())].into()
    }

    fn chain(name: &str, family: Family, hook: u32) -> BaseChain {
        BaseChain {
            name: name.to_owned(),
            family,
            hook,
            interface: String::new(),
            empty: false,
            priority: 0,
            policy: None,
            has_rules: true,
        }
    }

    fn looked(rules: usize, list: &[u8]) -> Looked {
        Looked {
            rules,
            elements: elements(list),
            chains: vec![
                chain("theirs", Family::Ip, 2),
                chain("elsewhere", Family::Ip, 3),
                chain("of bridges", Family::Bridge, 2),
            ],
            own_hooks: [(Family::Ip, 2)].into(),
            ..Looked::default()
        }
    }

    #[test]
    fn what_is_missing_and_what_nobody_wants_is_counted_apart_and_others_are_shown_at_our_hooks() {
        let wanted = Content {
            rules: 3,
            elements: elements(&[1, 2]),
        };
        let check = |rules, list: &[u8], settled| {
            checked(
                Some(&wanted),
                settled,
                looked(rules, list),
                Standing::default(),
            )
        };
        let fine = check(3, &[1, 2], true);
        assert!(fine.untouched);
        let names: Vec<&str> = fine.foreign.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["theirs"]);
        assert!(!check(3, &[1, 2], false).untouched, "it is being written");
        assert!(!check(2, &[1, 2], true).untouched);
        let changed = check(3, &[2, 3, 4], true);
        assert!(!changed.untouched);
        let set = &changed.sets[0];
        assert_eq!((set.wanted, set.missing, set.foreign), (2, 1, 2));
        let before = checked(None, false, looked(0, &[]), Standing::default());
        assert_eq!((before.wanted_rules, before.untouched), (None, false));
    }
}
