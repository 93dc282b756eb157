//! What heartbeats carry.

use serde_json::Value;

use crate::{fake_control_plane::FakeControlPlane, fake_runtime::FakeRuntime, process::Agent};

fn carried(control: &FakeControlPlane) -> Value {
    control.state().carried.clone().unwrap_or(Value::Null)
}

#[test]
fn a_heartbeat_carries_the_data_plane_s_state_and_the_traffic_by_peer() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("a peer's traffic", || {
        carried(&control)["peers"][0]["tx_bytes"] == 2
    });
    let heartbeat = carried(&control);
    assert_eq!(heartbeat["peers"][0]["subnet"], "10.42.2.0/24");
    assert_eq!(heartbeat["data_plane"]["version"], "0.0.0-fake");
    assert_eq!(heartbeat["data_plane"]["fast_path"], "unknown");
}

#[test]
fn a_heartbeat_waits_neither_for_a_runtime_that_hangs_nor_for_one_that_is_away() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = Agent::start(&control, &runtime, &["--request-timeout", "1h"]);
    agent.until("a payload", || !carried(&control).is_null());
    let beat_on = |what: &str| {
        let beats = control.heartbeats();
        agent.until(what, || {
            control.heartbeats() >= beats + 5 && carried(&control).is_null()
        });
    };
    runtime.state().hangs = true;
    beat_on("beats beside a hanging runtime");
    runtime.state().hangs = false;
    agent.until("a payload again", || !carried(&control).is_null());
    runtime.stop();
    beat_on("beats without a runtime");
    runtime.resume();
    agent.until("a payload again", || !carried(&control).is_null());
}

#[test]
fn a_runtime_with_three_calls_has_nothing_to_carry() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::with_three_calls());
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("heartbeats", || control.heartbeats() >= 3);
    assert!(carried(&control).is_null());
}

#[test]
fn a_heartbeat_carries_the_traffic_with_every_peer() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    (2..=240).for_each(|n| control.add_peer(n));
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("the traffic with 239 peers", || {
        carried(&control)["peers"].as_array().map_or(0, Vec::len) == 239
    });
}

#[test]
fn a_payload_that_is_refused_or_too_much_costs_no_heartbeat() {
    for (status, peers) in [(413, 2), (503, 240)] {
        let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
        (2..=peers).for_each(|n| control.add_peer(n));
        let agent = Agent::start(&control, &runtime, &[]);
        agent.until("all routes", || {
            runtime.routes().len() >= usize::from(peers) - 1
        });
        control.state().refuse_carried = Some(status);
        let beats = control.heartbeats();
        agent.until("heartbeats", || control.heartbeats() >= beats + 5);
        assert_eq!(
            agent.logged("does not take what the heartbeat carries"),
            1,
            "{:#?}",
            agent.log()
        );
        assert_eq!(control.registrations(), 1);
    }
}
