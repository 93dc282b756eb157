//! What the kernel of a host shows of the mesh, read without the runtime's help.
//!
//! Everything is a line of text that names no interface index and no counter, so that a
//! device that was deleted and made again compares equal, and a difference reads like
//! `ip` and `bpftool` print it.

mod fast_path;
mod network;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::Context as _;
use mesh_testbed::{BRIDGE, Entrance, Host};
use rtnetlink::Handle;

pub(crate) use fast_path::{empty, entries};

/// The overlay device.
pub(crate) const OVERLAY: &str = "vxlan100";
/// The interface on the underlay.
pub(crate) const UNDERLAY: &str = "eth0";
/// The sysctls that the mesh cannot do without, or has to cope with.
const SYSCTLS: [&str; 1] = ["net/ipv4/ip_forward"];

/// What a host's kernel shows, a line for each fact.
pub(crate) type HostState = BTreeSet<String>;

/// Reads one host's state again and again.
pub(crate) struct Observer {
    entrance: Entrance,
    netlink: Handle,
    pins: PathBuf,
}

impl Observer {
    pub(crate) fn of(host: &Host) -> anyhow::Result<Self> {
        Ok(Self {
            entrance: host.netns().entrance(),
            netlink: host.netns().netlink()?,
            pins: host.bpffs_dir().join("quilt-mesh"),
        })
    }

    /// Everything: devices, addresses, routes, forwarding entries, neighbours, sysctls,
    /// attached programs, pins, and the maps' entries.
    pub(crate) async fn observe(&self) -> anyhow::Result<HostState> {
        let mut state = HostState::new();
        let names = network::observe(&self.netlink, &mut state)
            .await
            .context("cannot read the kernel's network state")?;
        self.sysctls(&mut state)?;
        fast_path::programs(&self.entrance, &names, &mut state)?;
        fast_path::pins(&self.pins, &mut state)?;
        fast_path::maps(&self.pins, &names, &mut state);
        Ok(state)
    }

    fn sysctls(&self, state: &mut HostState) -> anyhow::Result<()> {
        let values = self.entrance.run(|| {
            SYSCTLS.map(|key| {
                let path = std::path::Path::new("/proc/sys").join(key);
                std::fs::read_to_string(path).map(|value| format!("{key} = {}", value.trim()))
            })
        })?;
        for value in values {
            state.insert(value.context("cannot read a sysctl")?);
        }
        Ok(())
    }
}

/// Names of the host's interfaces by index, and which of them are ports of our bridge.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    names: BTreeMap<u32, String>,
    ports: BTreeSet<String>,
}

impl Interfaces {
    fn name(&self, index: u32) -> &str {
        self.names.get(&index).map_or("(gone)", String::as_str)
    }

    /// Those on which programs of ours may be.
    fn attachable(&self) -> impl Iterator<Item = &str> {
        self.names
            .values()
            .map(String::as_str)
            .filter(|name| [OVERLAY, UNDERLAY, BRIDGE].contains(name) || self.ports.contains(*name))
    }
}

/// What is missing and what is too much, one line each; empty when both are equal.
pub(crate) fn difference(wanted: &HostState, seen: &HostState) -> Vec<String> {
    let missing = wanted
        .difference(seen)
        .map(|fact| format!("missing: {fact}"));
    let surplus = seen
        .difference(wanted)
        .map(|fact| format!("surplus: {fact}"));
    missing.chain(surplus).collect()
}

/// The first few of many differences, in one line.
pub(crate) fn summary(differences: &[String]) -> String {
    const SOME: usize = 4;
    let mut text = differences[..differences.len().min(SOME)].join("; ");
    if differences.len() > SOME {
        text += &format!("; and {} more", differences.len() - SOME);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_is_missing_and_what_is_too_much() {
        let state = |facts: &[&str]| facts.iter().map(|fact| (*fact).to_owned()).collect();
        let (before, after): (HostState, HostState) = (state(&["a", "b"]), state(&["b", "c"]));
        assert_eq!(difference(&before, &after), ["missing: a", "surplus: c"]);
        assert_eq!(difference(&before, &before), [""; 0]);
    }
}
