//! What it finds wrong with its runtime.

use mesh_problems::catalog::agent::{
    PEERS_NOT_PROBED, PEERS_REFUSED, PEERS_REJECTED, ROUTES_MISSING, ROUTES_NOT_REMOVED,
    RUNTIME_LOST, SETTINGS_NOT_FOLLOWED, SUBNET_REFUSED, THREE_CALL_RUNTIME,
};

use super::*;

#[test]
fn a_runtime_that_is_away_or_hangs_is_found_until_it_is_back() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    runtime.stop();
    let observed = agent.until_found(&RUNTIME_LOST);
    let since = agent.findings()[RUNTIME_LOST.code].since;
    assert!(observed.contains(&runtime.url()[7..]) || observed.contains("connection"));
    runtime.resume();
    agent.until_over(&RUNTIME_LOST);
    runtime.state().hangs = true;
    let observed = agent.until_found(&RUNTIME_LOST);
    assert!(observed.contains("did not answer within"), "{observed}");
    assert!(agent.findings()[RUNTIME_LOST.code].since >= since);
    runtime.state().hangs = false;
    agent.until_over(&RUNTIME_LOST);
}

#[test]
fn peers_that_the_runtime_does_not_take_are_found_with_their_number() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    for n in [3, 4, 5, 6] {
        runtime.state().reject_peers.insert(subnet(n));
        control.add_peer(n);
    }
    agent.until("all four", || {
        let findings = agent.findings();
        let found = findings.get(PEERS_REJECTED.code);
        found.is_some_and(|it| it.observed.starts_with("4: 10.42.3.0/24: "))
    });
    // One that leaves is none any more.
    control.leave(3);
    agent.until("three", || {
        let findings = agent.findings();
        findings[PEERS_REJECTED.code].observed.starts_with("3: ")
    });
    runtime.state().reject_peers.clear();
    agent.until_over(&PEERS_REJECTED);
}

#[test]
fn a_runtime_that_takes_no_peers_or_no_subnet_is_found() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    runtime.state().refuse_sync = true;
    let observed = agent.until_found(&PEERS_REFUSED);
    assert!(observed.contains("no room"), "{observed}");
    runtime.state().refuse_sync = false;
    agent.until_over(&PEERS_REFUSED);

    runtime.state().refuse_subnets.insert(subnet(1));
    runtime.restart_empty();
    let observed = agent.until_found(&SUBNET_REFUSED);
    assert!(observed.starts_with("10.42.1.0/24: "), "{observed}");
    runtime.state().refuse_subnets.clear();
    agent.until_over(&SUBNET_REFUSED);
}

#[test]
fn what_was_found_about_peers_is_over_when_another_runtime_is_not_told_of_them() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &[]);
    runtime.state().reject_peers.insert(subnet(2));
    agent.until_found(&PEERS_REJECTED);
    // It is replaced by one that cannot follow the settings.
    runtime.stop();
    runtime.state().capabilities = None;
    control.state().overlay = Some((8472, 100));
    runtime.resume();
    let observed = agent.until_found(&SETTINGS_NOT_FOLLOWED);
    assert!(observed.contains("8472"), "{observed}");
    agent.until_over(&PEERS_REJECTED);
    // And by one that has no call for them.
    control.state().overlay = Some((4789, 100));
    agent.until_over(&SETTINGS_NOT_FOLLOWED);
    agent.until_found(&PEERS_REJECTED);
    runtime.stop();
    runtime.state().serves_sync = false;
    runtime.resume();
    agent.until_found(&THREE_CALL_RUNTIME);
    agent.until_over(&PEERS_REJECTED);
}

#[test]
fn routes_that_a_runtime_with_three_calls_does_not_make_or_remove_are_found() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::with_three_calls());
    control.add_peer(2);
    control.add_peer(3);
    runtime.state().refuse_routes.insert(subnet(3));
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until_found(&THREE_CALL_RUNTIME);
    let observed = agent.until_found(&ROUTES_MISSING);
    assert_eq!(observed, "10.42.3.0/24: refused: \"foreign route\"");
    // The node leaves.
    control.leave(3);
    agent.until_over(&ROUTES_MISSING);
    agent.until("the route", || runtime.routes() == [2]);
    runtime.state().keep_routes = true;
    control.leave(2);
    let observed = agent.until_found(&ROUTES_NOT_REMOVED);
    assert!(observed.starts_with("10.42.2.0/24: "), "{observed}");
    runtime.state().keep_routes = false;
    agent.until_over(&ROUTES_NOT_REMOVED);
    // It is upgraded.
    control.come_back(2);
    runtime.stop();
    runtime.state().serves_sync = true;
    runtime.resume();
    agent.until_over(&THREE_CALL_RUNTIME);
}

#[test]
fn a_runtime_that_does_not_tell_who_lives_is_found_while_somebody_is_asked_about() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = well(&control, &runtime, &["--absent-peer-grace", "1h"]);
    runtime.state().fail_probes = true;
    control.set(2, "status", "down");
    let observed = agent.until_found(&PEERS_NOT_PROBED);
    assert!(observed.contains("cannot probe"), "{observed}");
    let peers = agent.status().peers.unwrap();
    assert_eq!((peers.confirmed, peers.in_doubt, peers.suspect), (0, 1, 0));
    // Nobody is asked about any more.
    control.set(2, "status", "up");
    agent.until_over(&PEERS_NOT_PROBED);
    control.set(2, "status", "down");
    agent.until_found(&PEERS_NOT_PROBED);
    runtime.state().alive.insert(subnet(2));
    runtime.state().fail_probes = false;
    agent.until_over(&PEERS_NOT_PROBED);
    agent.until("it is suspect", || {
        agent.status().peers.unwrap().suspect == 1
    });
}
