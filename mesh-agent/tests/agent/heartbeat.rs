//! What heartbeats carry.

use std::{thread, time::Duration};

use nix::sys::signal::Signal;
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

/// Its question was asked right after the heartbeat before. By then that is longer ago than an interval.
#[test]
fn a_question_counts_as_the_heartbeat_also_where_the_agent_was_held_up_when_that_was_due() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.state().tokens = Some(0);
    // There is no runtime that would tell anything.
    runtime.stop();
    let interval = Duration::from_secs(1);
    let mut arguments = vec!["--heartbeat-interval", "1s", "--sync-interval", "5s"];
    arguments.extend(["--request-timeout", "10s"]);
    let agent = Agent::start(&control, &runtime, &arguments);
    let counted = || agent.logged("the question counted as the heartbeat");
    agent.until("a question that counted", || counted() > 0);
    for _ in 0..2 {
        let asked = control.lists();
        agent.until("the next question", || control.lists() > asked);
        agent.signal(Signal::SIGSTOP);
        thread::sleep(interval * 3 / 2);
        agent.signal(Signal::SIGCONT);
    }
    let before = counted();
    agent.until("the ones after", || counted() > before + 1);
    assert_eq!(control.heartbeats(), 0, "{:#?}", agent.log());
}
