//! A peer that deregisters is gone for good, or its agent is being restarted.

use crate::{
    fake_control_plane::FakeControlPlane,
    fake_runtime::{Call, FakeRuntime, subnet},
    peers::{removals, settled},
};

const LONG: [&str; 2] = ["--departure-grace", "1h"];

#[test]
fn a_peer_that_deregisters_and_returns_keeps_everything() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &LONG);
    runtime.state().alive.insert(subnet(2));
    let mark = runtime.calls();
    control.leave(2);
    agent.until("it is asked again and again", || {
        runtime.state().probes >= 5
    });
    control.come_back(2);
    agent.until_logged("peer confirmed again");
    agent.until("syncs go on", || runtime.syncs_since(mark, 2) >= 3);
    let undisturbed = |call: &Call| match call {
        Call::Sync {
            peers, suspects, ..
        } => peers.len() == 2 && suspects.is_empty(),
        _ => false,
    };
    let calls = runtime.calls_since(mark);
    assert!(calls.iter().all(undisturbed), "{calls:?}");
    assert_eq!(agent.logged("peer left; kept"), 1, "{:#?}", agent.log());
    assert_eq!(agent.logged("peer suspect"), 0, "{:#?}", agent.log());
}

#[test]
fn a_peer_that_deregistered_and_is_heard_leaves_after_the_grace() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    // Only the end of the grace makes this agent ask before an hour is over.
    let quick = ["--sync-interval", "1h", "--departure-grace", "300ms"];
    let agent = settled(&control, &runtime, &quick);
    runtime.state().alive.insert(subnet(2));
    control.leave(2);
    agent.until("its end", || {
        runtime.routes() == [3] && runtime.peers() == [3]
    });
    assert_eq!(agent.logged("peer left; kept"), 1, "{:#?}", agent.log());
    assert_eq!(runtime.state().violations, [""; 0]);
    control.come_back(2);
    agent.until("its return", || runtime.routes() == [2, 3]);
}

#[test]
fn a_control_plane_that_is_gone_does_not_end_a_departure() {
    let (mut control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &["--departure-grace", "2s"]);
    runtime.state().alive.insert(subnet(2));
    control.leave(2);
    agent.until_logged("peer left; kept");
    control.stop();
    control.come_back(2);
    agent.until_logged("no node list");
    // Well beyond the grace: a probe each 100 ms.
    let probes = runtime.state().probes;
    agent.until("time passes", || runtime.state().probes >= probes + 40);
    assert_eq!(removals(&runtime), []);
    control.resume();
    agent.until_logged("peer confirmed again");
    assert_eq!(removals(&runtime), []);
}

#[test]
fn a_peer_that_deregistered_and_is_dead_leaves_at_once() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &LONG);
    control.leave(2);
    agent.until("its end", || {
        runtime.routes() == [3] && runtime.peers() == [3]
    });
    assert_eq!(removals(&runtime), [Call::Remove(subnet(2))]);
    assert_eq!(runtime.state().violations, [""; 0]);
}

#[test]
fn a_peer_that_deregistered_leaves_at_once_if_the_runtime_cannot_tell_or_there_is_no_grace() {
    for (serves_probe, arguments) in [(false, LONG), (true, ["--departure-grace", "0s"])] {
        let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
        runtime.state().serves_probe = serves_probe;
        let agent = settled(&control, &runtime, &arguments);
        runtime.state().alive.insert(subnet(2));
        control.leave(2);
        agent.until("its end", || {
            runtime.routes() == [3] && runtime.peers() == [3]
        });
        assert_eq!(runtime.state().probes, 0);
    }
}
