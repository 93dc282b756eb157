//! The order in which subnets are handed out: the lowest that was never used, then the one that was released
//! longest ago, and never one that is reserved. A node that says what it holds is given that, if it is free.
//!
//! What happened is read from the operators' view once nothing is under way any more, so that this knows for
//! certain what a request did that got no answer, and the exact subnet of every lease.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::model::subnet;
use crate::steps::SUBNETS;

/// `GET /api/subnets`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct View {
    /// Who leases what, by node id.
    leased: BTreeMap<String, Ipv4Net>,
    released: BTreeSet<Ipv4Net>,
    reserved: Vec<Ipv4Net>,
}

impl View {
    pub(crate) fn read(body: &Value) -> Self {
        let mut view = Self::default();
        for row in body["subnets"].as_array().unwrap() {
            let subnet: Ipv4Net = row["subnet"].as_str().unwrap().parse().unwrap();
            match row["state"].as_str().unwrap() {
                "leased" => {
                    let node_id = row["node_id"].as_str().unwrap().to_owned();
                    assert_eq!(view.leased.insert(node_id, subnet), None, "{body}");
                }
                "released" => assert!(view.released.insert(subnet), "{body}"),
                "reserved" => view.reserved.push(subnet),
                state => panic!("{subnet} is {state}"),
            }
        }
        view
    }

    fn is_reserved(&self, subnet: Ipv4Net) -> bool {
        self.reserved.iter().any(|range| range.contains(&subnet))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Order {
    view: View,
    used: BTreeSet<Ipv4Net>,
    /// The longest released first.
    released: Vec<Ipv4Net>,
    /// How many leases were foretold.
    pub(crate) foretold: usize,
}

impl Order {
    /// What is handed out next, one after the other, to those who ask.
    fn next(&self) -> impl Iterator<Item = Ipv4Net> {
        let never_used = (1..=SUBNETS)
            .map(subnet)
            .filter(|subnet| !self.used.contains(subnet));
        never_used
            .chain(self.released.iter().copied())
            .filter(|subnet| !self.view.is_reserved(*subnet))
    }

    /// What is handed out to a node that says that it holds `claimed`.
    fn next_to(&self, claimed: Option<Ipv4Net>) -> Option<Ipv4Net> {
        self.next()
            .find(|subnet| claimed == Some(*subnet))
            .or_else(|| self.next().next())
    }

    /// Takes over what a step did, which must be what is foretold. In it `claimed` was said to be held, if there was
    /// one registration, and some were told that no subnet is left if `exhausted`.
    pub(crate) fn advance(&mut self, after: View, claimed: Option<Ipv4Net>, exhausted: bool) {
        let leased = new_in(&after.leased, &self.view.leased);
        let ended = new_in(&self.view.leased, &after.leased);
        assert!(
            leased.is_empty() || ended.is_empty(),
            "one step leased {leased:?} and released {ended:?}"
        );
        assert!(ended.len() <= 1, "one step released {ended:?}");
        let foretold: BTreeSet<_> = match claimed {
            Some(_) if leased.len() == 1 => self.next_to(claimed).into_iter().collect(),
            _ => self.next().take(leased.len()).collect(),
        };
        assert_eq!(leased, foretold, "of {self:#?}, {claimed:?} being claimed");
        self.foretold += leased.len();
        self.released.retain(|subnet| !leased.contains(subnet));
        self.used.extend(leased);
        self.released.extend(ended);
        self.view = after;
        let released: BTreeSet<_> = self.released.iter().copied().collect();
        assert_eq!(
            self.view.released, released,
            "what was released is said to be other"
        );
        if exhausted {
            let left: Vec<_> = self.next().collect();
            assert!(
                left.is_empty(),
                "no subnet is left, says the answer, but {left:?}"
            );
        }
    }
}

/// The subnets of leases in `one` that are not in `other`; no node's subnet may differ.
fn new_in(one: &BTreeMap<String, Ipv4Net>, other: &BTreeMap<String, Ipv4Net>) -> BTreeSet<Ipv4Net> {
    let mut new = BTreeSet::new();
    for (node_id, subnet) in one {
        match other.get(node_id) {
            Some(before) => assert_eq!(before, subnet, "{node_id} got another subnet"),
            None => assert!(new.insert(*subnet), "{subnet} is leased twice"),
        }
    }
    new
}
