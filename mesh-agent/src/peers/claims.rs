//! Who gets which subnet and address.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;

use super::{KnownPeer, KnownPeers, OwnNode, Skip};

/// The peers accepted so far. Their subnets are disjoint, which makes the neighbours in
/// address order the only ones a further subnet can overlap.
pub(super) struct Claims<'a> {
    own: &'a OwnNode,
    pub(super) peers: KnownPeers,
    addresses: BTreeMap<Ipv4Addr, Ipv4Net>,
}

impl<'a> Claims<'a> {
    pub(super) fn new(own: &'a OwnNode) -> Self {
        Self {
            own,
            peers: KnownPeers::new(),
            addresses: BTreeMap::new(),
        }
    }

    pub(super) fn claim(&mut self, subnet: Ipv4Net, peer: KnownPeer) -> Result<(), Skip> {
        let address = peer.peer.host_address;
        if overlap(subnet, self.own.subnet) {
            return Err(Skip::OwnSubnet {
                subnet,
                own: self.own.subnet,
            });
        }
        if address == self.own.host_address {
            return Err(Skip::OwnAddress(address));
        }
        let before = self.peers.range(..=subnet).next_back();
        let after = self.peers.range(subnet..).next();
        if let Some((held, holder)) = before
            .into_iter()
            .chain(after)
            .find(|(held, _)| overlap(**held, subnet))
        {
            return Err(Skip::SubnetTaken {
                subnet,
                held: *held,
                holder: holder.name().to_owned(),
            });
        }
        if let Some(holder) = self.addresses.get(&address).and_then(|s| self.peers.get(s)) {
            return Err(Skip::AddressTaken {
                address,
                holder: holder.name().to_owned(),
            });
        }
        self.addresses.insert(address, subnet);
        self.peers.insert(subnet, peer);
        Ok(())
    }
}

/// Two CIDR networks overlap exactly if one contains the other.
pub(super) fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}
