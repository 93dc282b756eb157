//! What operators do: they end leases, and keep subnets from being handed out.

use std::time::Instant;

use ipnet::Ipv4Net;

use super::{Known, Life, Model};

impl Model {
    /// The release of a node's subnet was answered 200, 409 or 404.
    pub(crate) fn released(&mut self, id: &str, status: u16, now: Instant) {
        let node = &self.nodes[id];
        match status {
            200 => {
                let up = matches!(node.life, Life::UpUntil(until) if now < until);
                assert!(!up, "{id} is up and lost its subnet: {node:?}");
                self.nodes.remove(id);
                self.gone.insert(id.to_owned());
            }
            409 => assert_ne!(
                node.life,
                Life::Down,
                "{id} is down, and its subnet was not released"
            ),
            404 => assert!(
                node.released.may(),
                "{id} holds {}, which is said to be no lease",
                node.subnet
            ),
            _ => panic!("the release of {} was answered {status}", node.subnet),
        }
    }

    /// A release got no answer.
    pub(crate) fn release_unanswered(&mut self, id: &str) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.released = Known::Unsure;
        }
    }

    /// A reservation was answered 200, or 409 because of a lease (or a reservation).
    pub(crate) fn reserved(&mut self, range: Ipv4Net, status: u16) {
        let overlaps_reservation = self
            .reservations
            .keys()
            .any(|other| other.contains(&range) || range.contains(other));
        match status {
            200 => {
                for (id, node) in &self.nodes {
                    let held = range.contains(&node.subnet) && node.released == Known::No;
                    assert!(
                        !held,
                        "{range} was reserved over the subnet of {id}: {node:?}"
                    );
                }
                self.reservations.insert(range, Known::Yes);
            }
            409 => assert!(
                overlaps_reservation
                    || !self.unanswered.is_empty()
                    || self.nodes.values().any(|node| range.contains(&node.subnet)),
                "{range} is free and could not be reserved: {self:#?}"
            ),
            _ => panic!("the reservation of {range} was answered {status}"),
        }
    }

    /// A reservation, or its end, got no answer.
    pub(crate) fn unsure_of_reservation(&mut self, range: Ipv4Net) {
        self.reservations.insert(range, Known::Unsure);
    }

    /// The end of a reservation was answered 200 or 404.
    pub(crate) fn unreserved(&mut self, range: Ipv4Net, status: u16) {
        match status {
            200 => {}
            404 => assert_ne!(
                self.reservations[&range],
                Known::Yes,
                "{range} is reserved, and is said not to be"
            ),
            _ => panic!("the end of the reservation of {range} was answered {status}"),
        }
        self.reservations.remove(&range);
    }
}
