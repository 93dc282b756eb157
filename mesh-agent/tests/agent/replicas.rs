//! Several replicas of the control plane.

use crate::{
    fake_control_plane::FakeControlPlane,
    fake_runtime::{FakeRuntime, subnet},
    peers::removals,
    process::Agent,
};

/// Starts an agent with three replicas, of which `first` comes first.
fn started(
    first: &FakeControlPlane,
    others: [&FakeControlPlane; 2],
    runtime: &FakeRuntime,
) -> Agent {
    let [second, third] = others.map(FakeControlPlane::url);
    first.add_peer(2);
    first.add_peer(3);
    let urls = format!("{second},{third}");
    let agent = Agent::start(first, runtime, &["--control-plane", &urls]);
    agent.until("two routes", || runtime.routes() == [2, 3]);
    agent
}

#[test]
fn the_next_replica_is_used_when_one_fails_and_kept_when_that_returns() {
    let mut first = FakeControlPlane::start();
    let (second, third) = (first.replica(), first.replica());
    let runtime = FakeRuntime::start();
    let agent = started(&first, [&second, &third], &runtime);
    assert_eq!(second.this_replica().calls + third.this_replica().calls, 0);

    first.stop();
    agent.until_logged("control plane replica failed");
    second.add_peer(4);
    agent.until("a join at the second", || runtime.routes() == [2, 3, 4]);
    first.resume();
    let (calls, beats) = (first.this_replica().calls, second.heartbeats());
    agent.until("heartbeats", || second.heartbeats() >= beats + 10);
    assert_eq!(first.this_replica().calls, calls, "nobody runs back");
    assert_eq!(
        agent.logged("control plane replica failed"),
        1,
        "{:#?}",
        agent.log()
    );

    second.this_replica().broken = true;
    agent.until("the third", || third.this_replica().calls > 0);
    third.add_peer(5);
    agent.until("a join at the third", || runtime.routes() == [2, 3, 4, 5]);
    assert_eq!(
        agent.logged("control plane replica failed"),
        2,
        "{:#?}",
        agent.log()
    );
    assert_eq!(first.registrations(), 1, "node ids hold everywhere");
    assert_eq!(removals(&runtime), []);
}

#[test]
fn an_agent_starts_with_whatever_replica_is_there() {
    let mut first = FakeControlPlane::start();
    let (mut second, third) = (first.replica(), first.replica());
    first.stop();
    second.stop();
    let runtime = FakeRuntime::start();
    let agent = started(&first, [&second, &third], &runtime);
    agent.until("heartbeats", || third.heartbeats() >= 3);
    assert_eq!(agent.logged("cannot register"), 0, "{:#?}", agent.log());
}

#[test]
fn with_all_replicas_gone_nothing_is_removed_and_whichever_returns_is_found() {
    let mut first = FakeControlPlane::start();
    let (mut second, mut third) = (first.replica(), first.replica());
    let runtime = FakeRuntime::start();
    let agent = started(&first, [&second, &third], &runtime);
    first.stop();
    second.stop();
    third.stop();
    agent.until_logged("no node list");
    agent.until_logged("heartbeat failed");
    third.resume();
    third.add_peer(4);
    agent.until("a join", || runtime.routes() == [2, 3, 4]);
    assert_eq!(removals(&runtime), []);
}

#[test]
fn a_replica_that_lags_removes_nobody() {
    let mut first = FakeControlPlane::start();
    let (second, third) = (first.replica(), first.replica());
    let runtime = FakeRuntime::start();
    let agent = started(&first, [&second, &third], &runtime);
    // Node 4 left, and came back while the second replica did not look.
    first.add_peer(4);
    agent.until("a join", || runtime.routes() == [2, 3, 4]);
    first.leave(4);
    agent.until("a leave", || runtime.routes() == [2, 3]);
    let stuck = first.state().feed.revision();
    for replica in [&second, &third] {
        replica.this_replica().stuck_at = Some(stuck);
    }
    first.come_back(4);
    agent.until("its return", || runtime.routes() == [2, 3, 4]);
    let before = removals(&runtime);

    first.stop();
    agent.until_logged("older node list");
    let calls = second.this_replica().calls;
    agent.until("older lists", || second.this_replica().calls >= calls + 10);
    assert_eq!(removals(&runtime), before);
    assert_eq!(runtime.routes(), [2, 3, 4]);
    assert_eq!(agent.logged("older node list"), 1, "{:#?}", agent.log());

    second.this_replica().stuck_at = None;
    second.add_peer(5);
    agent.until("it catches up", || runtime.routes() == [2, 3, 4, 5]);
}

#[test]
fn a_database_restored_from_a_backup_is_believed_in_the_end_and_removes_nobody_who_is_heard() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    let arguments = ["--replica-lag", "500ms", "--absent-peer-grace", "200ms"];
    let agent = Agent::start(&control, &runtime, &arguments);
    agent.until("a route", || runtime.routes() == [2]);
    let backup = control.state().feed.revision();
    control.add_peer(3);
    control.add_peer(4);
    runtime.state().alive.insert(subnet(3));
    agent.until("three routes", || runtime.routes() == [2, 3, 4]);
    control.restore(backup);
    agent.until("who is gone and silent leaves", || {
        runtime.routes() == [2, 3]
    });
    agent.until_logged("peer suspect");
    control.add_peer(5);
    agent.until("news count", || runtime.routes() == [2, 3, 5]);
}
