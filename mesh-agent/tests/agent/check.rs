//! What an agent does when the control plane has all nodes checked.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{fake_control_plane::FakeControlPlane, fake_runtime::FakeRuntime, process::Agent};

/// Between the beginnings of two checks at least, as the agent has it.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(5);

fn name(control: &FakeControlPlane, id: &str) {
    control.this_replica().check = Some(id.to_owned());
}

/// What was answered to a check.
fn answer(control: &FakeControlPlane, id: &str) -> Option<serde_json::Value> {
    let checks = control.state().checks.clone();
    checks.into_iter().find(|check| check["id"] == id)
}

#[test]
fn a_check_has_the_runtime_ask_its_peers_once_and_the_answer_goes_with_a_heartbeat() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    // Heartbeats that are due come too late for this.
    let agent = Agent::start(&control, &runtime, &["--heartbeat-interval", "1h"]);
    agent.until("a peer", || !runtime.state().entries.is_empty());
    name(&control, "one");
    // Something that is answered.
    control.add_peer(3);
    agent.until("an answer", || answer(&control, "one").is_some());
    let told = answer(&control, "one").unwrap();
    assert_eq!(told["peers"][0]["subnet"], "10.42.2.0/24", "{told}");
    assert!(told["error"].is_null(), "{told}");
    assert_eq!(runtime.state().checks, 1);
    // It is named again with everything that is answered.
    control.add_peer(4);
    agent.until("a third peer", || runtime.state().entries.len() == 3);
    assert_eq!(runtime.state().checks, 1);
    assert_eq!(control.state().checks.len(), 1);
}

#[test]
fn however_many_checks_are_named_the_runtime_is_asked_every_few_seconds_at_most() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("a heartbeat", || control.heartbeats() > 0);
    let begun = Instant::now();
    for number in 0..200 {
        name(&control, &format!("check-{number}"));
        thread::sleep(Duration::from_millis(10));
    }
    agent.until("an answer to the last", || {
        answer(&control, "check-199").is_some()
    });
    let asked = runtime.state().checks;
    // The first at once, then one an interval: however slow the machine, there cannot be more.
    let most = 1 + begun.elapsed().as_millis() / SHORTEST_INTERVAL.as_millis();
    assert!(
        asked >= 1 && asked as u128 <= most,
        "{asked}, {most} at most"
    );
}

#[test]
fn that_there_is_no_runtime_or_one_of_an_earlier_version_is_an_answer_as_well() {
    for (id, runtime) in [
        ("down", {
            let mut runtime = FakeRuntime::start();
            runtime.stop();
            runtime
        }),
        ("old", FakeRuntime::with_three_calls()),
    ] {
        let control = FakeControlPlane::start();
        let agent = Agent::start(&control, &runtime, &[]);
        agent.until("a heartbeat", || control.heartbeats() > 0);
        name(&control, id);
        agent.until("an answer", || answer(&control, id).is_some());
        let told = answer(&control, id).unwrap();
        let error = told["error"].as_str().unwrap();
        let expected = match id {
            "down" => "no connection to the runtime",
            _ => "the runtime does not serve it",
        };
        assert!(error.contains(expected), "{error}");
    }
}
