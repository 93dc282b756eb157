//! Who an address is. Pure.

use std::{collections::BTreeSet, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::Ground;
use crate::wanted::subnet::gateway;

/// Who sends a packet, or whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// A container of this node, or at least an address of its subnet.
    Container,
    /// This host, by whichever address.
    Host,
    /// Somebody in a peer's subnet.
    Peer(Ipv4Net),
    /// An address of the cluster that is in nobody's subnet.
    Nobody,
    /// Not of the mesh.
    Outside,
}

impl Party {
    pub(crate) fn of(address: Ipv4Addr, ground: &Ground, local: &BTreeSet<Ipv4Addr>) -> Self {
        if local.contains(&address) || address == gateway(ground.subnet) || address.is_loopback() {
            return Self::Host;
        }
        if ground.subnet.contains(&address) {
            return Self::Container;
        }
        let peer = ground.peers.keys().find(|subnet| subnet.contains(&address));
        match peer {
            Some(subnet) => Self::Peer(*subnet),
            None if ground.cluster.contains(&address) => Self::Nobody,
            None => Self::Outside,
        }
    }
}
