//! A peer whose agent stops, perhaps to start again, or that leaves for good.

use crate::{
    fake_control_plane::FakeControlPlane,
    fake_runtime::{Call, FakeRuntime, subnet},
    peers::{removals, settled},
};

#[test]
fn a_peer_whose_agent_stops_and_returns_keeps_everything() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    runtime.state().alive.insert(subnet(2));
    let mark = runtime.calls();
    control.stop_agent(2);
    // A probe each 100 ms: it stays for as long as it is heard.
    agent.until("it is asked again and again", || {
        runtime.state().probes >= 40
    });
    control.come_back(2);
    agent.until_logged("peer confirmed again");
    agent.until("syncs go on", || runtime.syncs_since(mark, 2) >= 3);
    let undisturbed = |call: &Call| match call {
        Call::Sync { peers, .. } => peers.len() == 2,
        _ => false,
    };
    let calls = runtime.calls_since(mark);
    assert!(calls.iter().all(undisturbed), "{calls:?}");
    assert_eq!(agent.logged("peer suspect"), 1, "{:#?}", agent.log());
}

#[test]
fn a_peer_whose_agent_was_stopped_and_that_is_dead_is_taken_out() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    control.stop_agent(2);
    agent.until("its end", || {
        runtime.routes() == [3] && runtime.peers() == [3]
    });
    assert_eq!(removals(&runtime), [Call::Remove(subnet(2))]);
    assert_eq!(runtime.state().violations, [""; 0]);
}

#[test]
fn a_peer_whose_agent_was_stopped_is_taken_out_if_the_runtime_cannot_tell() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    runtime.state().serves_probe = false;
    let agent = settled(&control, &runtime, &[]);
    control.stop_agent(2);
    agent.until("its end", || {
        runtime.routes() == [3] && runtime.peers() == [3]
    });
    assert_eq!(runtime.state().probes, 0);
}

#[test]
fn a_peer_that_left_for_good_is_taken_out_at_once_although_it_is_heard() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    // Nothing is asked for or synced again before an hour is over.
    let agent = settled(&control, &runtime, &["--sync-interval", "1h"]);
    runtime.state().alive.insert(subnet(2));
    control.leave(2);
    agent.until("its end", || {
        runtime.routes() == [3] && runtime.peers() == [3]
    });
    assert_eq!(agent.logged("peer suspect"), 0, "{:#?}", agent.log());
    assert_eq!(runtime.state().violations, [""; 0]);
    control.come_back(2);
    agent.until("its return", || runtime.routes() == [2, 3]);
}
