//! What is asked of a pool, and what it grants.

use std::net::Ipv4Addr;

use crate::{
    Endpoint, Lease, Lifetime, NamedLabels, NetworkNamespace, Owner, Published, endpoint_mac,
};

/// A wish for an address. Whoever holds one already gets the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who is to hold it.
    pub owner: Owner,
    /// The address that it wants; `None` for any.
    pub wished: Option<Ipv4Addr>,
    /// Names and labels of the container. A repeated request replaces those of the lease.
    pub named: NamedLabels,
    /// The container's network namespace. A repeated request replaces that of the lease.
    pub namespace: Option<NetworkNamespace>,
    /// How long it may last. A repeated request replaces that of the lease.
    pub lifetime: Lifetime,
    /// The interface that is about to be made for the container. It is recorded with the lease,
    /// unless the lease has one already: that one stays as it is, for the caller to compare.
    pub endpoint: Option<EndpointPlan>,
}

/// An interface that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPlan {
    /// Name of the host's end of its veth pair.
    pub link: String,
    /// MAC address of the container's end; `None` for the one that follows from its address,
    /// [`endpoint_mac`].
    pub mac: Option<[u8; 6]>,
    /// The most that the container sends at once, in bytes of IPv4.
    pub mtu: u32,
    /// Whether the container's default route leads through it.
    pub default_route: bool,
    /// The ports of the host by which it is reached.
    pub published: Vec<Published>,
    /// The container's network namespace.
    pub namespace: Option<NetworkNamespace>,
    /// Whether the engine moves the container's end into a namespace that is not known here.
    pub moved_by_engine: bool,
}

impl EndpointPlan {
    /// The endpoint of the container that has `address`, begun and not yet settled.
    pub(crate) fn at(&self, address: Ipv4Addr, leased_along: bool) -> Endpoint {
        Endpoint {
            link: self.link.clone(),
            mac: self.mac.unwrap_or_else(|| endpoint_mac(address)),
            mtu: self.mtu,
            default_route: self.default_route,
            published: self.published.clone(),
            settled: false,
            namespace: self.namespace.clone(),
            moved_by_engine: self.moved_by_engine,
            leased_along,
        }
    }
}

/// What a request was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The lease, as it is now.
    pub lease: Lease,
    /// Whether this call made the lease.
    pub new: bool,
    /// Whether this call made its endpoint.
    pub new_endpoint: bool,
}

/// How much of a pool is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The subnet, if one was set.
    pub subnet: Option<ipnet::Ipv4Net>,
    /// How many addresses containers can have in it.
    pub capacity: u32,
    /// How many are leased.
    pub leased: u32,
}
