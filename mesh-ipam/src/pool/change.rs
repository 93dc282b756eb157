//! Changes of a pool: made, taken back, and told again.

use std::{net::Ipv4Addr, sync::Arc};

use ipnet::Ipv4Net;

use super::{
    Pool,
    space::{Space, Standing, Turn},
};
use crate::{Lease, Lifetime, Owner, leases::Leases, subnet};

/// A change of a pool, as a journal keeps it.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The pool begins anew with this subnet.
    Subnet(Ipv4Net),
    /// This is the lease of its address now.
    Leased(Arc<Lease>),
    /// Nobody holds the address any longer, and it rests.
    Released(Ipv4Addr),
}

/// The answer to a call, and what the call changed.
#[derive(Debug)]
pub struct Done<T> {
    /// The answer.
    pub answer: T,
    /// What was changed; `None` if all was as it was asked to be.
    pub applied: Option<Applied>,
}

/// A change that was made, and what was before it.
#[derive(Debug)]
pub struct Applied {
    change: Change,
    before: Before,
}

impl Applied {
    /// What was changed.
    pub fn change(&self) -> &Change {
        &self.change
    }
}

#[derive(Debug)]
enum Before {
    /// All but what is occupied.
    Pool(Box<Pool>),
    Address {
        address: Ipv4Addr,
        standing: Standing,
        next_turn: u64,
    },
}

impl Pool {
    /// Takes a change back. Several are taken back in the opposite order, with nothing in between.
    pub fn undo(&mut self, applied: Applied) {
        match applied.before {
            Before::Pool(before) => {
                let occupied = std::mem::take(&mut self.occupied);
                *self = *before;
                self.occupied = occupied;
            }
            Before::Address {
                address,
                standing,
                next_turn,
            } => {
                self.put(address, standing);
                self.space.next_turn = next_turn;
            }
        }
    }

    /// Makes a change that a journal tells of, even if some before it were lost: what is told later
    /// holds. Returns whether it can be one of this pool; nothing was changed if not.
    pub fn restore(&mut self, change: Change) -> bool {
        let assignable = |address| {
            let within = |subnet| subnet::is_assignable(subnet, address);
            self.space.subnet.is_some_and(within)
        };
        match &change {
            Change::Subnet(new) if !subnet::is_subnet(*new) => return false,
            // Said again: nothing began anew.
            Change::Subnet(new) if self.space.subnet == Some(*new) => return true,
            Change::Subnet(_) => {}
            Change::Released(address) if !assignable(*address) => return false,
            Change::Released(_) => {}
            Change::Leased(lease) if !assignable(lease.address) => return false,
            Change::Leased(lease) => {
                if let Some(elsewhere) = self.leases.of(&lease.owner)
                    && elsewhere.address != lease.address
                {
                    self.apply(Change::Released(elsewhere.address));
                }
            }
        }
        self.apply(change);
        true
    }

    /// Ends what no life but `life` has: leases that are bound to another one, and the endpoints of
    /// the others, whose interfaces are gone. Call it when the pool comes from another life. Returns
    /// what was changed.
    pub fn begin_life(&mut self, life: &str) -> Vec<Change> {
        let mut changes = self.end_lives(life);
        let with_endpoint = self.leases.iter().filter(|lease| lease.endpoint.is_some());
        for held in with_endpoint.cloned().collect::<Vec<_>>() {
            let lease = Lease {
                endpoint: None,
                ..Lease::clone(&held)
            };
            let change = Change::Leased(Arc::new(lease));
            self.apply(change.clone());
            changes.push(change);
        }
        changes
    }

    /// Ends the leases that are bound to another life than `life`, by address.
    pub(crate) fn end_lives(&mut self, life: &str) -> Vec<Change> {
        let ended = |lease: &&Arc<Lease>| match &lease.lifetime {
            Lifetime::Life(id) => id != life,
            Lifetime::Released => false,
        };
        let ended = self.leases.iter().filter(ended);
        let changes = ended.map(|lease| Change::Released(lease.address));
        let changes: Vec<Change> = changes.collect();
        for change in &changes {
            self.apply(change.clone());
        }
        changes
    }

    /// Leases that share their content with the pool's.
    pub(crate) fn shared_leases(&self) -> &Leases {
        &self.leases
    }

    /// What makes an empty pool this one, told to [`Pool::restore`] in this order. What is occupied is
    /// not part of it.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        let mut resting: Vec<(u64, Ipv4Addr)> = self
            .space
            .rested
            .iter()
            .map(|(&address, &turn)| (turn, address))
            .collect();
        resting.sort_unstable();
        let subnet = self.space.subnet.map(Change::Subnet);
        let released = resting
            .into_iter()
            .map(|(_, address)| Change::Released(address));
        let leased = self.leases.iter().cloned().map(Change::Leased);
        subnet.into_iter().chain(released).chain(leased)
    }

    /// How many addresses were released and not leased again.
    pub(crate) fn resting(&self) -> usize {
        self.space.rested.len()
    }

    pub(super) fn done<T>(&mut self, answer: T, change: Option<Change>) -> Done<T> {
        let applied = change.map(|change| self.apply(change));
        Done { answer, applied }
    }

    fn apply(&mut self, change: Change) -> Applied {
        let next_turn = self.space.next_turn;
        let before = match &change {
            Change::Subnet(subnet) => Before::Pool(Box::new(self.begin(*subnet))),
            Change::Leased(lease) => Before::Address {
                address: lease.address,
                standing: self.put(lease.address, Standing::Leased(Arc::clone(lease))),
                next_turn,
            },
            Change::Released(address) => {
                self.space.next_turn += 1;
                let rested = Standing::Free(Turn::Rested(next_turn));
                Before::Address {
                    address: *address,
                    standing: self.put(*address, rested),
                    next_turn,
                }
            }
        };
        Applied { change, before }
    }

    /// Begins anew, and returns all that was before but what is occupied.
    fn begin(&mut self, subnet: Ipv4Net) -> Self {
        let occupied = std::mem::take(&mut self.occupied);
        let free = subnet::assignable(subnet).filter(|address| !occupied.contains_key(address));
        let new = Self {
            space: Space::new(subnet, free),
            occupied,
            ..Self::default()
        };
        std::mem::replace(self, new)
    }

    /// Makes one address what it is to be, and returns what it was. All indexes are kept here.
    fn put(&mut self, address: Ipv4Addr, standing: Standing) -> Standing {
        let before = match self.leases.at(address).cloned() {
            Some(lease) => {
                self.leases.remove(address);
                self.ports.remove(&lease);
                let network = network(&lease.owner);
                if let Some(count) = self.networks.get_mut(&network) {
                    *count -= 1;
                    if *count == 0 {
                        self.networks.remove(&network);
                    }
                }
                Standing::Leased(lease)
            }
            None => {
                let turn = self.space.turn(address);
                self.space.free.remove(&turn);
                self.space.rested.remove(&address);
                Standing::Free(turn)
            }
        };
        match standing {
            Standing::Leased(lease) => {
                *self.networks.entry(network(&lease.owner)).or_default() += 1;
                self.ports.insert(&lease);
                self.leases.insert(lease);
            }
            Standing::Free(turn) => {
                if let Turn::Rested(turn) = turn {
                    self.space.rested.insert(address, turn);
                }
                self.shelve(address);
            }
        }
        before
    }

    /// Lets an address be handed out, if it can be.
    pub(super) fn shelve(&mut self, address: Ipv4Addr) {
        let within = |subnet| subnet::is_assignable(subnet, address);
        let taken = self.leases.at(address).is_some() || self.occupied.contains_key(&address);
        if !taken && self.space.subnet.is_some_and(within) {
            let turn = self.space.turn(address);
            self.space.free.insert(turn, address);
        }
    }
}

fn network(owner: &Owner) -> String {
    format!("{}/{}", owner.engine(), owner.network())
}
