//! What heartbeats carry.

use std::{thread, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{fake_control_plane::FakeControlPlane, fake_runtime::FakeRuntime, process::Agent};

/// What was told last that is wrong, by code.
fn codes(control: &FakeControlPlane) -> Vec<String> {
    let findings = told(control)["data_plane"]["findings"].clone();
    let findings = findings.as_array().cloned().unwrap_or_default();
    let code = |it: &Value| it["code"].as_str().unwrap().to_owned();
    findings.iter().map(code).collect()
}

/// What the last heartbeat carried that carried something.
fn told(control: &FakeControlPlane) -> Value {
    control.state().told.clone()
}

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
    // What the agent finds itself is told all the same, once.
    let beat_on = |what: &str| {
        let beats = control.heartbeats();
        agent.until(what, || {
            control.heartbeats() >= beats + 5 && carried(&control)["overlay_mtu"].is_null()
        });
    };
    runtime.state().hangs = true;
    beat_on("beats beside a hanging runtime");
    runtime.state().hangs = false;
    let tells = || carried(&control)["overlay_mtu"] == 1450;
    agent.until("a payload again", tells);
    runtime.stop();
    beat_on("beats without a runtime");
    runtime.resume();
    agent.until("a payload again", tells);
}

#[test]
fn of_a_runtime_with_three_calls_that_alone_is_told_and_once() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::with_three_calls());
    control.add_peer(2);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("what the agent finds", || {
        codes(&control) == ["three-call-runtime"]
    });
    let last = told(&control);
    assert_eq!(last["data_plane"]["fast_path"], "unknown");
    assert!(last["peers"].is_null(), "{last}");
    let beats = control.heartbeats();
    agent.until("heartbeats", || control.heartbeats() >= beats + 3);
    assert!(carried(&control).is_null(), "it was told");
}

#[test]
fn what_the_agent_finds_is_told_when_it_changes_and_costs_no_heartbeat_otherwise() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.state().tokens = Some(0);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("a payload", || told(&control)["overlay_mtu"] == 1450);
    assert_eq!(codes(&control), [""; 0]);
    runtime.stop();
    agent.until("what is wrong", || codes(&control) == ["runtime-lost"]);
    let last = told(&control);
    assert_eq!(last["data_plane"]["fast_path"], "unknown");
    let finding = &last["data_plane"]["findings"][0];
    assert!(finding["since"].as_u64().unwrap() > 0);
    agent.until("how", || {
        let finding = told(&control)["data_plane"]["findings"][0].clone();
        let observed = finding["observed"].as_str().unwrap_or_default();
        observed.contains("no connection to the runtime")
    });
    // How it is lost may be another thing the next time it is called; then nothing changes any more.
    let counted = || agent.logged("the question counted as the heartbeat");
    let before = counted();
    agent.until("questions that count", || counted() >= before + 5);
    let (beats, before) = (control.heartbeats(), counted());
    agent.until("more of them", || counted() >= before + 10);
    assert_eq!(control.heartbeats(), beats, "{:#?}", agent.log());
    runtime.resume();
    agent.until("that it is over", || {
        told(&control)["overlay_mtu"] == 1450 && codes(&control).is_empty()
    });
}

#[test]
fn that_something_is_over_is_told_also_where_nothing_else_is_to_tell() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::with_three_calls());
    control.state().tokens = Some(0);
    control.add_peer(2);
    control.add_peer(3);
    control.set(3, "host_ip", "192.0.2.2");
    let agent = Agent::start(&control, &runtime, &[]);
    let both = ["address-of-two-nodes", "three-call-runtime"];
    agent.until("both", || codes(&control) == both);
    control.set(3, "host_ip", "192.0.2.3");
    agent.until("one of them", || codes(&control) == both[1..]);
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
    // That the runtime is lost was told.
    assert!(control.heartbeats() <= 1, "{:#?}", agent.log());
}
