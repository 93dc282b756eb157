//! The node list held against the model, and what the model learns from it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Known, Life, Model, Node};

/// A node as a list shows it, without what changes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) subnet: Ipv4Net,
    pub(crate) hostname: String,
    pub(crate) host_ip: Ipv4Addr,
    pub(crate) up: bool,
}

impl Model {
    /// Holds a list against what is known. What contradicts it for good is a panic; what may only
    /// not have arrived at this replica yet is an `Err`.
    pub(crate) fn compare(&self, listed: &BTreeMap<String, Listed>) -> Result<(), String> {
        let mut holders: BTreeMap<Ipv4Net, &String> = BTreeMap::new();
        let mut up: BTreeMap<Ipv4Addr, &String> = BTreeMap::new();
        for (id, node) in listed {
            if let Some(other) = holders.insert(node.subnet, id) {
                panic!("{} is held by {other} and {id}: {listed:#?}", node.subnet);
            }
            if node.up
                && let Some(other) = up.insert(node.host_ip, id)
            {
                panic!(
                    "{other} and {id} are both up at {}: {listed:#?}",
                    node.host_ip
                );
            }
            match self.nodes.get(id) {
                Some(known) => assert_eq!(known.subnet, node.subnet, "{id} changed its subnet"),
                None if self.gone.contains(id) => {
                    return Err(format!("{id} was removed, and is listed"));
                }
                None => assert!(
                    self.unanswered
                        .iter()
                        .any(|claim| claim.hostname == node.hostname),
                    "nobody has registered {id}: {node:?}"
                ),
            }
        }
        for (id, node) in &self.nodes {
            match listed.get(id) {
                None if node.released.may() => {}
                None => return Err(format!("{id} is not listed: {node:?}")),
                Some(listed) if listed.up && node.dismissed == Known::Yes => {
                    return Err(format!("{id} was dismissed, and is up"));
                }
                Some(_) => {}
            }
        }
        for (range, &reserved) in &self.reservations {
            let inside = listed.values().find(|node| range.contains(&node.subnet));
            if reserved == Known::Yes
                && let Some(node) = inside
            {
                return Err(format!(
                    "{range} is reserved, and {} is held: {node:?}",
                    node.subnet
                ));
            }
        }
        Ok(())
    }

    /// Takes over what became of the requests without an answer, from a list that agrees.
    pub(crate) fn learn(&mut self, listed: &BTreeMap<String, Listed>) {
        for (id, node) in listed {
            if self.nodes.contains_key(id) || self.gone.contains(id) {
                continue;
            }
            self.was_released(node.subnet, id);
            let claim = self
                .unanswered
                .iter()
                .find(|claim| claim.hostname == node.hostname)
                .unwrap();
            self.nodes.insert(
                id.clone(),
                Node {
                    subnet: node.subnet,
                    hostname: node.hostname.clone(),
                    host_ip: node.host_ip,
                    key: claim.key.clone(),
                    dismissed: Known::Unsure,
                    life: Life::Unsure,
                    released: Known::No,
                },
            );
        }
        for (id, node) in &mut self.nodes {
            if let Some(listed) = listed.get(id) {
                node.hostname.clone_from(&listed.hostname);
                node.host_ip = listed.host_ip;
            }
        }
    }
}
