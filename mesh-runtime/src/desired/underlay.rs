//! Which address and interfaces of the host carry the overlay.

use std::{collections::BTreeMap, net::Ipv4Addr};

use mesh_layout::ENCAPSULATION_LEN;

use super::firewall::is_card;
use crate::{
    observed::{Link, LinkKind, Observed},
    options::underlay_address,
    problem::Problem,
    settings::Settings,
    wanted::Wanted,
};

/// The smallest MTU IPv4 allows (RFC 791).
const MIN_MTU: u32 = 68;

/// What is taken of an interface of a larger MTU: an IPv4 packet has no more bytes.
const LARGEST_MTU: u32 = 65_535;

/// The smallest MTU that the links of the Internet have (RFC 8200, section 5), on which programs rely.
pub(crate) const EXPECTED_MTU: u32 = 1280;

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
    /// Name of the link with the smallest.
    pub(crate) narrowest: String,
}

/// Finds this node's underlay.
pub(crate) fn underlay(
    settings: &Settings,
    wanted: &Wanted,
    observed: &Observed,
) -> Result<Underlay, Problem> {
    let address = host_address(settings, wanted, observed)?;
    // A device of ours may have it as well, as after a DHCP client was let loose on it: nothing is behind that.
    let holder = observed
        .addresses
        .iter()
        .filter(|held| held.address.addr() == address)
        .filter_map(|held| observed.links.get(&held.link))
        .find(|link| !settings.is_own(&link.name))
        .ok_or(Problem::HostAddressNotHere(address))?;
    let ways = observed
        .next_hops
        .links()
        .iter()
        .filter_map(|link| observed.links.get(link))
        .filter(|link| carries_underlay(settings, observed, link.index));
    // Of a host whose address is on loopback, packets leave over its cards all the same.
    let holds = carries_underlay(settings, observed, holder.index).then_some(holder);
    let mut carriers: Vec<&Link> = holds.into_iter().chain(ways).collect();
    if carriers.is_empty() {
        carriers = observed
            .links
            .values()
            .filter(|link| is_card(link))
            .collect();
        carriers.retain(|link| carries_underlay(settings, observed, link.index));
    }
    let narrowest = carriers
        .iter()
        .min_by_key(|link| link.mtu)
        .unwrap_or(&holder);
    let mtu = narrowest.mtu.min(LARGEST_MTU);
    Ok(Underlay {
        address,
        interface: carriers.first().unwrap_or(&holder).name.clone(),
        links: carriers
            .iter()
            .map(|link| (link.index, link.name.clone()))
            .collect(),
        // ENCAPSULATION_LEN is 50, which fits every integer.
        overlay_mtu: mtu.saturating_sub(ENCAPSULATION_LEN as u32).max(MIN_MTU),
        narrowest: narrowest.name.clone(),
    })
}

impl Underlay {
    /// That containers cannot have the MTU that everybody counts on.
    pub(crate) fn problem(&self) -> Option<Problem> {
        (self.overlay_mtu < EXPECTED_MTU).then(|| Problem::SmallMtu {
            interface: self.narrowest.clone(),
            overlay_mtu: self.overlay_mtu,
        })
    }
}

/// Whether packets of the overlay may leave over an interface: not over the overlay itself
/// or its bridge, nor over loopback, where a way to another host cannot lead.
pub(crate) fn carries_underlay(settings: &Settings, observed: &Observed, index: u32) -> bool {
    observed
        .links
        .get(&index)
        .is_some_and(|link| !settings.is_own(&link.name) && link.name != "lo")
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
