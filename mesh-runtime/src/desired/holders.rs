//! Which container holds an address, and which a MAC address, where several say they do. Pure.
//!
//! Who held it first keeps it until its port is gone, or its interface no longer holds it, also while
//! that is down. So a virtual address may move between containers, and none can be taken. A registered
//! container holds nothing in this way: what it has is registered.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use super::endpoints::{deliverable_ports, inside, learnt};
use crate::{
    ebpf::Mac,
    observed::Observed,
    wanted::endpoint::{AttachedEndpoint, may_hold, strict_ports},
};

/// The ports behind which addresses are held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holders {
    /// Addresses that interfaces inside containers hold.
    pub(crate) addresses: BTreeMap<Ipv4Addr, u32>,
    /// MAC addresses of those interfaces.
    pub(crate) macs: BTreeMap<Mac, u32>,
}

impl Holders {
    /// Who holds what by `observed`, after these did before. The ports of those of the `attached`
    /// that are registered are left out.
    ///
    /// Of several that were never seen before, the host's tables tell which spoke; failing that
    /// it is one whose interface is up, and among those the one with the lowest index.
    pub(crate) fn after(
        &self,
        observed: &Observed,
        bridge: u32,
        attached: &BTreeMap<Ipv4Addr, AttachedEndpoint>,
    ) -> Self {
        let mut ports = deliverable_ports(observed, bridge);
        let strict = strict_ports(attached);
        ports.retain(|port| !strict.contains(port));
        let spoke = learnt(observed, bridge, &ports);
        let (addresses, macs) = claims(observed, &ports);
        let up = |claimants: &BTreeSet<u32>| {
            let mut claimants = claimants.iter().copied();
            claimants.find(|&port| inside(observed, port).is_some_and(|it| it.up))
        };
        let addresses = addresses.into_iter().filter_map(|(address, claimants)| {
            let before = self.addresses.get(&address).copied();
            let spoke = spoke.get(&address).map(|path| path.link);
            let holder = first([before, spoke, up(&claimants)], &claimants)?;
            Some((address, holder))
        });
        let macs = macs.into_iter().filter_map(|(mac, claimants)| {
            let before = self.macs.get(&mac).copied();
            Some((mac, first([before, up(&claimants)], &claimants)?))
        });
        Self {
            addresses: addresses.collect(),
            macs: macs.collect(),
        }
    }
}

/// The first of the preferred that claims it, or any other claimant.
fn first<const N: usize>(preferred: [Option<u32>; N], claimants: &BTreeSet<u32>) -> Option<u32> {
    let mut preferred = preferred.into_iter().flatten();
    let claiming = preferred.find(|port| claimants.contains(port));
    claiming.or_else(|| claimants.first().copied())
}

type Claims<T> = BTreeMap<T, BTreeSet<u32>>;

/// The ports behind which interfaces hold each address and each MAC address, of those `ports`.
fn claims(observed: &Observed, ports: &BTreeSet<u32>) -> (Claims<Ipv4Addr>, Claims<Mac>) {
    let mut addresses = Claims::new();
    let mut macs = Claims::new();
    for &port in ports {
        let Some(interface) = inside(observed, port) else {
            continue;
        };
        let Some(mac) = interface.mac else { continue };
        macs.entry(mac).or_default().insert(port);
        for &address in &interface.addresses {
            addresses.entry(address).or_default().insert(port);
        }
    }
    (addresses, macs)
}

/// An address that more than one container holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contest {
    pub(crate) address: Ipv4Addr,
    /// Name of the port whose container has it.
    pub(crate) holder: String,
    /// Whether it has it by a call, and not because it was the first.
    pub(crate) by_call: bool,
    /// Names of the ports whose containers do not get it.
    pub(crate) others: Vec<String>,
}

impl Contest {
    /// Why the holder has it.
    pub(crate) fn reason(&self) -> &'static str {
        match self.by_call {
            true => "it was given it by a call",
            false => "it held it first",
        }
    }
}

/// The addresses of `subnet` that more than one container holds.
pub(crate) fn contests(
    observed: &Observed,
    bridge: u32,
    subnet: Ipv4Net,
    attached: &BTreeMap<Ipv4Addr, AttachedEndpoint>,
) -> Vec<Contest> {
    let holders = observed.holders.after(observed, bridge, attached);
    let (mut claims, _) = claims(observed, &deliverable_ports(observed, bridge));
    for (&address, endpoint) in attached {
        claims.entry(address).or_default().insert(endpoint.link);
    }
    let contested = claims
        .into_iter()
        .filter(|(address, claimants)| claimants.len() > 1 && may_hold(subnet, *address));
    contested
        .filter_map(|(address, mut claimants)| {
            let by_call = attached.get(&address).map(|endpoint| endpoint.link);
            let holder = by_call.or_else(|| holders.addresses.get(&address).copied())?;
            claimants.remove(&holder);
            Some(Contest {
                address,
                holder: observed.name_of(holder),
                by_call: by_call.is_some(),
                others: claimants
                    .into_iter()
                    .map(|port| observed.name_of(port))
                    .collect(),
            })
        })
        .collect()
}
