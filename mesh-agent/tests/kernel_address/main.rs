//! Where the agent's address comes from, and what it does when it changes or is not there: the real agent in a network
//! namespace, against a fake control plane and a fake runtime. Needs root.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy.toml allows it in test functions, not in what they call"
)]
#![allow(dead_code, reason = "the fakes serve other tests as well")]

#[path = "../agent/control.rs"]
mod control;
#[path = "../agent/fake_control_plane/mod.rs"]
mod fake_control_plane;
#[path = "../agent/fake_runtime/mod.rs"]
mod fake_runtime;
#[path = "../agent/process.rs"]
mod process;
#[path = "../agent/wait.rs"]
mod wait;

mod host;
mod resolver;
mod several_addresses;
mod start;
mod virtual_address;

use std::{net::Ipv4Addr, ops::Deref, path::Path};

use control::Control;
use fake_control_plane::FakeControlPlane;
use fake_runtime::{Call, FakeRuntime};
use host::Host;
use process::Agent;

/// The control plane's address: in the same namespace, which is enough for a route with a
/// source address.
const CONTROL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// A host that has the control plane as well.
struct Alone(Host);

impl Deref for Alone {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.0
    }
}

impl Alone {
    fn new() -> Self {
        let host = Self(Host::bare("address"));
        host.ip(&format!("address add {CONTROL}/32 dev lo"));
        host.ip("address add 192.0.2.7/32 dev lo");
        host.leave_from("192.0.2.7");
        host
    }

    /// Makes this the source address towards the control plane.
    #[track_caller]
    fn leave_from(&self, source: &str) {
        self.ip(&format!(
            "route replace local {CONTROL} dev lo table local proto kernel scope host src {source}"
        ));
    }

    /// The old address goes, and another one comes.
    fn renumber(&self, from: &str, to: &str) {
        self.ip(&format!("address add {to}/32 dev lo"));
        self.leave_from(to);
        self.ip(&format!("address del {from}/32 dev lo"));
    }

    fn daemons(&self) -> (FakeControlPlane, FakeRuntime) {
        (self.control_plane(CONTROL), self.runtime())
    }

    fn agent(
        &self,
        control: &FakeControlPlane,
        runtime: &FakeRuntime,
        state: &Path,
        arguments: &[&str],
    ) -> Agent {
        self.0.agent(&control.url(), runtime, state, arguments)
    }
}

fn last_address(runtime: &FakeRuntime) -> String {
    let calls = runtime.calls_since(0);
    let last = calls.iter().rev().find_map(|call| match call {
        Call::Sync { host_address, .. } => Some(host_address.clone()),
        _ => None,
    });
    last.unwrap_or_default()
}

#[test]
fn a_node_whose_address_changes_registers_it_and_tells_the_runtime() {
    let host = Alone::new();
    let (control, runtime) = host.daemons();
    control.add_peer(2);
    let state = tempfile::tempdir().unwrap();
    // Neither an interval nor a deadline helps: what happens, happens because of the change.
    // The heartbeat leaves a connection that waits for further use.
    let patient = [
        "--sync-interval",
        "50s",
        "--heartbeat-interval",
        "3s",
        "--request-timeout",
        "50s",
    ];
    let agent = host.agent(&control, &runtime, state.path(), &patient);
    agent.until("a sync", || last_address(&runtime) == "192.0.2.7");
    agent.until("the route", || runtime.routes() == [2]);
    let beats = control.heartbeats();
    agent.until("a heartbeat", || control.heartbeats() > beats);

    host.renumber("192.0.2.7", "192.0.2.8");
    agent.until("a sync from the new address", || {
        last_address(&runtime) == "192.0.2.8"
    });
    agent.until("another registration", || control.registrations() == 2);
    let registrations = control.state().registrations.clone();
    assert_eq!(registrations[0]["host_ip"], "192.0.2.7");
    assert_eq!(registrations[1]["host_ip"], "192.0.2.8");
    assert_eq!(registrations[0]["node_key"], registrations[1]["node_key"]);

    control.add_peer(3);
    agent.until("the feed goes on", || runtime.routes() == [2, 3]);
    assert_eq!(agent.logged("address changed"), 1, "{:#?}", agent.log());
    let calls = runtime.calls_since(0);
    assert!(!calls.iter().any(|call| matches!(call, Call::Remove(_))));
    let configured = calls.iter().filter(|c| matches!(c, Call::Configure(_)));
    assert_eq!(configured.count(), 1, "the subnet stays");
}

#[test]
fn a_node_whose_address_changes_while_its_question_waits_is_no_copy_of_itself() {
    let host = Alone::new();
    let runtime = host.runtime();
    let [state, database] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // Whatever would end with a node timeout or a heartbeat does not help.
    let control = host
        .0
        .0
        .run(|| Control::start_at(CONTROL.into(), database.path(), None, "90s"))
        .unwrap();
    let url = format!("http://{CONTROL}:{}", control.port);
    let patient = ["--sync-interval", "50s", "--request-timeout", "50s"];
    let agent = host.0.agent(&url, &runtime, state.path(), &patient);
    agent.until("a sync", || last_address(&runtime) == "192.0.2.7");
    for (from, to) in [("192.0.2.7", "192.0.2.8"), ("192.0.2.8", "192.0.2.7")] {
        let before = agent.logged("registered node_id");
        host.renumber(from, to);
        agent.until("another registration", || {
            agent.logged("registered node_id") > before
        });
        agent.until("a sync from there", || last_address(&runtime) == to);
    }
    assert_eq!(agent.logged("copy"), 0, "{:#?}", agent.log());
    assert_eq!(agent.logged("registered node_id"), 3, "{:#?}", agent.log());
}

#[test]
fn an_address_given_by_the_operator_does_not_change() {
    let host = Alone::new();
    let (control, runtime) = host.daemons();
    control.add_peer(2);
    let state = tempfile::tempdir().unwrap();
    let given = ["--host-ip", "192.0.2.7"];
    let agent = host.agent(&control, &runtime, state.path(), &given);
    agent.until("the route", || runtime.routes() == [2]);
    host.ip("address add 192.0.2.8/32 dev lo");
    host.leave_from("192.0.2.8");
    let beats = control.heartbeats();
    agent.until("heartbeats", || control.heartbeats() >= beats + 20);
    assert_eq!(last_address(&runtime), "192.0.2.7");
    assert_eq!(control.registrations(), 1);
}

#[test]
fn a_host_without_a_route_keeps_its_address() {
    let host = Alone::new();
    let (control, runtime) = host.daemons();
    control.add_peer(2);
    let state = tempfile::tempdir().unwrap();
    let agent = host.agent(&control, &runtime, state.path(), &[]);
    agent.until("the route", || runtime.routes() == [2]);
    host.ip(&format!("route del local {CONTROL} dev lo table local"));
    host.ip(&format!("address del {CONTROL}/32 dev lo"));
    agent.until_logged("cannot look up this node's address");
    let mark = runtime.calls();
    agent.until("syncs go on", || runtime.syncs_since(mark, 1) >= 3);
    assert_eq!(last_address(&runtime), "192.0.2.7");
}
