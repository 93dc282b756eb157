//! Which address and interfaces of the host carry the overlay.

use std::{collections::BTreeMap, net::Ipv4Addr};

use mesh_layout::ENCAPSULATION_LEN;

use crate::{
    observed::{LinkKind, Observed},
    options::underlay_address,
    problem::Problem,
    settings::Settings,
    wanted::Wanted,
};

/// The smallest MTU IPv4 allows (RFC 791).
const MIN_MTU: u32 = 68;

/// The host's side of the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Underlay {
    /// This node's address.
    pub(crate) address: Ipv4Addr,
    /// Name of the interface that holds it.
    pub(crate) interface: String,
    /// That interface and those over which the ways to peers lead, by index.
    pub(crate) links: BTreeMap<u32, String>,
    /// MTU of the overlay: the smallest of the links', less what encapsulation adds.
    pub(crate) overlay_mtu: u32,
}

/// Finds this node's underlay.
pub(crate) fn underlay(
    settings: &Settings,
    wanted: &Wanted,
    observed: &Observed,
) -> Result<Underlay, Problem> {
    let address = host_address(settings, wanted, observed)?;
    let holder = observed
        .addresses
        .iter()
        .find(|held| held.address.addr() == address)
        .and_then(|held| observed.links.get(&held.link))
        .ok_or(Problem::HostAddressNotHere(address))?;
    let ways = observed
        .next_hops
        .links()
        .iter()
        .filter_map(|link| observed.links.get(link))
        .filter(|link| carries_underlay(settings, observed, link.index));
    let mut links = BTreeMap::new();
    let mut mtu = holder.mtu;
    for link in std::iter::once(holder).chain(ways) {
        mtu = mtu.min(link.mtu);
        links.insert(link.index, link.name.clone());
    }
    Ok(Underlay {
        address,
        interface: holder.name.clone(),
        links,
        // ENCAPSULATION_LEN is 50, which fits every integer.
        overlay_mtu: mtu.saturating_sub(ENCAPSULATION_LEN as u32).max(MIN_MTU),
    })
}

/// Whether packets of the overlay may leave over an interface: not over the overlay itself
/// or its bridge, nor over loopback, where a way to another host cannot lead.
pub(crate) fn carries_underlay(settings: &Settings, observed: &Observed, index: u32) -> bool {
    observed.links.get(&index).is_some_and(|link| {
        link.name != settings.bridge && link.name != settings.overlay && link.name != "lo"
    })
}

fn host_address(
    settings: &Settings,
    wanted: &Wanted,
    observed: &Observed,
) -> Result<Ipv4Addr, Problem> {
    if let Some(address) = wanted.host_address {
        return Ok(address);
    }
    let candidates: Vec<(u32, Ipv4Addr)> = observed
        .addresses
        .iter()
        .filter(|held| held.global && carries_underlay(settings, observed, held.link))
        .map(|held| (held.link, held.address.addr()))
        .filter(|&(_, address)| underlay_address(address, settings.cluster.cidr).is_ok())
        .collect();
    if let Some(address) = default_source(observed, &candidates) {
        return Ok(address);
    }
    if let [(_, only)] = candidates[..] {
        return Ok(only);
    }
    // A default route that is away for a moment must not move the overlay.
    if let Some(LinkKind::Vxlan(vxlan)) = observed
        .link_named(&settings.overlay)
        .map(|link| &link.kind)
        && let Some(local) = vxlan.local
        && candidates.iter().any(|&(_, address)| address == local)
    {
        return Ok(local);
    }
    let candidates = if candidates.is_empty() {
        "no interface has a global IPv4 address outside the cluster CIDR".to_owned()
    } else {
        let list: Vec<String> = candidates
            .iter()
            .map(|(link, address)| format!("{address} on {}", observed.name_of(*link)))
            .collect();
        format!("there is more than one address: {}", list.join(", "))
    };
    Err(Problem::NoHostAddress { candidates })
}

/// The address from which the host sends over its preferred default route.
fn default_source(observed: &Observed, candidates: &[(u32, Ipv4Addr)]) -> Option<Ipv4Addr> {
    let route = observed
        .routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0 && route.unicast)
        .min_by_key(|route| route.metric)?;
    let usable = |source: &Ipv4Addr| candidates.iter().any(|(_, address)| address == source);
    route.source.filter(usable).or_else(|| {
        let link = route.link?;
        // The first address of an interface is its primary one.
        candidates
            .iter()
            .find(|&&(held_by, _)| held_by == link)
            .map(|&(_, address)| address)
    })
}
