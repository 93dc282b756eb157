//! The rules of a pool, written down without thought of speed.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnet::Ipv4Net;
use mesh_ipam::{Exhausted, Holder, Owner, Protocol, Published, Refusal, Reserved};

/// A lease, as the model has it: address, owner, name, port of the host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    pub(crate) address: Ipv4Addr,
    pub(crate) owner: Owner,
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
}

#[derive(Clone, Default)]
pub(crate) struct Model {
    pub(crate) subnet: Option<Ipv4Net>,
    pub(crate) held: Vec<Held>,
    released: Vec<Ipv4Addr>,
    pub(crate) occupied: BTreeMap<Ipv4Addr, String>,
}

fn hosts(subnet: Ipv4Net) -> Vec<Ipv4Addr> {
    subnet.hosts().skip(1).collect()
}

impl Model {
    pub(crate) fn set_subnet(&mut self, new: Ipv4Net) -> Result<(), Refusal> {
        if self.subnet == Some(new) {
            return Ok(());
        }
        if !self.held.is_empty() {
            let mut held = self.held.clone();
            held.sort_by_key(|held| held.address);
            return Err(Refusal::SubnetInUse {
                new,
                old: self.subnet.unwrap(),
                count: held.len() as u32,
                owners: held.into_iter().take(3).map(|held| held.owner).collect(),
            });
        }
        self.subnet = Some(new);
        self.released.clear();
        Ok(())
    }

    fn of(&self, owner: &Owner) -> Option<&Held> {
        self.held.iter().find(|held| held.owner == *owner)
    }

    fn is_free(&self, address: Ipv4Addr) -> bool {
        !self.occupied.contains_key(&address)
            && self.held.iter().all(|held| held.address != address)
    }

    fn next(&self, subnet: Ipv4Net) -> Option<Ipv4Addr> {
        let never = hosts(subnet)
            .into_iter()
            .find(|it| self.is_free(*it) && !self.released.contains(it));
        never.or_else(|| self.released.iter().copied().find(|it| self.is_free(*it)))
    }

    fn exhausted(&self, subnet: Ipv4Net) -> Refusal {
        let mut counts = BTreeMap::<String, u32>::new();
        for held in &self.held {
            let network = format!("{}/{}", held.owner.engine(), held.owner.network());
            *counts.entry(network).or_default() += 1;
        }
        let most = counts.iter().map(|(_, &count)| count).max();
        let most = most.and_then(|most| counts.into_iter().find(|(_, count)| *count == most));
        Refusal::Exhausted(Exhausted {
            subnet,
            capacity: hosts(subnet).len() as u32,
            leased: self.held.len() as u32,
            most,
        })
    }

    fn choose(&self, wished: Option<Ipv4Addr>) -> Result<Ipv4Addr, Refusal> {
        let subnet = self.subnet.ok_or(Refusal::NoSubnet)?;
        let Some(address) = wished else {
            return self.next(subnet).ok_or_else(|| self.exhausted(subnet));
        };
        if !subnet.contains(&address) {
            return Err(Refusal::Outside { address, subnet });
        }
        let all: Vec<Ipv4Addr> = (u32::from(subnet.network())..=u32::from(subnet.broadcast()))
            .map(Ipv4Addr::from)
            .collect();
        for (none, reserved) in [
            (all[0], Reserved::Network),
            (all[1], Reserved::Gateway),
            (all[all.len() - 1], Reserved::Broadcast),
        ] {
            if address == none {
                return Err(Refusal::Reserved {
                    address,
                    subnet,
                    reserved,
                });
            }
        }
        if let Some(held) = self.held.iter().find(|held| held.address == address) {
            return Err(Refusal::Held {
                address,
                holder: holder(held),
            });
        }
        match self.occupied.get(&address).cloned() {
            Some(port) => Err(Refusal::Occupied { address, port }),
            None => Ok(address),
        }
    }

    pub(crate) fn allocate(
        &mut self,
        owner: &Owner,
        wished: Option<Ipv4Addr>,
        name: &str,
        port: Option<u16>,
    ) -> Result<(Held, bool), Refusal> {
        let before = self.of(owner).cloned();
        let address = match (&before, wished) {
            (Some(held), Some(given)) if held.address != given => {
                return Err(Refusal::HoldsAnother {
                    owner: owner.clone(),
                    held: held.address,
                    given,
                });
            }
            (Some(held), _) => held.address,
            (None, wished) => self.choose(wished)?,
        };
        let new_port = port.filter(|_| before.as_ref().is_none_or(|held| held.port.is_none()));
        if let Some(given) = new_port
            && let Some(other) = self.held.iter().find(|other| other.port == new_port)
        {
            return Err(Refusal::PublishedHeld {
                given: published(given),
                held: published(given),
                holder: holder(other),
            });
        }
        let held = Held {
            address,
            owner: owner.clone(),
            name: name.to_owned(),
            port: before.as_ref().and_then(|held| held.port).or(new_port),
        };
        self.held.retain(|held| held.owner != *owner);
        self.held.push(held.clone());
        self.released.retain(|released| *released != address);
        Ok((held, before.is_none()))
    }

    pub(crate) fn release(
        &mut self,
        owner: &Owner,
        address: Option<Ipv4Addr>,
    ) -> Result<Option<Held>, Refusal> {
        let Some(held) = self.of(owner).cloned() else {
            return Ok(None);
        };
        match address {
            Some(given) if given != held.address => Err(Refusal::HoldsAnother {
                owner: owner.clone(),
                held: held.address,
                given,
            }),
            _ => {
                self.held.retain(|other| other.owner != *owner);
                self.released.push(held.address);
                Ok(Some(held))
            }
        }
    }
}

fn holder(held: &Held) -> Box<Holder> {
    Box::new(Holder {
        owner: held.owner.clone(),
        name: Some(held.name.clone()),
    })
}

pub(crate) fn published(host_port: u16) -> Published {
    Published {
        protocol: Protocol::Tcp,
        host_address: None,
        host_port,
        container_port: 80,
        count: 1,
    }
}

pub(crate) fn held(lease: &mesh_ipam::Lease) -> Held {
    let endpoint = lease.endpoint.as_ref();
    Held {
        address: lease.address,
        owner: lease.owner.clone(),
        name: lease.named.names[0].clone(),
        port: endpoint.map(|endpoint| endpoint.published[0].host_port),
    }
}
