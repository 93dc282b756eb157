//! The rules of a pool, without a kernel, a file or a clock.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, sync::Arc};

use ipnet::Ipv4Net;

use crate::{
    Endpoint, Exhausted, Granted, Holder, Lease, Owner, Published, Refusal, Request, Usage,
    endpoint_mac, leases::Leases, ports::Ports, subnet,
};

mod change;
mod space;

pub use change::{Applied, Change, Done};
use space::Space;

/// The longest path, in bytes: `PATH_MAX` less the terminating zero.
const MAX_PATH: usize = 4095;

/// How many owners a refusal names.
const NAMED_OWNERS: usize = 3;

/// The addresses of one node's containers: who holds which, and which is next.
///
/// An address is leased to one owner at a time. The next free one is the lowest that was never
/// leased; when there is none, the one that was released longest ago, so that what others still
/// remember of an address (their ARP caches, connections, name servers) has time to be forgotten.
/// Every call takes a time that grows with the logarithm of the number of addresses.
///
/// Nothing here is durable: that is [`Ipam`](crate::Ipam), which keeps a pool and its journal. Whoever
/// has a store of their own keeps the pool's changes there, and takes back with [`Pool::undo`] what
/// could not be stored.
///
/// ```
/// use mesh_ipam::{Change, Lifetime, NamedLabels, Owner, Pool, Request};
///
/// let mut pool = Pool::default();
/// pool.set_subnet("10.42.1.0/24".parse()?)?;
/// let request = Request {
///     owner: Owner::new("docker", "quilt", "3f1c", "eth0")?,
///     wished: None,
///     named: NamedLabels::default(),
///     namespace: None,
///     lifetime: Lifetime::Released,
///     endpoint: None,
/// };
/// let done = pool.allocate(&request, 1_767_225_600)?;
/// assert_eq!(done.answer.lease.address.to_string(), "10.42.1.2");
/// let applied = done.applied.expect("a new lease is a change");
/// assert!(matches!(applied.change(), Change::Leased(_)));
///
/// // The store is full: it is as if nobody had asked.
/// pool.undo(applied);
/// assert_eq!(pool.usage().leased, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pool {
    space: Space,
    leases: Leases,
    /// How many leases each `engine/network` has.
    networks: BTreeMap<String, u32>,
    ports: Ports,
    /// Addresses in use without a lease, with the names of their ports.
    occupied: BTreeMap<Ipv4Addr, String>,
    /// Whether nobody gets anything new.
    drained: bool,
}

impl Pool {
    /// Gives the pool its subnet. The same again is a success; another one is taken while nothing is
    /// leased, and then no address of it was ever leased.
    ///
    /// # Errors
    ///
    /// [`Refusal::Subnet`] and [`Refusal::SubnetInUse`].
    pub fn set_subnet(&mut self, new: Ipv4Net) -> Result<Done<()>, Refusal> {
        if !subnet::is_subnet(new) {
            return Err(Refusal::Subnet(new));
        }
        if self.space.subnet == Some(new) {
            return Ok(self.done((), None));
        }
        match self.space.subnet {
            Some(old) if self.leases.len() > 0 => {
                let owners = self.leases.iter().take(NAMED_OWNERS);
                Err(Refusal::SubnetInUse {
                    new,
                    old,
                    count: self.leases.len(),
                    owners: owners.map(|lease| lease.owner.clone()).collect(),
                })
            }
            _ => Ok(self.done((), Some(Change::Subnet(new)))),
        }
    }

    /// Has it lease nothing new, or again. Who has something keeps it, and may give it back.
    pub fn set_drained(&mut self, drained: bool) {
        self.drained = drained;
    }

    /// Leases an address, or confirms the one that the owner holds. `now` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// [`Refusal::Drained`] for what is new in a pool that is, and any [`Refusal`] that concerns subnets, addresses, names or ports.
    pub fn allocate(&mut self, request: &Request, now: u64) -> Result<Done<Granted>, Refusal> {
        request.named.check()?;
        if let Some(named) = &request.namespace
            && !is_path(&named.path)
        {
            return Err(Refusal::Namespace(named.path.clone()));
        }
        let held = self.leases.of(&request.owner).cloned();
        let has_endpoint = held.as_ref().is_some_and(|held| held.endpoint.is_some());
        if self.drained && (held.is_none() || request.endpoint.is_some() && !has_endpoint) {
            return Err(Refusal::Drained);
        }
        let mut lease = match (&held, request.wished) {
            (Some(held), Some(given)) if held.address != given => {
                return Err(Refusal::HoldsAnother {
                    owner: request.owner.clone(),
                    held: held.address,
                    given,
                });
            }
            (Some(held), _) => Lease::clone(held),
            (None, wished) => Lease {
                address: self.choose(wished)?,
                owner: request.owner.clone(),
                named: request.named.clone(),
                namespace: request.namespace.clone(),
                lifetime: request.lifetime.clone(),
                since: now,
                endpoint: None,
            },
        };
        lease.named.clone_from(&request.named);
        lease.namespace.clone_from(&request.namespace);
        lease.lifetime.clone_from(&request.lifetime);
        let mut new_endpoint = false;
        if request.endpoint.is_none()
            && let Some(endpoint) = &mut lease.endpoint
        {
            // It is wanted for itself from now on.
            endpoint.leased_along = false;
        }
        if let Some(plan) = request
            .endpoint
            .as_ref()
            .filter(|_| lease.endpoint.is_none())
        {
            self.check_published(&plan.published, held.as_ref().map(|held| held.address))?;
            self.check_mac(plan.mac, lease.address)?;
            lease.endpoint = Some(plan.at(lease.address, held.is_none()));
            new_endpoint = true;
        }
        let changed = held.as_deref() != Some(&lease);
        let change = changed.then(|| Change::Leased(Arc::new(lease.clone())));
        let granted = Granted {
            lease,
            new: held.is_none(),
            new_endpoint,
        };
        Ok(self.done(granted, change))
    }

    /// Ends the lease of an owner and returns it. An owner that holds nothing is a success, whatever
    /// address is given.
    ///
    /// # Errors
    ///
    /// [`Refusal::HoldsAnother`] if `address` is given and is not what the owner holds.
    pub fn release(
        &mut self,
        owner: &Owner,
        address: Option<Ipv4Addr>,
    ) -> Result<Done<Option<Lease>>, Refusal> {
        let Some(lease) = self.leases.of(owner).cloned() else {
            return Ok(self.done(None, None));
        };
        match address {
            Some(given) if given != lease.address => Err(Refusal::HoldsAnother {
                owner: owner.clone(),
                held: lease.address,
                given,
            }),
            _ => {
                let change = Change::Released(lease.address);
                Ok(self.done(Some(Lease::clone(&lease)), Some(change)))
            }
        }
    }

    /// Replaces the endpoint of an owner's lease, or takes it away, and returns the lease.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoLease`], and those that concern ports.
    pub fn set_endpoint(
        &mut self,
        owner: &Owner,
        endpoint: Option<Endpoint>,
    ) -> Result<Done<Lease>, Refusal> {
        let Some(held) = self.leases.of(owner).cloned() else {
            return Err(Refusal::NoLease(owner.clone()));
        };
        if held.endpoint == endpoint {
            return Ok(self.done(Lease::clone(&held), None));
        }
        if let Some(endpoint) = &endpoint {
            self.check_published(&endpoint.published, Some(held.address))?;
        }
        let lease = Lease {
            endpoint,
            ..Lease::clone(&held)
        };
        let change = Change::Leased(Arc::new(lease.clone()));
        Ok(self.done(lease, Some(change)))
    }

    /// Says which addresses are in use without a lease, with the names of their ports, instead of
    /// those that were said before. None of them is handed out. Leases stay as they are.
    pub fn occupy(&mut self, held: BTreeMap<Ipv4Addr, String>) {
        let before = std::mem::replace(&mut self.occupied, held);
        let gone = before
            .into_keys()
            .filter(|it| !self.occupied.contains_key(it));
        for address in gone.collect::<Vec<_>>() {
            self.shelve(address);
        }
        for &address in self.occupied.keys() {
            self.space.free.remove(&self.space.turn(address));
        }
    }

    /// All leases, by address.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.iter().map(|lease| &**lease)
    }

    /// The lease of an owner.
    pub fn lease_of(&self, owner: &Owner) -> Option<&Lease> {
        self.leases.of(owner).map(|lease| &**lease)
    }

    /// The lease of an address.
    pub fn lease_at(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.leases.at(address).map(|lease| &**lease)
    }

    /// How much of it is used.
    pub fn usage(&self) -> Usage {
        Usage {
            subnet: self.space.subnet,
            capacity: self.space.subnet.map_or(0, subnet::capacity),
            leased: self.leases.len(),
        }
    }

    /// The subnet, if one was set.
    pub(crate) fn subnet(&self) -> Option<Ipv4Net> {
        self.space.subnet
    }

    fn choose(&self, wished: Option<Ipv4Addr>) -> Result<Ipv4Addr, Refusal> {
        let subnet = self.space.subnet.ok_or(Refusal::NoSubnet)?;
        let Some(address) = wished else {
            let next = self.space.free.values().next().copied();
            return next.ok_or_else(|| Refusal::Exhausted(self.exhausted(subnet)));
        };
        if !subnet.contains(&address) {
            return Err(Refusal::Outside { address, subnet });
        }
        if let Some(reserved) = subnet::reserved(subnet, address) {
            return Err(Refusal::Reserved {
                address,
                subnet,
                reserved,
            });
        }
        if let Some(lease) = self.leases.at(address) {
            return Err(Refusal::Held {
                address,
                holder: Box::new(Holder::from(&**lease)),
            });
        }
        match self.occupied.get(&address) {
            Some(port) => Err(Refusal::Occupied {
                address,
                port: port.clone(),
            }),
            None => Ok(address),
        }
    }

    fn exhausted(&self, subnet: Ipv4Net) -> Exhausted {
        // Of several that are the greatest, max_by_key gives the last: reversed, the first by name.
        let most = self.networks.iter().rev().max_by_key(|&(_, count)| *count);
        Exhausted {
            subnet,
            capacity: subnet::capacity(subnet),
            leased: self.leases.len(),
            most: most.map(|(network, &count)| (network.clone(), count)),
        }
    }

    /// Whether the container that has `address` may have that MAC address.
    fn check_mac(&self, given: Option<[u8; 6]>, address: Ipv4Addr) -> Result<(), Refusal> {
        let Some(mac) = given.filter(|&mac| mac != endpoint_mac(address)) else {
            // One that follows from an address is nobody else's.
            return Ok(());
        };
        if mac[0] == 0x02 && (0x51..=0x53).contains(&mac[1]) {
            return Err(Refusal::MacReserved(mac));
        }
        let has = |lease: &&Arc<Lease>| lease.endpoint.as_ref().is_some_and(|it| it.mac == mac);
        match self.leases.iter().find(has) {
            Some(lease) => Err(Refusal::MacHeld {
                mac,
                holder: Box::new(Holder::from(&**lease)),
            }),
            None => Ok(()),
        }
    }

    fn check_published(&self, given: &[Published], own: Option<Ipv4Addr>) -> Result<(), Refusal> {
        Published::check_all(given)?;
        let Some((given, held, address)) = self.ports.conflict(given, own) else {
            return Ok(());
        };
        let Some(lease) = self.leases.at(address) else {
            // Ports are those of leases.
            return Ok(());
        };
        Err(Refusal::PublishedHeld {
            given: given.clone(),
            held: held.clone(),
            holder: Box::new(Holder::from(&**lease)),
        })
    }
}

/// Whether the path of a namespace can be kept.
fn is_path(path: &Path) -> bool {
    path.to_str().is_some() && path.as_os_str().len() <= MAX_PATH
}
