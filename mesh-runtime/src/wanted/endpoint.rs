//! Containers that somebody attached by call, or registered.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use super::subnet::gateway;
use crate::ebpf::Mac;

/// A container that somebody attached by call, or that is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachedEndpoint {
    /// Index and name of the host's end: the endpoint vanishes with it, and the same index
    /// after a restart of the host is another interface.
    pub(crate) link: u32,
    pub(crate) interface: String,
    /// MAC address of the container's end; `None` for the one that is found there.
    pub(crate) mac: Option<Mac>,
    /// Whether it is registered: address, MAC address and port belong together then. Its port is a
    /// strict one, at which nothing else counts, whatever the container gives its interface.
    pub(crate) strict: bool,
}

/// The ports of registered containers.
pub(crate) fn strict_ports(attached: &BTreeMap<Ipv4Addr, AttachedEndpoint>) -> BTreeSet<u32> {
    let registered = attached.values().filter(|endpoint| endpoint.strict);
    registered.map(|endpoint| endpoint.link).collect()
}

/// Whether a container may have that address: any of the subnet's but its first, which is the
/// gateway's, and those that name the subnet and its broadcast.
pub(crate) fn may_hold(subnet: Ipv4Net, address: Ipv4Addr) -> bool {
    subnet.contains(&address)
        && address != subnet.network()
        && address != subnet.broadcast()
        && address != gateway(subnet)
}
