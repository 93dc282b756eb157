//! The addresses of a subnet that nobody holds.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;

use crate::Lease;

/// The addresses of a subnet that nobody holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Space {
    pub(super) subnet: Option<Ipv4Net>,
    /// Those that can be handed out, next first.
    pub(super) free: BTreeMap<Turn, Ipv4Addr>,
    /// Those that were released, with the turn that each has. Whatever is neither here nor leased was
    /// never leased.
    pub(super) rested: HashMap<Ipv4Addr, u64>,
    /// The turn of the next that is released.
    pub(super) next_turn: u64,
}

/// When an address is handed out: the lower, the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// Never leased.
    Fresh(Ipv4Addr),
    /// Released as that many others had been before.
    Rested(u64),
}

/// What one address is.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// Nobody's.
    Free(Turn),
    /// Somebody's.
    Leased(Arc<Lease>),
}

impl Space {
    /// A subnet whose addresses were never leased, of which `free` can be handed out.
    pub(super) fn new(subnet: Ipv4Net, free: impl Iterator<Item = Ipv4Addr>) -> Self {
        Self {
            subnet: Some(subnet),
            free: free
                .map(|address| (Turn::Fresh(address), address))
                .collect(),
            ..Self::default()
        }
    }

    /// The turn of an address that nobody holds.
    pub(super) fn turn(&self, address: Ipv4Addr) -> Turn {
        let rested = self.rested.get(&address).copied();
        rested.map_or(Turn::Fresh(address), Turn::Rested)
    }
}
