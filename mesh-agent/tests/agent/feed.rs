//! How changes of the node list reach the runtime.

use crate::{
    fake_control_plane::{Answer, FakeControlPlane},
    fake_runtime::{Call, FakeRuntime, subnet},
    peers::{removals, settled},
    process::Agent,
};

/// Far longer than a test may take: whatever arrives did not wait for an interval.
const NEVER: [&str; 2] = ["--sync-interval", "50s"];

#[test]
fn a_join_and_a_leave_arrive_without_waiting_for_an_interval() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &NEVER);
    let lists = control.lists();
    control.add_peer(4);
    agent.until("the join", || runtime.routes() == [2, 3, 4]);
    control.leave(3);
    agent.until("the leave", || runtime.routes() == [2, 4]);
    assert!(control.lists() <= lists + 3, "one question for one change");
}

#[test]
fn an_agent_without_news_asks_once_in_an_interval_and_goes_on_syncing() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    // No heartbeat is due meanwhile, for which a question would make way.
    let quiet = ["--sync-interval", "200ms", "--heartbeat-interval", "50s"];
    let agent = settled(&control, &runtime, &quiet);
    let (lists, mark) = (control.lists(), runtime.calls());
    agent.until("six syncs", || runtime.syncs_since(mark, 2) >= 6);
    let asked = control.lists() - lists;
    assert!((2..=9).contains(&asked), "{asked} questions");
}

#[test]
fn a_control_plane_without_a_feed_is_polled() {
    let (control, runtime) = (FakeControlPlane::without_feed(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    control.add_peer(4);
    control.leave(3);
    agent.until("join and leave", || runtime.routes() == [2, 4]);
    let lists = control.lists();
    agent.until("more lists", || control.lists() >= lists + 5);
    control.state().feed.served = true;
    agent.until_logged("News");
    control.add_peer(5);
    agent.until("an upgrade is noticed", || runtime.routes() == [2, 4, 5]);
}

/// Changes of every kind: what both the digest and the etags know, and what the etags alone do.
fn follows(control: &FakeControlPlane, runtime: &FakeRuntime, agent: &Agent, n: u8) {
    let others = runtime.routes();
    let with = |n: u8| [&others[..], &[n]].concat();
    let mtu = || -> Vec<u32> {
        let state = runtime.state();
        let told = state.entries.iter().filter(|peer| peer.subnet == subnet(n));
        told.map(|peer| peer.mtu).collect()
    };
    control.add_peer(n);
    agent.until("the join", || runtime.routes() == with(n));
    control.set(n, "overlay_mtu", 1400);
    agent.until("the MTU", || mtu() == [1400]);
    // Unknown to this version of the agent.
    control.set(n, "zone", "north");
    control.set(n, "overlay_mtu", 1350);
    agent.until("the next MTU", || mtu() == [1350]);
    runtime.state().alive.insert(subnet(n));
    // Down for both, and gone for those who know of leaving.
    control.leave(n);
    agent.until("the leave", || runtime.routes() == others);
    control.come_back(n);
    agent.until("the return", || runtime.routes() == with(n));
}

#[test]
fn with_and_without_etags_every_change_arrives_and_none_costs_a_whole_list() {
    for etags in [true, false] {
        let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
        control.state().feed.etags = etags;
        let agent = settled(&control, &runtime, &NEVER);
        let lists = control.whole_lists();
        follows(&control, &runtime, &agent, 4);
        assert_eq!(control.whole_lists(), lists, "etags: {etags}");
        assert_eq!(agent.logged("fetching all of it"), 0, "{:#?}", agent.log());
    }
}

/// Or replicas of both versions stand behind one name.
#[test]
fn an_upgrade_and_a_downgrade_of_the_control_plane_cost_no_whole_list() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.state().feed.etags = false;
    let agent = settled(&control, &runtime, &NEVER);
    let lists = control.whole_lists();
    for (n, etags) in [(4, true), (5, false), (6, true)] {
        control.state().feed.etags = etags;
        follows(&control, &runtime, &agent, n);
    }
    assert_eq!(control.whole_lists(), lists);
    assert_eq!(agent.logged("fetching all of it"), 0, "{:#?}", agent.log());
}

#[test]
fn a_copy_that_differs_only_in_what_no_digest_knows_is_healed_by_the_whole_list() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &["--sync-interval", "200ms"]);
    let before = control.state().feed.revision();
    control.set(3, "overlay_mtu", 1400);
    let mtus = || -> Vec<u32> {
        let state = runtime.state();
        state.entries.iter().map(|peer| peer.mtu).collect()
    };
    agent.until("the MTU", || mtus() == [0, 1400]);
    control.restore_and_set(before, 2, "overlay_mtu", 1350);
    agent.until("what the older one says", || mtus() == [1350, 0]);
    assert_eq!(agent.logged("fetching all of it"), 1, "{:#?}", agent.log());
}

#[test]
fn changes_that_do_not_add_up_are_healed_by_the_whole_list() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = settled(&control, &runtime, &[]);
    let revision = control.state().feed.revision();
    let database = control.state().feed.database().to_owned();
    // A change to a list that this agent never had.
    control.answer_lists(Answer::Body(format!(
        r#"{{"revision":{},"database":"{database}","digest":"00000000000000ab","full":false,
            "nodes":[],"removed":["peer-2","peer-3"]}}"#,
        revision + 1
    )));
    agent.until_logged("fetching all of it");
    control.answer_lists(Answer::Proper);
    control.add_peer(4);
    agent.until("the whole list", || runtime.routes() == [2, 3, 4]);
    assert_eq!(removals(&runtime), []);
}

#[test]
fn a_node_that_an_operator_removed_leaves_at_once() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    runtime.state().alive.insert(subnet(3));
    let agent = settled(&control, &runtime, &NEVER);
    control.forget(3);
    agent.until("3 is gone", || runtime.routes() == [2]);
}

#[test]
fn a_control_plane_that_does_not_wait_is_not_asked_in_a_loop() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.state().feed.waits = false;
    let agent = settled(&control, &runtime, &["--sync-interval", "300ms"]);
    let (lists, mark) = (control.lists(), runtime.calls());
    agent.until("five syncs", || runtime.syncs_since(mark, 2) >= 5);
    let asked = control.lists() - lists;
    assert!(asked <= 8, "{asked} questions");
}

#[test]
fn an_answer_that_waits_is_no_answer_that_is_late() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let long = ["--sync-interval", "1s", "--request-timeout", "200ms"];
    let agent = settled(&control, &runtime, &long);
    let mark = runtime.calls();
    agent.until("three syncs", || runtime.syncs_since(mark, 2) >= 3);
    assert_eq!(agent.logged("no node list"), 0, "{:#?}", agent.log());
}

#[test]
fn every_list_of_a_storm_ends_in_the_last_one() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = Agent::start(&control, &runtime, &NEVER);
    agent.until("registered", || control.registrations() == 1);
    for n in 2..=100 {
        control.add_peer(n);
        if n.is_multiple_of(3) {
            control.leave(n - 1);
        }
    }
    let left = |n: &u8| (n + 1).is_multiple_of(3);
    let stayed: Vec<u8> = (2..=100).filter(|n| !left(n)).collect();
    agent.until("who stayed", || runtime.routes() == stayed);
    let syncs = runtime.calls_since(0);
    let syncs = syncs
        .iter()
        .filter(|call| matches!(call, Call::Sync { .. }));
    assert!(syncs.count() < 99, "several changes are one sync");
}
