//! The control plane's address is one of this host's own, for good or for as long as it is not moved to another.

use std::net::{Ipv4Addr, SocketAddr};

use crate::{
    fake_control_plane::FakeControlPlane,
    fake_runtime::{Call, FakeRuntime},
    host::{Host, addresses, port, registered},
    process::Agent,
};

const VIRTUAL: &str = "192.0.2.100";

/// Two nodes on one wire, with a replica of the control plane on each.
struct Pair {
    hosts: [Host; 2],
    controls: [FakeControlPlane; 2],
    runtimes: [FakeRuntime; 2],
}

impl Pair {
    fn new() -> Self {
        let hosts = [Host::bare("one"), Host::bare("two")];
        hosts[0].wire("eth0", &hosts[1], "eth0");
        for (host, address) in hosts.iter().zip(["192.0.2.11/24", "192.0.2.12/24"]) {
            host.ip(&format!("address add {address} dev eth0"));
            host.ip("link set eth0 up");
        }
        let first = hosts[0].control_plane(Ipv4Addr::UNSPECIFIED);
        let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port(&first)));
        let second = hosts[1].0.run(|| first.replica_at(everywhere)).unwrap();
        let runtimes = [hosts[0].runtime(), hosts[1].runtime()];
        Self {
            hosts,
            controls: [first, second],
            runtimes,
        }
    }

    fn agent(&self, n: usize, state: &std::path::Path) -> Agent {
        let url = format!("http://{VIRTUAL}:{}", port(&self.controls[0]));
        self.hosts[n].agent(&url, &self.runtimes[n], state, &[])
    }
}

#[test]
fn a_node_never_takes_the_control_plane_s_virtual_address_and_a_failover_changes_nothing() {
    for (prefix, device) in [(32, "eth0"), (24, "eth0"), (32, "lo")] {
        let pair = Pair::new();
        let control = &pair.controls[0];
        let place = |verb, n: usize| {
            pair.hosts[n].ip(&format!("address {verb} {VIRTUAL}/{prefix} dev {device}"));
        };
        place("add", 0);
        let states = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        control.add_peer(20);
        let mut agents = Vec::new();
        for (n, state) in states.iter().enumerate() {
            // The fake leases each newcomer the subnet that it is told.
            control.state().lease = u8::try_from(n).unwrap() + 1;
            let agent = pair.agent(n, state.path());
            agent.until("the registration", || control.registrations() == n + 1);
            agents.push(agent);
        }
        let with = |third: u8| [vec![2, third], vec![1, third]];
        let all_have = |routes: &[Vec<u8>; 2], what: &str| {
            for (n, agent) in agents.iter().enumerate() {
                agent.until(what, || {
                    routes[n]
                        .iter()
                        .all(|route| pair.runtimes[n].routes().contains(route))
                });
            }
        };
        all_have(&with(20), "the routes");
        let own = ["192.0.2.11", "192.0.2.12"];
        assert_eq!(registered(control), own, "/{prefix} on {device}");

        for moved in 0..4 {
            let (from, to) = (moved % 2, (moved + 1) % 2);
            place("del", from);
            place("add", to);
            // Both hear of what happens from then on, and are heard of.
            let third = 30 + u8::try_from(moved).unwrap();
            control.add_peer(third);
            all_have(&with(third), "what is new after a failover");
            let beats = control.heartbeats();
            agents[0].until("heartbeats", || control.heartbeats() >= beats + 10);
        }
        assert_eq!(registered(control), own, "/{prefix} on {device}");
        for (runtime, own) in pair.runtimes.iter().zip(own) {
            assert_eq!(addresses(runtime), [own], "/{prefix} on {device}");
            let calls = runtime.calls_since(0);
            assert!(!calls.iter().any(|call| matches!(call, Call::Remove(_))));
        }

        // A new start beside it finds the same.
        drop(agents);
        for (n, state) in states.iter().enumerate() {
            let before = control.registrations();
            let agent = pair.agent(n, state.path());
            agent.until("the registration", || control.registrations() > before);
        }
        assert_eq!(registered(control), [own, own].concat());
    }
}

#[test]
fn where_the_node_s_address_cannot_be_told_the_agent_waits_and_names_the_option() {
    let host = Host::bare("node");
    host.ip(&format!("address add {VIRTUAL}/32 dev lo"));
    host.nic("docker0");
    host.ip("address add 172.17.0.1/16 dev docker0");
    let (control, runtime) = (host.control_plane(VIRTUAL.parse().unwrap()), host.runtime());
    control.add_peer(2);
    let state = tempfile::tempdir().unwrap();
    let agent = host.agent(&control.url(), &runtime, state.path(), &[]);
    agent.until_logged("--host-ip");
    agent.until_logged("192.0.2.100 is one of this host's own");
    assert_eq!(control.registrations(), 0);
    // The NIC is configured later.
    host.nic("eth0");
    host.ip("address add 192.0.2.11/24 dev eth0");
    agent.until("the route", || runtime.routes() == [2]);
    assert_eq!(registered(&control), ["192.0.2.11"]);
    assert_eq!(agent.logged("--host-ip"), 1, "{:#?}", agent.log());
}

#[test]
fn a_control_plane_at_the_host_s_own_address_makes_it_the_node_s() {
    for (control_plane, more) in [
        ("127.0.0.1", None),
        ("192.0.2.11", None),
        ("192.0.2.11", Some("198.51.100.11/24")),
    ] {
        let host = Host::bare("node");
        host.nic("eth0");
        host.ip("address add 192.0.2.11/24 dev eth0");
        if let Some(more) = more {
            host.nic("eth1");
            host.ip(&format!("address add {more} dev eth1"));
            host.ip("route add default dev eth1");
        }
        let control = host.control_plane(control_plane.parse().unwrap());
        let runtime = host.runtime();
        control.add_peer(2);
        let state = tempfile::tempdir().unwrap();
        let agent = host.agent(&control.url(), &runtime, state.path(), &[]);
        agent.until("the route", || runtime.routes() == [2]);
        assert_eq!(registered(&control), [control_plane]);
        let loopback = usize::from(control_plane == "127.0.0.1");
        assert_eq!(agent.logged("other hosts cannot reach this node"), loopback);
    }
}
