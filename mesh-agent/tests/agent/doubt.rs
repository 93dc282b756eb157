//! `down` is a hint, not proof.

use crate::{
    fake_control_plane::FakeControlPlane,
    fake_runtime::{Call, FakeRuntime, subnet},
    peers::{removals, settled},
    process::Agent,
};

fn suspects(runtime: &FakeRuntime) -> Vec<String> {
    let calls = runtime.calls_since(0);
    let last = calls.iter().rev().find_map(|call| match call {
        Call::Sync { suspects, .. } => Some(suspects.clone()),
        _ => None,
    });
    last.unwrap_or_default()
}

#[test]
fn a_peer_that_is_down_and_heard_is_kept_as_a_suspect_until_it_is_up_or_silent() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    runtime.state().alive.insert(subnet(2));
    control.set(2, "status", "down");
    agent.until("a suspect", || suspects(&runtime) == [subnet(2)]);
    let probes = runtime.state().probes;
    agent.until("it is asked again and again", || {
        runtime.state().probes >= probes + 5
    });
    assert_eq!(agent.logged("peer suspect"), 1, "{:#?}", agent.log());
    assert_eq!(removals(&runtime), []);

    control.set(2, "status", "up");
    agent.until("no suspect", || suspects(&runtime).is_empty());
    agent.until_logged("peer confirmed");
    control.set(2, "status", "down");
    agent.until("a suspect again", || suspects(&runtime) == [subnet(2)]);
    runtime.state().alive.clear();
    agent.until("its end", || {
        runtime.routes() == [3] && runtime.peers() == [3]
    });
    assert_eq!(removals(&runtime), [Call::Remove(subnet(2))]);
    assert_eq!(runtime.state().violations, [""; 0]);
}

#[test]
fn a_dead_peer_is_asked_as_often_as_told_before_it_leaves() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &["--probe-attempts", "4"]);
    control.set(2, "status", "down");
    agent.until("its end", || runtime.routes() == [3]);
    assert_eq!(runtime.state().probes, 4);
}

#[test]
fn a_control_plane_that_calls_everybody_down_removes_nobody_who_is_heard() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    for n in 4..=20 {
        control.add_peer(n);
    }
    agent.until("all routes", || runtime.routes().len() == 19);
    runtime.state().alive.extend((2..=19).map(subnet));
    for n in 2..=20 {
        control.set(n, "status", "down");
    }
    agent.until("the dead one leaves", || runtime.routes().len() == 18);
    agent.until("the others are suspect", || suspects(&runtime).len() == 18);
    assert_eq!(removals(&runtime), [Call::Remove(subnet(20))]);
}

#[test]
fn a_runtime_that_cannot_tell_leaves_the_control_plane_the_last_word() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    runtime.state().serves_probe = false;
    let agent = settled(&control, &runtime, &[]);
    control.set(2, "status", "down");
    agent.until("its end", || {
        runtime.routes() == [3] && runtime.peers() == [3]
    });
}

#[test]
fn nobody_is_given_up_while_the_runtime_is_away() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    runtime.stop();
    agent.until_logged("runtime lost");
    control.set(2, "status", "down");
    control.set(3, "status", "down");
    agent.until("two doubts", || agent.logged("peer in doubt") == 2);
    runtime.state().alive.insert(subnet(2));
    runtime.resume();
    agent.until("a suspect", || suspects(&runtime) == [subnet(2)]);
    agent.until("an end", || runtime.routes() == [2]);
    assert_eq!(removals(&runtime), [Call::Remove(subnet(3))]);
}

#[test]
fn a_wiped_control_plane_removes_nobody_who_is_heard_however_long_it_takes() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &["--absent-peer-grace", "300ms"]);
    runtime.state().alive.insert(subnet(2));
    control.wipe();
    agent.until("who is silent leaves after the grace", || {
        runtime.routes() == [2]
    });
    let probes = runtime.state().probes;
    agent.until("it is asked again and again", || {
        runtime.state().probes >= probes + 10
    });
    assert_eq!(removals(&runtime), [Call::Remove(subnet(3))]);

    // Somebody else registers, and gets the subnet.
    control.add_peer(9);
    control.set(9, "subnet", subnet(2));
    agent.until_logged("peer replaced");
    agent.until("no suspect", || suspects(&runtime).is_empty());
}

#[test]
fn an_agent_restarted_next_to_a_wiped_control_plane_drops_nobody() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    runtime.state().alive.extend([subnet(2), subnet(3)]);
    drop(agent);
    control.wipe();
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("two suspects", || suspects(&runtime).len() == 2);
    assert_eq!(
        (runtime.peers(), runtime.routes()),
        (vec![2, 3], vec![2, 3])
    );
    control.add_peer(2);
    agent.until("a suspect less", || suspects(&runtime) == [subnet(3)]);
    assert_eq!(removals(&runtime), []);
    assert_eq!(runtime.state().violations, [""; 0]);
}
