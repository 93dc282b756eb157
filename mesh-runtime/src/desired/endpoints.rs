//! The containers that the fast path delivers to. Pure.
//!
//! What is known of a container comes from three sources. What a container runtime said by
//! call stands above what was seen inside the container, and that above what the host and
//! the bridge have learnt from its packets. Of a registered container, what was registered is all.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use crate::{
    ebpf::{EndpointPath, Mac},
    observed::{LinkKind, NeighbourState, Observed, containers::Interface},
    wanted::endpoint::{AttachedEndpoint, may_hold, strict_ports},
};

#[cfg(test)]
mod tests;

/// The containers behind the ports of the bridge with that index, by address.
///
/// Whatever is left out is reached all the same: the kernel path finds it by ARP.
pub(crate) fn endpoints(
    observed: &Observed,
    bridge: u32,
    subnet: Ipv4Net,
    attached: &BTreeMap<Ipv4Addr, AttachedEndpoint>,
) -> BTreeMap<Ipv4Addr, EndpointPath> {
    let mut ports = deliverable_ports(observed, bridge);
    let strict = strict_ports(attached);
    let learnt = learnt(
        observed,
        bridge,
        &ports.difference(&strict).copied().collect(),
    );
    ports.extend(veth_ports(observed, bridge).filter(|port| strict.contains(port)));
    let mut endpoints = learnt.clone();
    endpoints.retain(|&address, path| is_borne_out(observed, address, path));
    endpoints.extend(seen_inside(observed, bridge, attached));
    for (&address, endpoint) in attached {
        let found = || inside(observed, endpoint.link)?.mac;
        let mac = match strict.contains(&endpoint.link) {
            true => endpoint.mac.filter(|_| endpoint.strict),
            false => endpoint.mac.or_else(found),
        };
        let path = mac.map(|mac| EndpointPath {
            link: endpoint.link,
            mac,
            held: true,
        });
        match path.filter(|path| ports.contains(&path.link)) {
            Some(path) => endpoints.insert(address, path),
            // It is to be nowhere else.
            None => endpoints.remove(&address),
        };
    }
    let macs = macs(observed, bridge, attached);
    let bridge_mac = observed.links.get(&bridge).and_then(|link| link.mac);
    endpoints.retain(|&address, path| {
        // A container may give its interface another's MAC address, or the bridge's. The guard at
        // its port takes an entry's word for it, so there is none.
        let own = macs.get(&path.mac).is_none_or(|&port| port == path.link);
        may_hold(subnet, address) && own && Some(path.mac) != bridge_mac
    });
    endpoints
}

/// The ports of a bridge that are veth devices. A registered container whose engine moves its interface by itself is behind
/// its port before anything shows that: when the first packet comes, nothing has to be learnt of the move. Until
/// then nothing reaches it by any way.
fn veth_ports(observed: &Observed, bridge: u32) -> impl Iterator<Item = u32> {
    let ports = observed.ports_of(bridge);
    ports
        .filter(|port| port.kind == LinkKind::Veth)
        .map(|port| port.index)
}

/// The ports that `bpf_redirect_peer` delivers behind: veth pairs with the other end in another
/// namespace. Also while one of the ends is down, when nothing reaches the container by any way: what
/// it holds is its own still, and nobody else is to speak from it meanwhile.
pub(crate) fn deliverable_ports(observed: &Observed, bridge: u32) -> BTreeSet<u32> {
    observed
        .ports_of(bridge)
        .filter(|port| port.kind == LinkKind::Veth && port.far_end.is_some())
        .map(|port| port.index)
        .collect()
}

/// What was seen inside the container behind a port.
pub(crate) fn inside(observed: &Observed, port: u32) -> Option<&Interface> {
    observed.containers.get(&port)?.interface.as_ref()
}

/// Whose address and MAC the host knows as a neighbour on the bridge, and behind which port
/// the bridge saw that MAC.
pub(crate) fn learnt(
    observed: &Observed,
    bridge: u32,
    ports: &BTreeSet<u32>,
) -> BTreeMap<Ipv4Addr, EndpointPath> {
    let port_of: BTreeMap<Mac, u32> = observed
        .forwarding
        .iter()
        // A permanent entry is a port's own address.
        .filter(|entry| entry.bridge == Some(bridge) && !entry.permanent)
        .filter(|entry| ports.contains(&entry.link))
        .map(|entry| (entry.mac, entry.link))
        .collect();
    observed
        .neighbours
        .iter()
        .filter(|neighbour| neighbour.link == bridge && neighbour.state != NeighbourState::Unusable)
        .filter_map(|neighbour| {
            let mac = neighbour.mac?;
            let link = *port_of.get(&mac)?;
            let path = EndpointPath {
                link,
                mac,
                held: false,
            };
            Some((neighbour.address, path))
        })
        .collect()
}

/// Whether a look into the container bears out what was learnt. An address that its interface
/// no longer holds stays in the host's tables for a while. Of another MAC address behind the
/// same port, such as a bridge inside the container, a look at the interface says nothing.
fn is_borne_out(observed: &Observed, address: Ipv4Addr, path: &EndpointPath) -> bool {
    inside(observed, path.link).is_none_or(|interface| {
        interface.mac != Some(path.mac) || interface.addresses.contains(&address)
    })
}

/// The addresses that containers' interfaces hold, each by its [`Holders`].
fn seen_inside(
    observed: &Observed,
    bridge: u32,
    attached: &BTreeMap<Ipv4Addr, AttachedEndpoint>,
) -> BTreeMap<Ipv4Addr, EndpointPath> {
    let holders = observed.holders.after(observed, bridge, attached);
    let path = |link| {
        let mac = inside(observed, link)?.mac?;
        Some(EndpointPath {
            link,
            mac,
            held: true,
        })
    };
    let held = holders.addresses.into_iter();
    held.filter_map(|(address, port)| Some((address, path(port)?)))
        .collect()
}

/// The ports of containers' MAC addresses: what is registered of a port, failing that what a container
/// runtime said of it, and what was seen on the interface behind it.
pub(crate) fn macs(
    observed: &Observed,
    bridge: u32,
    attached: &BTreeMap<Ipv4Addr, AttachedEndpoint>,
) -> BTreeMap<Mac, u32> {
    let mut macs = observed.holders.after(observed, bridge, attached).macs;
    let strict = strict_ports(attached);
    let (registered, by_hand): (Vec<_>, Vec<_>) =
        attached.values().partition(|endpoint| endpoint.strict);
    let by_hand = by_hand.into_iter().filter(|it| !strict.contains(&it.link));
    // What is registered comes last, and stands above the others.
    let all = by_hand.chain(registered);
    macs.extend(all.filter_map(|endpoint| Some((endpoint.mac?, endpoint.link))));
    macs
}
