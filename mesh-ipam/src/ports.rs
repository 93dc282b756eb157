//! Which ports of the host lead to which container.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use crate::{Lease, MAX_PUBLISHED, Protocol, Published};

/// Published ranges by their first port, each with the address of its container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ports(BTreeMap<(Protocol, u16), BTreeSet<(Published, Ipv4Addr)>>);

impl Ports {
    /// Adds what a lease's endpoint is published by.
    pub(crate) fn insert(&mut self, lease: &Lease) {
        for range in published(lease) {
            let same = self.0.entry((range.protocol, range.host_port)).or_default();
            same.insert((range.clone(), lease.address));
        }
    }

    /// Takes away what a lease's endpoint is published by.
    pub(crate) fn remove(&mut self, lease: &Lease) {
        for range in published(lease) {
            let key = (range.protocol, range.host_port);
            if let Some(same) = self.0.get_mut(&key) {
                same.remove(&(range.clone(), lease.address));
                if same.is_empty() {
                    self.0.remove(&key);
                }
            }
        }
    }

    /// The first of `ranges` that shares a port with one of another container than `own`, with that
    /// one and its container.
    pub(crate) fn conflict<'a>(
        &'a self,
        ranges: &'a [Published],
        own: Option<Ipv4Addr>,
    ) -> Option<(&'a Published, &'a Published, Ipv4Addr)> {
        ranges.iter().find_map(|range| {
            // None is longer than an endpoint may have ports, so that none which begins before
            // reaches into this one.
            let reach = u16::try_from(MAX_PUBLISHED - 1).unwrap_or(u16::MAX);
            let first = range.host_port.saturating_sub(reach);
            let last = range
                .host_port
                .saturating_add(range.count.saturating_sub(1));
            self.0
                .range((range.protocol, first)..=(range.protocol, last))
                .flat_map(|(_, same)| same)
                .find(|(other, address)| Some(*address) != own && other.overlaps(range))
                .map(|(other, address)| (range, other, *address))
        })
    }
}

fn published(lease: &Lease) -> &[Published] {
    lease
        .endpoint
        .as_ref()
        .map_or(&[], |endpoint| &endpoint.published)
}
