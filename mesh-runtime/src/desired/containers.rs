//! Where this node's containers are: for the programs, the packet filter and the bridge alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use super::{
    arrival,
    endpoints::{endpoints, macs},
};
use crate::{
    ebpf::{EndpointPath, Mac},
    observed::{Link, LinkKind, Observed},
    settings::Settings,
    wanted::{Wanted, endpoint::strict_ports},
};

/// The containers of a node, as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Containers {
    /// Index of the bridge; `None` while there is none, and so no container.
    pub(crate) bridge: Option<u32>,
    /// Their addresses, each with its port and MAC address.
    pub(crate) endpoints: BTreeMap<Ipv4Addr, EndpointPath>,
    /// Their MAC addresses, each with its port.
    pub(crate) macs: BTreeMap<Mac, u32>,
    /// Ports that may send from no others than what is registered.
    pub(crate) strict_ports: BTreeSet<u32>,
    /// Ports whose packets are left to the kernel path, because somebody shapes or polices them.
    pub(crate) shaped_ports: BTreeSet<u32>,
    /// Ports that are without a program of ours for now.
    pub(crate) left_free: BTreeSet<u32>,
    /// Ports whose packets no program of ours may see.
    pub(crate) bare_ports: BTreeSet<u32>,
    /// MAC addresses that the bridge is to look for behind their own ports alone. Otherwise it learns them
    /// wherever a frame says so, and sends there what is the container's: also behind a port that nobody guards yet.
    pub(crate) pins: BTreeMap<Mac, u32>,
    /// Ports that are to get their own frames back: where the host's packet filter sees what its bridges
    /// carry, a container that asks for its own published port is answered over the port that it came by.
    pub(crate) hairpins: BTreeSet<u32>,
}

impl Containers {
    /// The containers of a node with `subnet`.
    pub(super) fn new(
        settings: &Settings,
        wanted: &Wanted,
        observed: &Observed,
        subnet: Ipv4Net,
    ) -> Self {
        let bridge = observed
            .link_named(&settings.bridge)
            .filter(|link| link.kind == LinkKind::Bridge);
        let Some(bridge) = bridge else {
            return Self::default();
        };
        let endpoints = endpoints(observed, bridge.index, subnet, &wanted.endpoints);
        let macs = macs(observed, bridge.index, &wanted.endpoints);
        let strict = strict_ports(&wanted.endpoints);
        // What this host itself is known by is no container's, whatever one gives its interface; but what lies here for
        // its engine to move is the container's already.
        let is_handed_over = |link: &Link| link.near_end.is_some_and(|end| strict.contains(&end));
        let hosts = observed.links.values();
        let hosts: BTreeSet<Mac> = hosts
            .filter(|&link| !is_handed_over(link))
            .filter_map(|link| link.mac)
            .collect();
        let mut pins = macs.clone();
        pins.retain(|mac, _| !hosts.contains(mac));
        let published = wanted.published.iter();
        let hairpins = published
            .filter_map(|(address, _)| endpoints.get(address))
            .map(|path| path.link)
            .collect();
        Self {
            bridge: Some(bridge.index),
            strict_ports: strict,
            shaped_ports: observed
                .ports_of(bridge.index)
                .map(|port| port.index)
                .filter(|port| observed.shaping.shaped.contains(port))
                .collect(),
            left_free: arrival::left_free(observed, bridge.index),
            bare_ports: arrival::bare(observed, bridge.index),
            endpoints,
            macs,
            pins,
            hairpins,
        }
    }
}
