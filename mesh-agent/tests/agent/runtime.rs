//! What the agent makes of runtimes that restart, hang, refuse, or know less.

use crate::{
    fake_control_plane::{Answer, FakeControlPlane},
    fake_runtime::{Call, FakeRuntime, inject, subnet},
    process::Agent,
};

#[test]
fn a_restarted_runtime_gets_everything_again() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    control.add_peer(3);
    let agent = Agent::start(&control, &runtime, &[]);
    for _ in 0..3 {
        agent.until("all of it", || {
            runtime.state().subnet == subnet(1)
                && runtime.routes() == [2, 3]
                && runtime.peers() == [2, 3]
        });
        runtime.restart_empty();
    }
    agent.until("all of it", || runtime.routes() == [2, 3]);
    assert_eq!(runtime.state().violations, [""; 0]);
}

#[test]
fn a_restart_between_two_syncs_is_noticed_too() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    let agent = Agent::start(&control, &runtime, &["--sync-interval", "2s"]);
    agent.until("the route", || runtime.routes() == [2]);
    // Long before the next sync: the agent never meets a runtime that does not answer.
    runtime.restart_empty();
    agent.until("the route again", || {
        runtime.routes() == [2] && runtime.state().subnet == subnet(1)
    });
}

#[test]
fn what_left_while_the_runtime_was_away_is_removed_when_it_is_back() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::with_three_calls());
    control.add_peer(2);
    control.add_peer(3);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("two routes", || runtime.routes() == [2, 3]);
    runtime.stop();
    agent.until_logged("runtime lost");
    control.set(3, "status", "down");
    agent.until_logged("peer in doubt");
    runtime.resume();
    agent.until("one route", || runtime.routes() == [2]);
    assert!(runtime.calls_since(0).contains(&Call::Remove(subnet(3))));
}

#[test]
fn a_runtime_that_starts_later_is_waited_for_and_missed_once() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    runtime.stop();
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until_logged("runtime lost");
    let beats = control.heartbeats();
    agent.until("heartbeats go on", || control.heartbeats() >= beats + 5);
    assert_eq!(agent.logged("runtime lost"), 1, "{:#?}", agent.log());
    assert_eq!(agent.logged(" WARN "), 1, "{:#?}", agent.log());
    runtime.resume();
    agent.until("the route", || runtime.routes() == [2]);
    agent.until_logged("runtime is back");
}

#[test]
fn a_runtime_with_three_calls_works_and_is_commented_on_once() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::with_three_calls());
    control.add_peer(2);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("the route, again and again", || {
        let calls = runtime.calls_since(0);
        calls.iter().filter(|call| **call == inject(2)).count() >= 3
    });
    control.add_peer(3);
    control.set(2, "status", "down");
    agent.until("join and leave", || runtime.routes() == [3]);
    runtime.restart_empty();
    agent.until("everything again", || {
        runtime.routes() == [3] && runtime.state().subnet == subnet(1)
    });
    let mark = runtime.calls();
    agent.until("another injection", || {
        runtime.calls_since(mark).contains(&inject(3))
    });
    assert_eq!(agent.logged("no fast path"), 1, "{:#?}", agent.log());
    assert_eq!(runtime.syncs_since(0, 1), 0);
}

#[test]
fn a_runtime_that_is_upgraded_gets_the_peer_set() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::with_three_calls());
    control.add_peer(2);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until_logged("no fast path");
    runtime.stop();
    runtime.state().serves_sync = true;
    runtime.resume();
    agent.until("the peer", || runtime.peers() == [2]);
    agent.until_logged("serves mesh.MeshDataplane now");
}

#[test]
fn a_hanging_runtime_stops_neither_heartbeats_nor_lists() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    let long = ["--request-timeout", "1h"];
    let agent = Agent::start(&control, &runtime, &long);
    agent.until("the route", || runtime.routes() == [2]);
    runtime.state().hangs = true;
    let mark = runtime.calls();
    agent.until("a call that hangs", || runtime.calls() > mark);
    let (beats, lists) = (control.heartbeats(), control.lists());
    agent.until("heartbeats and lists go on", || {
        control.heartbeats() >= beats + 10 && control.lists() >= lists + 10
    });
    assert_eq!(
        runtime.calls(),
        mark + 1,
        "for the runtime, one call is enough"
    );
}

#[test]
fn a_runtime_that_hung_gets_everything_again() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("the route", || runtime.routes() == [2]);
    runtime.state().hangs = true;
    agent.until_logged("did not answer within 500ms");
    let mark = runtime.calls();
    runtime.state().hangs = false;
    agent.until("all of it", || {
        let calls = runtime.calls_since(mark);
        calls.contains(&Call::Configure(subnet(1))) && runtime.syncs_since(mark, 1) >= 1
    });
}

#[test]
fn a_hanging_control_plane_does_not_keep_a_new_runtime_waiting() {
    let (control, mut runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    let long = ["--request-timeout", "1h"];
    let agent = Agent::start(&control, &runtime, &long);
    agent.until("the route", || runtime.routes() == [2]);
    let lists = control.lists();
    control.answer_lists(Answer::Hang);
    agent.until("a list that hangs", || control.lists() > lists);
    runtime.restart_empty();
    agent.until("the route again", || runtime.routes() == [2]);
}

#[test]
fn a_refused_generation_is_continued_above() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    // The clock was a hundred years ahead in the last life.
    let ahead = 5_000_000_000_000;
    runtime.state().generation = ahead;
    control.add_peer(2);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("the route", || runtime.routes() == [2]);
    let mark = runtime.calls();
    agent.until("syncs go on", || runtime.syncs_since(mark, 1) >= 3);
    assert!(runtime.state().generation > ahead + 3);
    assert_eq!(agent.logged("later generation"), 1, "{:#?}", agent.log());
}

#[test]
fn a_refused_route_is_tried_again_and_its_reason_logged_once() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::with_three_calls());
    runtime.state().refuse_routes.insert(subnet(2));
    control.add_peer(2);
    control.add_peer(3);
    let seldom = ["--reinject-interval", "1h"];
    let agent = Agent::start(&control, &runtime, &seldom);
    agent.until("five attempts", || {
        let calls = runtime.calls_since(0);
        calls.iter().filter(|call| **call == inject(2)).count() >= 5
    });
    assert_eq!(agent.logged("foreign route"), 1, "{:#?}", agent.log());
    assert_eq!(runtime.routes(), [3], "the other is not held up");
    let calls = runtime.calls_since(0);
    assert_eq!(calls.iter().filter(|call| **call == inject(3)).count(), 1);
    runtime.state().refuse_routes.clear();
    agent.until("both", || runtime.routes() == [2, 3]);
}

#[test]
fn a_rejected_peer_gets_no_route_until_it_is_taken() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    runtime.state().reject_peers.insert(subnet(2));
    control.add_peer(2);
    control.add_peer(3);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("three syncs", || runtime.syncs_since(0, 2) >= 3);
    agent.until("the other route", || runtime.routes() == [3]);
    assert_eq!(agent.logged("rejected peers"), 1, "{:#?}", agent.log());
    runtime.state().reject_peers.clear();
    agent.until("both", || runtime.routes() == [2, 3]);
    assert_eq!(runtime.state().violations, [""; 0]);
}

#[test]
fn a_restarted_agent_without_a_list_does_not_take_the_peers_away() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    let mut agent = Agent::start(&control, &runtime, &[]);
    agent.until("the route", || runtime.routes() == [2]);
    assert!(agent.terminate().success());

    control.answer_lists(Answer::Status(503));
    let mark = runtime.calls();
    let agent = Agent::start(&control, &runtime, &[]);
    let (lists, beats) = (control.lists(), control.heartbeats());
    agent.until("lists that fail", || control.lists() >= lists + 6);
    agent.until("heartbeats", || control.heartbeats() >= beats + 3);
    assert_eq!(runtime.calls_since(mark), [Call::Configure(subnet(1))]);
    assert_eq!((runtime.routes(), runtime.peers()), (vec![2], vec![2]));

    control.answer_lists(Answer::Proper);
    control.set(2, "status", "down");
    agent.until("the peer of the earlier life goes", || {
        runtime.peers().is_empty()
    });
}

#[test]
fn with_254_peers_an_agent_has_less_than_4_megabytes_of_its_own() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    for n in 2..=255 {
        control.add_peer(n);
    }
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("254 routes", || runtime.routes().len() == 254);
    let mark = runtime.calls();
    agent.until("ten syncs", || runtime.syncs_since(mark, 254) >= 10);
    // Of what is resident the rest is the program's file, which is much larger here than one that is optimised.
    let own = agent.status_field("RssAnon");
    let resident = agent.status_field("VmRSS");
    println!(
        "memory with 254 peers: {own} of its own, {resident} with what is read of the program"
    );
    let kib: u64 = own.trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 4 * 1024, "{own}");
}
