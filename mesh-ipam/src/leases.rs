//! Leases by address and by owner.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::Arc,
};

use crate::{Lease, Owner};

/// Leases by address and by owner. They are shared, so that a copy costs no more than its maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Leases {
    by_address: BTreeMap<Ipv4Addr, Arc<Lease>>,
    by_owner: HashMap<Owner, Ipv4Addr>,
}

impl Leases {
    /// The lease of an address.
    pub(crate) fn at(&self, address: Ipv4Addr) -> Option<&Arc<Lease>> {
        self.by_address.get(&address)
    }

    /// The lease of an owner.
    pub(crate) fn of(&self, owner: &Owner) -> Option<&Arc<Lease>> {
        self.at(*self.by_owner.get(owner)?)
    }

    /// All of them, by address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.by_address.values()
    }

    /// How many there are: no more than a subnet has addresses.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.by_address.len()).unwrap_or(u32::MAX)
    }

    /// Makes this the lease of its address.
    pub(crate) fn insert(&mut self, lease: Arc<Lease>) {
        self.remove(lease.address);
        self.by_owner.insert(lease.owner.clone(), lease.address);
        self.by_address.insert(lease.address, lease);
    }

    /// Ends the lease of an address.
    pub(crate) fn remove(&mut self, address: Ipv4Addr) {
        if let Some(lease) = self.by_address.remove(&address)
            && self.by_owner.get(&lease.owner) == Some(&address)
        {
            self.by_owner.remove(&lease.owner);
        }
    }
}
