//! Hosts out of network namespaces, connected by wires.

use std::{net::Ipv4Addr, path::Path};

use mesh_testbed::NetNs;

use crate::{
    fake_control_plane::{FakeControlPlane, server},
    fake_runtime::{Call, FakeRuntime},
    process::{Agent, BINARY},
    resolver::Resolver,
};

pub(crate) struct Host(pub(crate) NetNs);

impl Host {
    /// One with nothing but its loopback device.
    pub(crate) fn bare(label: &str) -> Self {
        // The fakes block on runtimes of their own, so the tests run on none.
        Self(server().block_on(NetNs::new(label)).unwrap())
    }

    /// Connects two hosts, by a device of this name at each; both ends are down.
    pub(crate) fn wire(&self, name: &str, other: &Self, other_name: &str) {
        let netns = other.0.name();
        self.ip(&format!(
            "link add {name} type veth peer name {other_name} netns {netns}"
        ));
    }

    /// A device that is up, and leads nowhere.
    #[track_caller]
    pub(crate) fn nic(&self, name: &str) {
        let end = format!("{name}-end");
        self.ip(&format!("link add {name} type veth peer name {end}"));
        self.ip(&format!("link set {name} up"));
        self.ip(&format!("link set {end} up"));
    }

    #[track_caller]
    pub(crate) fn ip(&self, words: &str) {
        let status = self
            .0
            .command("ip")
            .args(words.split(' '))
            .status()
            .unwrap();
        assert!(status.success(), "ip {words}");
    }

    pub(crate) fn control_plane(&self, address: Ipv4Addr) -> FakeControlPlane {
        self.0.run(|| FakeControlPlane::at(address)).unwrap()
    }

    pub(crate) fn runtime(&self) -> FakeRuntime {
        self.0.run(FakeRuntime::start).unwrap()
    }

    /// An agent without --host-ip.
    pub(crate) fn agent(
        &self,
        control: &str,
        runtime: &FakeRuntime,
        state: &Path,
        arguments: &[&str],
    ) -> Agent {
        let command = self.0.command(BINARY);
        let mut command = Agent::options_at(command, control, runtime, state);
        command.args(arguments);
        Agent::spawn(command)
    }

    /// An agent that resolves names with this resolver, which is of this host.
    pub(crate) fn agent_with_names(
        &self,
        resolver: &Resolver,
        control: &str,
        runtime: &FakeRuntime,
        state: &Path,
    ) -> Agent {
        let command = self.0.command(BINARY);
        let mut command = Agent::options_at(command, control, runtime, state);
        resolver.serve_alone(&mut command);
        Agent::spawn(command)
    }
}

/// The node's address in each call that told one, without repetitions.
pub(crate) fn addresses(runtime: &FakeRuntime) -> Vec<String> {
    let calls = runtime.calls_since(0).into_iter();
    let mut addresses: Vec<_> = calls
        .filter_map(|call| match call {
            Call::Sync { host_address, .. } => Some(host_address),
            _ => None,
        })
        .collect();
    addresses.dedup();
    addresses
}

/// The address of each registration, in order.
pub(crate) fn registered(control: &FakeControlPlane) -> Vec<String> {
    let registrations = control.state().registrations.clone();
    let address =
        |registration: &serde_json::Value| registration["host_ip"].as_str().unwrap().to_owned();
    registrations.iter().map(address).collect()
}

pub(crate) fn port(control: &FakeControlPlane) -> u16 {
    control.url().rsplit(':').next().unwrap().parse().unwrap()
}
